"""Work out the values that samplers should have, and the edits that set them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .edits import Edit, disconnect_input, set_widget
from .graph import Node, Place, Source
from .rules import COUNTS_ABOVE_CFG, DETERMINISTIC, FEW_STEP_SAMPLERS, PLAIN, VALUES, Role
from .samplers import Sampler, Setting, consumers_of_primitive

LARGEST_SHARE = 0.6
"""The share of its schedule up to which a sampler that starts late keeps its own start."""
MOST_STEPS = 10_000
"""The most that ComfyUI's samplers can be set to."""


@dataclass(frozen=True)
class Change:
    """A widget's new value. `unplug` is the link that has to go, because it would override the value."""

    node: Node
    widget: str
    old: Any
    new: Any
    """None if there is nothing to set: a subgraph node that saved no value shows the value of the node inside."""
    unplug: Source | None = None
    hosts: tuple["Change", ...] = ()
    """The same for the subgraph nodes on which the widget stands. Some frontends use the value there, others use the
    node's own."""

    def edits(self) -> list[Edit]:
        graph = self.node.graph
        unplugged: list[Edit] = [disconnect_input(graph, self.node.id, self.widget)] if self.unplug else []
        is_set: list[Edit] = [set_widget(graph, self.node.id, self.widget, self.new)] if self.new is not None else []
        return [*unplugged, *is_set]


def wanted_values(samplers: list[Sampler], steps: int, values: Mapping[Role, Any] = VALUES) -> dict[Setting, Any]:
    """Return the value that each setting of these samplers should have. The samplers are partners.

    `values` are what all settings but steps and boundaries should be.
    """
    wanted: dict[Setting, Any] = {}
    boundaries = _image_to_image(samplers, steps) or scaled_boundaries(samplers, steps)
    for sampler in samplers:
        total = boundaries.steps(sampler)
        for setting in sampler.settings:
            if setting.role == "boundary":
                wanted[setting] = boundaries.value(sampler, setting)
            else:
                wanted[setting] = total if setting.role == "steps" else _offered(setting, values)
    return {setting: value for setting, value in wanted.items() if value is not None}


def plain_values(samplers: list[Sampler]) -> dict[Setting, Any]:
    """Return the value that each setting of these samplers, partners, should have without SUN if no record says it.

    Automatic settings need few steps alone of a sampler: CFG, sampler and scheduler stay, unless they are SUN's own.
    """
    wanted = wanted_values(samplers, PLAIN["steps"], PLAIN)
    return {setting: value for setting, value in wanted.items() if _is_of_sun(setting)}


def _is_of_sun(setting: Setting) -> bool:
    if setting.role in ("steps", "boundary"):
        return True
    if setting.role == "cfg":
        return isinstance(setting.value, (int, float)) and setting.value <= COUNTS_ABOVE_CFG
    return setting.value in (VALUES[setting.role], *FEW_STEP_SAMPLERS)


def _offered(setting: Setting, values: Mapping[Role, Any]) -> Any:
    """Return the value that SUN needs, or for a sampler another deterministic one, if the node offers it."""
    value = values[setting.role]
    choices = setting.node.rule.choices.get(setting.widget) if setting.node.rule else None
    if not choices or value in choices:
        return value
    return next((name for name in DETERMINISTIC if setting.role == "sampler" and name in choices), None)


@dataclass
class Boundaries:
    """Where schedules are cut, before and after, by the number of steps that a schedule had."""

    new_steps: int
    scaled: Mapping[int, Mapping[int | None, int]]

    def steps(self, sampler: Sampler) -> int:
        cuts = self.scaled.get(_old_steps(sampler), {})
        return max(self.new_steps, len(cuts) + 1)

    def value(self, sampler: Sampler, setting: Setting) -> int | None:
        """Return the new cut, or None if it stays: step 0, the end, or an unknown value."""
        scaled, earlier = self.scaled.get(_old_steps(sampler), {}), setting.counts_from
        new, first = scaled.get(setting.cut), scaled.get(earlier.cut) if earlier is not None else 0
        return new - first if new is not None and first is not None else None


def _image_to_image(samplers: list[Sampler], new_steps: int) -> Boundaries | None:
    """Keep the strength of a sampler that starts late: `new_steps` from where it started, of as many as that takes.

    It starts at step 16 of 20, so 4 steps of its fifth of the schedule are 4 of 20. Above LARGEST_SHARE the rounded
    start would be farther from the old one than that of a schedule of `new_steps`.
    """
    start = samplers[0].start if len(samplers) == 1 else None
    old_steps = _old_steps(samplers[0])
    if start is None or (old_steps - start.value) / old_steps > LARGEST_SHARE:
        return None
    total = int(new_steps * old_steps / (old_steps - start.value) + 0.5)
    if total > MOST_STEPS:
        return None
    return Boundaries(total, {old_steps: {start.value: total - new_steps}})


def scaled_boundaries(samplers: list[Sampler], new_steps: int) -> Boundaries:
    """Cut schedules at the same share as before: 20 of 25 steps becomes 3 of 4.

    Partners with the same number of steps share a schedule, which keeps its number of parts: cuts stay apart and off
    the ends. If there are more parts than steps, every part gets one step.
    """
    cuts: dict[int, set[int]] = {}
    for sampler in samplers:
        old_steps = _old_steps(sampler)
        values = [setting.cut for setting in sampler.all_of("boundary")]
        cuts.setdefault(old_steps, set()).update(
            value for value in values if value is not None and 0 < value < old_steps
        )
    return Boundaries(
        new_steps, {old_steps: _spread(sorted(values), old_steps, new_steps) for old_steps, values in cuts.items()}
    )


def _spread(cuts: list[int], old_steps: int, new_steps: int) -> dict[int | None, int]:
    steps = max(new_steps, len(cuts) + 1)
    spread: dict[int | None, int] = {}
    for position, cut in enumerate(cuts):
        lowest = max(spread.values(), default=0) + 1
        highest = steps - (len(cuts) - position)
        spread[cut] = min(max(int(cut * steps / old_steps + 0.5), lowest), highest)
    return spread


def _old_steps(sampler: Sampler) -> int:
    steps = sampler.value("steps")
    return steps if isinstance(steps, int) and not isinstance(steps, bool) else 0


def changes_for(wanted: Mapping[Setting, Any], kept: Collection[Node] = ()) -> dict[Setting, Change]:
    """Return how to bring every setting to its wanted value. Those that have it already are left out, but on `kept`.

    A primitive is set if everything that it drives should get the same value. Otherwise, as with any other node that
    drives a setting, the link is unplugged and the widget is set.
    """
    changes: dict[Setting, Change] = {}
    by_input: dict[tuple[Node, str], Any] = {(setting.node, setting.widget): value for setting, value in wanted.items()}
    agreed: dict[tuple[Node, Any], bool] = {}
    for setting, new in wanted.items():
        primitive = setting.primitive
        if primitive is not None and (primitive, new) not in agreed:
            agreed[primitive, new] = _agree(primitive, new, by_input)
        if primitive is not None and agreed[primitive, new]:
            by_input[primitive, "value"] = new
            change = _change(Place(primitive, "value"), new, by_input)
        else:
            change = _change(Place(setting.node, setting.widget), new, by_input)
        parts = (change, *change.hosts)
        if change.node in kept or any(
            part.unplug or not _same(part.node.saved(part.widget), part.new) for part in parts
        ):
            changes[setting] = change
    return changes


def _change(place: Place, new: Any, by_input: dict[tuple[Node, str], Any]) -> Change:
    """Change a widget, and the subgraph nodes on which it stands, up to where a link has to go."""
    unplug = _in_the_way(place, new, by_input)
    hosts: dict[Place, Change] = {}
    level = [] if unplug else place.on_hosts()
    while level:
        by_input |= dict.fromkeys(level, new)
        above: list[Place] = []
        for host in level:
            link, old = _in_the_way(host, new, by_input), host.node.widgets.get(host.widget)
            hosts[host] = Change(*host, old, None if old is None else new, link)
            above += [] if link else host.on_hosts()
        level = [host for host in dict.fromkeys(above) if host not in hosts]
    return Change(*place, place.node.widgets.get(place.widget), new, unplug, tuple(hosts.values()))


def _in_the_way(place: Place, new: Any, by_input: Mapping[tuple[Node, str], Any]) -> Source | None:
    """Return the link that has to go before a widget can have the value `new`.

    A link from the subgraph's own input may stay if its value stands on the subgraph's nodes, and everything that this
    input feeds gets the value too.
    """
    feed = place.feed
    if feed is None or not place.on_hosts():
        return feed
    is_shared = any(by_input.get((end.node, end.input.name)) != new for end in place.node.graph.consumers(feed))
    return feed if is_shared else None


def _agree(primitive: Node, new: Any, by_input: Mapping[tuple[Node, str], Any]) -> bool:
    """Tell whether everything that a primitive drives should get the value `new`."""
    return all(by_input.get((end.node, end.input.name)) == new for end in consumers_of_primitive(primitive))


def _same(old: Any, new: Any) -> bool:
    """Compare values as the page does: 1 equals 1.0, but True does not equal 1."""
    return isinstance(old, bool) == isinstance(new, bool) and old == new


def edits_of(changes: Iterable[Change]) -> list[Edit]:
    """Return the edits of changes. A widget that several samplers share is set once."""
    unique = {(part.node, part.widget): part for change in changes for part in (change, *change.hosts)}
    return [edit for part in unique.values() for edit in part.edits()]


def edits_for(
    groups: Iterable[list[Sampler]], steps: int, roles: Collection[Role], values: Mapping[Role, Any] = VALUES
) -> list[Edit]:
    """Return the edits that give the settings with these roles what SUN needs, or what `values` say.

    `groups` are samplers, partners together.
    """
    wanted: dict[Setting, Any] = {}
    for group in groups:
        wanted |= wanted_values(group, steps, values)
    return edits_of(changes_for({setting: new for setting, new in wanted.items() if setting.role in roles}).values())
