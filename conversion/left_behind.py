"""What is left on samplers when the node before them was turned off or deleted, and how to bring back what they had."""

from collections.abc import Collection, Iterable

from .changes import edits_for
from .edits import Edit, Finding
from .graph import Node, Place
from .models import is_set_to_few_steps
from .negative_prompt import model_refusal, why_it_is_empty
from .notes import forget, noted
from .record import Former, bring_back, has_record
from .rules import NEGATIVE, PLAIN, SPEED_UP, SUN_ON_MODEL
from .samplers import Sampler
from .surroundings import Surroundings, once_per_group
from .words import say


def is_off(node: Node) -> bool:
    """Tell whether a SUN node is bypassed, muted, or at values at which it does nothing."""
    if not node.is_active:
        return True
    if node.type == NEGATIVE:
        neutral = {"scale": 1, "alpha": 0}
        return any(node.widgets.get(name) == value and node.feed(name) is None for name, value in neutral.items())
    names = ("strength", "negative_strength", "positive_strength")
    strengths = [node.widgets[name] for name in names if name in node.widgets]
    return bool(strengths) and all(strength == 0 for strength in strengths) and not any(map(node.feed, names))


def left_behind(sampler: Sampler, around: Surroundings) -> list[Finding]:
    """Return what is wrong with a sampler that still has the settings of a SUN node that is off or gone."""
    return [*left_by_sun(sampler, around), *left_by_negative(sampler, around)]


def left_by_sun(sampler: Sampler, around: Surroundings) -> list[Finding]:
    """Return a finding for a sampler that still has SUN's few steps, although SUN is off or gone.

    The page itself says so of a SUN node that has a record, because Restore is the remedy there.
    """
    if not _lacks_sun(sampler, around):
        return []
    suns = [node for node in around.lines.of_sampler(sampler)[0].ours if node.type in SUN_ON_MODEL]
    former = _edits_of_notes(sampler, around)
    if not suns and not former:
        return []
    text = say("SUN is gone") if former else say("SUN is off")
    steps, cfg = sampler.value("steps"), sampler.value("cfg")
    what = {"node": sampler.node.label, "steps": steps, "cfg": f"{cfg:g}" if isinstance(cfg, (int, float)) else "?"}
    other = _partner_with_sun(sampler, around)
    if other is not None:
        detail = say(
            "{node} is still set to {steps} steps at CFG {cfg} without SUN, and shares its schedule with {other}, "
            "which has SUN. Let SUN work for both, or for neither of them.",
            other=other.node.label,
            **what,
        )
        return [Finding(text, detail)]
    if former:
        detail = say(
            "{node} is still set to {steps} steps at CFG {cfg}, and SUN is gone. Fix restores its former settings.",
            **what,
        )
        return [Finding(text, detail, former)]
    detail = say(
        "{sun} is off, and {node} is still set to {steps} steps at CFG {cfg}. Fix sets {plain} steps and what else a "
        "sampler without SUN needs.",
        sun=suns[0].label,
        plain=PLAIN["steps"],
        **what,
    )
    return [Finding(text, detail, _plain_settings(sampler, around))]


def left_by_negative(sampler: Sampler, around: Surroundings) -> list[Finding]:
    """Return a finding for a sampler at CFG 1 whose Negative Prompt at CFG 1 is off or gone.

    Without a note that one was there, or the node itself, CFG 1 is what was asked for.
    """
    if not _lacks_negative(sampler, around):
        return []
    negative = next((node for node in around.lines.of_sampler(sampler)[0].ours if node.type == NEGATIVE), None)
    former = _by_notes(sampler, NEGATIVE)
    if former and negative is None:
        detail = say(
            "{node} is still at CFG 1, where its negative prompt does not count, and Negative Prompt at CFG 1 is gone. "
            "Fix restores its former CFG.",
            node=sampler.node.label,
        )
        return [Finding(say("Negative is gone"), detail, _edits_back(former, NEGATIVE))]
    if negative is None or why_it_is_empty(sampler) is not None:
        return []
    what = {"negative": negative.label, "node": sampler.node.label}
    if former:
        detail = say(
            "{negative} is off, and {node} is still at CFG 1, where its negative prompt does not count. Fix restores "
            "its former CFG.",
            **what,
        )
        return [Finding(say("Negative is off"), detail, _edits_back(former, NEGATIVE))]
    detail = say(
        "{negative} is off, so the negative prompt of {node} does not count at CFG 1; turn it on, or raise CFG.", **what
    )
    return [Finding(say("Negative is off"), detail)]


def former_settings(
    samplers: Iterable[Sampler], around: Surroundings, going: Collection[Node] = ()
) -> dict[str, list[Former]]:
    """Return what samplers had before a click whose node is gone, by its type, as the notes on their nodes say.

    The SUN nodes in `going` count as gone already.
    """
    found: dict[str, dict[tuple[Node, str], Former]] = {SPEED_UP: {}, NEGATIVE: {}}
    seen: set[Sampler] = set()
    for sampler in samplers:
        if _lacks_negative(sampler, around, going):
            found[NEGATIVE] |= {(former.node, former.widget): former for former in _by_notes(sampler, NEGATIVE)}
        if sampler in seen or not _lacks_sun(sampler, around, going):
            continue
        partners = around.partners_of(sampler)
        seen.update(partners)
        if not any(_has_sun(partner, around, going) for partner in partners):
            formers = (former for partner in partners for former in _by_notes(partner, SPEED_UP))
            found[SPEED_UP] |= {(former.node, former.widget): former for former in formers}
    return {of: list(formers.values()) for of, formers in found.items()}


def nodes_with_older_notes(samplers: Iterable[Sampler]) -> set[Node]:
    """Return the nodes whose notes stay true when samplers without SUN are sped up: SUN was there before."""
    return {former.node for s in samplers if is_set_to_few_steps(s) for former in _by_notes(s, SPEED_UP)}


def _lacks_sun(sampler: Sampler, around: Surroundings, going: Collection[Node] = ()) -> bool:
    """Tell whether a sampler is set to few steps on a model that needs SUN for that, and has none."""
    if sampler.problem is not None or not is_set_to_few_steps(sampler) or sampler.node.type == "SUNSampler":
        return False
    line, model = around.lines.of_sampler(sampler)
    suns = [node for node in (*line.ours, *line.lost) if node.type in SUN_ON_MODEL and node not in going]
    return model.refusal is None and not any(has_record(sun) or not is_off(sun) for sun in suns)


def _lacks_negative(sampler: Sampler, around: Surroundings, going: Collection[Node] = ()) -> bool:
    """Tell whether nothing reads a sampler's negative prompt at CFG 1, although its model could."""
    cfg = sampler.value("cfg")
    if sampler.negative_problem is not None or isinstance(cfg, bool) or cfg != 1:
        return False
    line, model = around.lines.of_sampler(sampler)
    here = (node for node in (*line.ours, *line.lost) if node not in going)
    return model_refusal(model) is None and all(map(is_off, here))


def _has_sun(sampler: Sampler, around: Surroundings, going: Collection[Node] = ()) -> bool:
    ours = around.lines.of_sampler(sampler)[0].ours
    return any(node.type in SUN_ON_MODEL and node not in going and not is_off(node) for node in ours)


@once_per_group
def _partner_with_sun(partners: list[Sampler], around: Surroundings) -> Sampler | None:
    return next((partner for partner in partners if _has_sun(partner, around)), None)


@once_per_group
def _edits_of_notes(partners: list[Sampler], around: Surroundings) -> list[Edit]:
    return _edits_back([former for partner in partners for former in _by_notes(partner, SPEED_UP)], SPEED_UP)


@once_per_group
def _plain_settings(partners: list[Sampler], around: Surroundings) -> list[Edit]:
    return edits_for([partners], PLAIN["steps"], PLAIN, PLAIN)


def _by_notes(sampler: Sampler, of: str) -> list[Former]:
    """Return what a sampler had before a click, by the notes on its nodes and on those of the subgraphs around it."""
    found = []
    for setting in sampler.settings:
        own = Place(setting.primitive, "value") if setting.primitive else Place(setting.node, setting.widget)
        for node, widget in own.node.places(own.widget):
            former = noted(node, widget, of)
            if former is not None and (node is own.node or widget in node.widgets or former.plug is not None):
                found.append(former)
    return found


def _edits_back(formers: Iterable[Former], of: str) -> list[Edit]:
    """Return the edits that bring settings back and take the notes about them away."""
    unique = {(former.node, former.widget): former for former in formers}
    nodes = dict.fromkeys(former.node for former in unique.values())
    back = [edit for former in unique.values() for edit in bring_back(former)]
    return [*back, *(edit for node in nodes for edit in forget(node, of))]
