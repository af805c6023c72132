"""From the values that samplers should have to the edits that give them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import edits
from .edits import Edit
from .graph import Node, Source
from .rules import VALUES
from .samplers import Sampler, Setting, consumers_of_primitive


@dataclass(frozen=True)
class Change:
    """A widget's new value; `unplug` is the link that has to go for it to count."""

    node: Node
    widget: str
    old: Any
    new: Any
    unplug: Source | None = None

    def edits(self) -> list[Edit]:
        graph = self.node.graph
        unplugged = [edits.disconnect(graph, self.node.id, self.widget)] if self.unplug else []
        return [*unplugged, edits.set_widget(graph, self.node.id, self.widget, self.new)]


def wanted_values(samplers: list[Sampler], steps: int) -> dict[Setting, Any]:
    """The value that each setting of these samplers should have."""
    wanted: dict[Setting, Any] = {}
    boundaries = scaled_boundaries(samplers, steps)
    for sampler in samplers:
        total = boundaries.steps(sampler)
        for setting in sampler.settings:
            if setting.role == "boundary":
                wanted[setting] = boundaries.value(sampler, setting)
            else:
                wanted[setting] = total if setting.role == "steps" else VALUES[setting.role]
    return {setting: value for setting, value in wanted.items() if value is not None}


@dataclass
class Boundaries:
    """Where schedules are cut, before and after. Keyed by the number of steps that a schedule had."""

    new_steps: int
    scaled: Mapping[int, Mapping[int, int]]

    def steps(self, sampler: Sampler) -> int:
        cuts = self.scaled.get(_old_steps(sampler), {})
        return max(self.new_steps, len(cuts) + 1)

    def value(self, sampler: Sampler, setting: Setting) -> int | None:
        """None where it stays: step 0, the end, or a value that cannot be known."""
        cut = setting.value
        return self.scaled.get(_old_steps(sampler), {}).get(cut) if isinstance(cut, int) else None


def scaled_boundaries(samplers: list[Sampler], new_steps: int) -> Boundaries:
    """Cuts at the same share of the schedule: 20 of 25 steps becomes 3 of 4.

    Samplers that share a schedule (the same number of steps) keep as many parts as they had: cuts stay apart and off
    the ends, and where there are more parts than steps, every part gets one step.
    """
    cuts: dict[int, set[int]] = {}
    for sampler in samplers:
        old_steps = _old_steps(sampler)
        values = [setting.value for setting in sampler.all_of("boundary")]
        cuts.setdefault(old_steps, set()).update(
            value for value in values if isinstance(value, int) and 0 < value < old_steps
        )
    return Boundaries(
        new_steps, {old_steps: _spread(sorted(values), old_steps, new_steps) for old_steps, values in cuts.items()}
    )


def _spread(cuts: list[int], old_steps: int, new_steps: int) -> dict[int, int]:
    steps = max(new_steps, len(cuts) + 1)
    spread: dict[int, int] = {}
    for position, cut in enumerate(cuts):
        lowest = max(spread.values(), default=0) + 1
        highest = steps - (len(cuts) - position)
        spread[cut] = min(max(int(cut * steps / old_steps + 0.5), lowest), highest)
    return spread


def _old_steps(sampler: Sampler) -> int:
    steps = sampler.value("steps")
    return steps if isinstance(steps, int) and not isinstance(steps, bool) else 0


def changes_for(wanted: Mapping[Setting, Any]) -> dict[Setting, Change]:
    """How to bring every setting to its wanted value; settings that have it already are left out.

    A primitive is set where all that it drives should get one value; else, as with any other node that drives a
    setting, the link is unplugged and the widget set.
    """
    changes: dict[Setting, Change] = {}
    by_input = {(setting.node, setting.widget): value for setting, value in wanted.items()}
    agreed: dict[tuple[Node, Any], bool] = {}
    for setting, new in wanted.items():
        primitive = setting.primitive
        if primitive is not None and (primitive, new) not in agreed:
            agreed[primitive, new] = _agree(primitive, new, by_input)
        if primitive is not None and agreed[primitive, new]:
            old = primitive.widgets.get("value")
            change = Change(primitive, "value", old, new)
        else:
            old = setting.node.widgets.get(setting.widget)
            change = Change(setting.node, setting.widget, old, new, unplug=setting.source)
        if change.unplug or not _same(old, new):
            changes[setting] = change
    return changes


def _agree(primitive: Node, new: Any, by_input: Mapping[tuple[Node, str], Any]) -> bool:
    """Whether all that a primitive drives should get the value `new`."""
    return all(by_input.get((end.node, end.input.name)) == new for end in consumers_of_primitive(primitive))


def _same(old: Any, new: Any) -> bool:
    """Equal as the UI sees it: 1 and 1.0 are one value, True and 1 are not."""
    return isinstance(old, bool) == isinstance(new, bool) and old == new


def edits_of(changes: Iterable[Change]) -> list[Edit]:
    """Their edits; a widget that several samplers share is set once."""
    unique = {(change.node, change.widget): change for change in changes}
    return [edit for change in unique.values() for edit in change.edits()]
