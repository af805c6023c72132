"""What is left on samplers when the node before them was turned off or deleted, and how to bring back what they had."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from .changes import Change, changes_for, edits_of, plain_values
from .edits import Edit, Finding, set_mode
from .graph import BYPASSED, MUTED, Node, Place, as_dict
from .models import Model, few_step_nodes, is_set_to_few_steps
from .negative_prompt import model_refusal, why_it_is_empty
from .notes import NOTES, forget, is_bypassed_by_sun, noted, notes_of, wake
from .record import Former, bring_back, has_record
from .rules import NEGATIVE, SPEED_UP, STEPS, SUN_ON_MODEL
from .samplers import Sampler, Setting
from .surroundings import Surroundings, once, once_per_group
from .words import say

MOST_STEPS = 2 * STEPS
"""Up to so many steps at any CFG, a sampler is taken for one that was set up for SUN, once a SUN node was there."""


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


@once
def left_by_sun(sampler: Sampler, around: Surroundings) -> list[Finding]:
    """Return a finding for a sampler that still has SUN's few steps, although SUN is off or gone."""
    suns = _suns_before(sampler, around)
    muted = next((sun for sun in suns if sun.mode == MUTED), None)
    if not _is_left_by_sun(sampler, suns, muted, around):
        return []
    text = say("SUN is off") if suns else say("SUN is gone")
    other = _partner_with_sun(sampler, around)
    if other is not None:
        return [Finding(text, _said_of_half(sampler, other))]
    edits = _settings_without_sun(sampler, around, is_sun_there=bool(suns))
    if muted is None:
        return [Finding(text, _said_of_settings(sampler, suns), edits)]
    detail = say(
        "{sun} is muted, so that {node} gets no MODEL. Fix bypasses it and gives {node} the settings for a run "
        "without SUN.",
        sun=muted.label,
        node=sampler.node.label,
    )
    bypassed = Finding(text, detail, [set_mode(muted.graph, muted.id, BYPASSED)])
    return [bypassed, Finding(text, detail, edits)] if edits else [bypassed]  # apart, since partners share `edits`


def _is_left_by_sun(sampler: Sampler, suns: list[Node], muted: Node | None, around: Surroundings) -> bool:
    """Say whether a sampler lacks SUN and has its settings all the same; `suns` are those on its MODEL line."""
    if not (_lacks_sun(sampler, around) if muted is None else _would_lack_sun(sampler, muted, around)):
        return False
    if _former_of_partners(sampler, around):
        return not _are_in_force(sampler, around)
    return bool(suns) and not _may_need_few_steps(sampler, around)


def _said_of_half(sampler: Sampler, other: Sampler) -> str:
    """Say that of two samplers that share a schedule, `other` alone has SUN."""
    return say(
        "{node} is still set to {steps} steps at CFG {cfg} without SUN, and shares its schedule with {other}, "
        "which has SUN. Let SUN work for both, or for neither of them.",
        other=other.node.label,
        **_settings_in_words(sampler),
    )


def _said_of_settings(sampler: Sampler, suns: list[Node]) -> str:
    """Say what a sampler is still set to, although its SUN is off, or gone if there are no `suns`."""
    if suns:
        return say(
            "{sun} is off, and {node} is still set to {steps} steps at CFG {cfg}. Fix gives it the settings for a run "
            "without SUN.",
            sun=suns[0].label,
            **_settings_in_words(sampler),
        )
    return say(
        "{node} is still set to {steps} steps at CFG {cfg}, and SUN is gone. Fix gives it the settings for a run "
        "without SUN.",
        **_settings_in_words(sampler),
    )


def _settings_in_words(sampler: Sampler) -> dict[str, Any]:
    cfg = sampler.value("cfg")
    words = f"{cfg:g}" if isinstance(cfg, (int, float)) else "?"
    return {"node": sampler.node.label, "steps": sampler.value("steps"), "cfg": words}


def notes_on_delete(around: Surroundings) -> dict[Node, list[Edit]]:
    """Return the notes that each SUN node that was put in by hand leaves on its samplers when it is deleted.

    What they had before is not known, so that they say what a sampler without SUN needs. A node that has a note keeps
    it: it may say what was there before.
    """
    suns = [node for node in around.workflow.nodes() if node.type in SUN_ON_MODEL and not has_record(node)]
    behind = {sun: [sampler for sampler in around.fed_by(sun) if _was_set_for_sun(sampler, around)] for sun in suns}
    groups = {id(group): group for samplers in behind.values() for group in map(around.partners_of, samplers)}
    wanted: dict[Setting, Any] = {}
    for group in groups.values():
        wanted |= plain_values(group)
    changes = {setting: change for setting, change in changes_for(wanted).items() if not _has_note(change.node)}
    hosts = {host.node for change in changes.values() for host in change.hosts}
    notes = {}
    for sun, samplers in behind.items():
        settings = [setting for sampler in samplers for setting in sampler.settings]
        formers = [_as_former(changes[setting]) for setting in settings if setting in changes]
        notes[sun] = notes_of(formers, SPEED_UP, hosts)
    return notes


@once
def _was_set_for_sun(sampler: Sampler, around: Surroundings) -> bool:
    """Tell whether a sampler has few steps, and its model does not need few steps without SUN too."""
    is_slow = around.lines.of_sampler(sampler)[1].refusal is None and not _may_need_few_steps(sampler, around)
    return is_slow and _is_set_for_sun(sampler)


def _has_note(node: Node) -> bool:
    return bool(as_dict(node.properties.get(NOTES[SPEED_UP])))


def _as_former(change: Change) -> Change:
    """Return a change whose old value is the new one, so that a note of it brings that back."""
    return replace(change, old=change.new, unplug=None, hosts=tuple(map(_as_former, change.hosts)))


@once
def left_by_negative(sampler: Sampler, around: Surroundings) -> list[Finding]:
    """Return a finding for a sampler at CFG 1 whose Negative Prompt at CFG 1 is off or gone.

    Without a note that one was there, or the node itself, CFG 1 is what was asked for.
    """
    if asleep := asleep_without_sun(sampler, around):
        return asleep
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


@once
def asleep_without_sun(sampler: Sampler, around: Surroundings) -> list[Finding]:
    """Return a finding for a sampler at CFG 1 whose SUNNegative "Speed up" bypassed, if its SUN is off or gone."""
    asleep = [node for node in around.lines.of_sampler(sampler)[0].ours if is_bypassed_by_sun(node)]
    if not asleep or sampler.value("cfg") != 1 or _has_sun(sampler, around):
        return []
    detail = say(
        "{negative} was bypassed for SUN, which is off or gone, so the negative prompt of {node} does not count at "
        "CFG 1. Fix makes it active again.",
        negative=asleep[0].label,
        node=sampler.node.label,
    )
    return [Finding(say("Negative is off"), detail, [edit for node in asleep for edit in wake(node)])]


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
        if any(map(has_record, _suns_before(sampler, around, going))):
            continue  # its record says more
        partners = around.partners_of(sampler)
        seen.update(partners)
        if not any(_has_sun(partner, around, going) for partner in partners):
            found[SPEED_UP] |= {(former.node, former.widget): former for former in _noted_settings(partners)}
    return {of: list(formers.values()) for of, formers in found.items()}


def nodes_with_older_notes(samplers: Iterable[Sampler]) -> set[Node]:
    """Return the nodes whose notes stay true when samplers without SUN are sped up: SUN was there before."""
    return {former.node for s in samplers if _is_set_for_sun(s) for former in _by_notes(s, SPEED_UP)}


def _is_set_for_sun(sampler: Sampler) -> bool:
    """Tell whether a sampler has few steps, at whatever CFG: automatic settings make that 1 only for the run."""
    if sampler.problem is not None or sampler.node.type == "SUNSampler":
        return False
    steps = sampler.value("steps")
    return is_set_to_few_steps(sampler) or (isinstance(steps, int) and steps <= MOST_STEPS)


def _lacks_sun(sampler: Sampler, around: Surroundings, going: Collection[Node] = ()) -> bool:
    """Tell whether a sampler is set to few steps on a model that needs SUN for that, and has none that is on."""
    is_plain = all(map(is_off, _suns_before(sampler, around, going)))
    return is_plain and _is_set_for_sun(sampler) and _without(going, sampler, around)[1].refusal is None


def _would_lack_sun(sampler: Sampler, muted: Node, around: Surroundings) -> bool:
    """Tell whether a sampler that gets no MODEL from a muted SUN node lacks SUN once that node is bypassed."""
    line, _ = around.lines.of_sampler(sampler)
    if line.loaders:
        return _lacks_sun(sampler, around)
    above = around.lines.into(muted)[1]
    needs_none = above.others or above.few_step or few_step_nodes(line)
    return _is_set_for_sun(sampler) and not needs_none and all(map(is_off, _suns_before(sampler, around)))


def _may_need_few_steps(sampler: Sampler, around: Surroundings) -> bool:
    """Tell whether few steps may be meant for a LoRA on the line, as "Speed up" assumes too."""
    return around.lines.of_sampler(sampler)[1].suspicion is not None and is_set_to_few_steps(sampler)


def _suns_before(sampler: Sampler, around: Surroundings, going: Collection[Node] = ()) -> list[Node]:
    return [node for node in _without(going, sampler, around)[0] if node.type in SUN_ON_MODEL]


def _without(going: Collection[Node], sampler: Sampler, around: Surroundings) -> tuple[list[Node], Model]:
    """Return the nodes of this pack on a sampler's line, and its model, once those in `going` are gone.

    One of these that is muted ends the line now, and then it will not.
    """
    line, model = around.lines.of_sampler(sampler)
    ours, passed = [*line.ours, *line.lost], set()
    while muted := next((n for n in line.ours if n.mode == MUTED and n in going and n not in passed), None):
        passed.add(muted)
        line, model = around.lines.into(muted)
        ours += [*line.ours, *line.lost]
    return [node for node in ours if node not in going], model


def _lacks_negative(sampler: Sampler, around: Surroundings, going: Collection[Node] = ()) -> bool:
    """Tell whether nothing reads a sampler's negative prompt at CFG 1, although its model could."""
    cfg = sampler.value("cfg")
    if sampler.negative_problem is not None or isinstance(cfg, bool) or cfg != 1:
        return False
    here, model = _without(going, sampler, around)
    return model_refusal(model) is None and all(is_off(node) and not is_bypassed_by_sun(node) for node in here)


def _has_sun(sampler: Sampler, around: Surroundings, going: Collection[Node] = ()) -> bool:
    ours = around.lines.of_sampler(sampler)[0].ours
    return any(node.type in SUN_ON_MODEL and node not in going and not is_off(node) for node in ours)


@once_per_group
def _partner_with_sun(partners: list[Sampler], around: Surroundings) -> Sampler | None:
    return next((partner for partner in partners if _has_sun(partner, around)), None)


@once_per_group
def _former_of_partners(partners: list[Sampler], around: Surroundings) -> list[Former]:
    return _noted_settings(partners)


@once_per_group
def _settings_without_sun(partners: list[Sampler], around: Surroundings, is_sun_there: bool) -> list[Edit]:
    """Return the edits that give partners what they had before, or plain settings.

    Notes stay as long as the SUN node is there, which may be turned on again, and deleted then.
    """
    formers = _noted_settings(partners)
    if not formers:
        return edits_of(changes_for(plain_values(partners)).values())
    return (
        [edit for former in formers for edit in bring_back(former)] if is_sun_there else _edits_back(formers, SPEED_UP)
    )


@once_per_group
def _are_in_force(partners: list[Sampler], around: Surroundings) -> bool:
    """Tell whether all that notes name has its former value, with no link that would have to come back."""
    formers = _noted_settings(partners)
    return all(former.plug is None and former.node.widgets.get(former.widget) == former.value for former in formers)


def _noted_settings(partners: Iterable[Sampler]) -> list[Former]:
    """Return what partners had before "Speed up", by the notes on their nodes."""
    return [former for partner in partners for former in _by_notes(partner, SPEED_UP)]


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
