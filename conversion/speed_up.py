"""Speed up with SUN: put a SUNSpeedUp on the MODEL line before each sampler, and set what it needs."""

from collections import defaultdict
from typing import Any

from .changes import Change, changes_for, edits_of, wanted_values
from .edits import Edit, Plan, sentences
from .graph import Graph, Node, Workflow
from .insertion import Canvas, by_line, insert
from .left_behind import nodes_with_older_notes
from .models import Candidate, Installed, Lines, judge, neighbours
from .negative_prompt import idle_negatives, negative_refusal
from .notes import bypass, noted, notes_of, to_restore
from .rules import SPEED_UP
from .samplers import Setting, find_samplers, grouped, partner_groups, with_partners
from .words import say


def speed_up(workflow: Workflow, targets: list[Node] | None, installed: Installed) -> Plan:
    """Plan for the samplers that the targets mean, or for all. Those that cannot be sped up are named."""
    lines = Lines(workflow, installed)
    everything = [judge(sampler, lines, installed) for sampler in find_samplers(workflow)]
    samplers = [candidate.sampler for candidate in everything]
    aimed = [candidate.sampler for candidate in aimed_at(everything, targets, workflow)]
    together = set(with_partners(aimed, samplers, workflow))
    chosen = [candidate for candidate in everything if candidate.sampler in together]
    if not chosen:
        here = say("There is no sampler here that SUN knows")
        return Plan(
            here if targets else say("There is no sampler in this workflow that SUN knows"),
            say(
                "SUN speeds up KSampler, KSamplerAdvanced, SamplerCustom, SamplerCustomAdvanced with a CFGGuider, and "
                "samplers of other packs that have the settings of a KSampler. Before any other sampler, put SUN "
                "4-Step Speed-Up by hand, and set 4 steps."
            ),
        )
    _keep_partners_alike(chosen, workflow)
    ready = [candidate for candidate in chosen if candidate.refusal is None]
    left = [_left(candidate, lines) for candidate in chosen if candidate.refusal is not None]
    if not ready:
        return Plan(say("SUN left this workflow as it is"), sentences(left))
    is_ready = set(ready)
    wanted = _wanted(ready, [candidate for candidate in everything if candidate not in is_ready], workflow)
    return _plan(workflow, ready, wanted, idle_negatives(everything, ready, lines, workflow), left)


def _left(candidate: Candidate, lines: Lines) -> str:
    """Say why a sampler stays as it is, and what else can be done for it."""
    said = say("{node} stays as it is: {reason}.", node=candidate.sampler.node.label, reason=candidate.refusal)
    if candidate.model.sun is not None or negative_refusal(candidate.sampler, lines) is not None:
        return said
    return say("{what} But “Let the negative prompt count” works here, without an adapter.", what=said)


def aimed_at(everything: list[Candidate], targets: list[Node] | None, workflow: Workflow) -> list[Candidate]:
    """Return the samplers that the targets mean.

    A part of a sampler means that sampler, a subgraph means those in it, and any other node means those at the lower
    end of its MODEL line.
    """
    if targets is None:
        return everything
    by_member: dict[Node, list[Candidate]] = defaultdict(list)
    by_graph: dict[str | None, list[Candidate]] = defaultdict(list)
    for candidate in everything:
        by_graph[candidate.sampler.graph.id].append(candidate)
        for member in candidate.sampler.members:
            by_member[member].append(candidate)
    chosen: set[Candidate] = set()
    others: set[Node] = set()
    for target in dict.fromkeys(targets):
        own = by_member.get(target) or [c for graph in _inner_graphs(workflow, target) for c in by_graph[graph]]
        chosen.update(own)
        if not own:
            others.add(target)
    return [c for c in everything if c in chosen or (others and c.line.passes(others))]


def _inner_graphs(workflow: Workflow, node: Node) -> set[str | None]:
    found: set[str | None] = set()
    waiting = [node]
    while waiting:
        inner = workflow.inner(waiting.pop())
        if inner is not None and inner.id not in found:
            found.add(inner.id)
            waiting.extend(inner.nodes.values())
    return found


def _keep_partners_alike(chosen: list[Candidate], workflow: Workflow) -> None:
    """Refuse the partners of a sampler that is refused."""
    groups = partner_groups([candidate.sampler for candidate in chosen], workflow)
    refused = {groups[c.sampler]: c for c in chosen if c.refusal is not None}
    for candidate in chosen:
        partner = refused.get(groups[candidate.sampler])
        if partner is not None and candidate.refusal is None:
            candidate.refusal = say(
                "it shares its schedule with {node}, which has to stay as it is", node=partner.sampler.node.label
            )


def _plan(
    workflow: Workflow, ready: list[Candidate], wanted: dict[Setting, Any], idle: list[Node], left: list[str]
) -> Plan:
    changes = changes_for(wanted)
    made: list[Edit] = []
    boxes: dict[Graph, Canvas] = {}
    node_id = workflow.next_id
    older = nodes_with_older_notes(candidate.sampler for candidate in ready)
    former = {
        setting: to_restore(change, SPEED_UP, older)
        for setting, change in changes_for(wanted, older).items()
        if setting in changes or noted(change.node, change.widget, SPEED_UP) is not None
    }
    for group in by_line(ready):
        made += insert(SPEED_UP, node_id, group, former, boxes)
        node_id += 1
    made += edits_of(changes.values())
    made += notes_of(former.values(), SPEED_UP, older) if workflow.has_modes else []
    made += [edit for node in idle for edit in bypass(node)]
    return Plan(
        edits=made,
        severity="warn" if any(c.choice.is_missing for c in ready if c.choice) else "info" if left else "success",
        summary=_summary(ready, wanted),
        detail=sentences([*_notes(ready, idle), *described(ready, changes), *left]),
    )


def _wanted(ready: list[Candidate], left: list[Candidate], workflow: Workflow) -> dict[Setting, Any]:
    """Return what every setting should be. Partners get the fewest steps that one of their adapters is made for.

    What a sampler that is left uses too, such as its KSamplerSelect, stays as it is.
    """
    steps = {candidate.sampler: candidate.choice.steps for candidate in ready if candidate.choice}
    wanted: dict[Setting, Any] = {}
    for partners in grouped(list(steps), workflow):
        wanted |= wanted_values(partners, min(steps[sampler] for sampler in partners))
    others = {member for candidate in left for member in candidate.sampler.members}
    return {setting: value for setting, value in wanted.items() if setting.node not in others}


def _summary(ready: list[Candidate], wanted: dict[Setting, Any]) -> str:
    needed = " / ".join(map(str, sorted({_length(candidate, wanted) for candidate in ready})))
    if len(ready) == 1:
        node = ready[0].sampler.node.label
        return say("{node} now needs {steps} steps and no CFG pass", node=node, steps=needed)
    return say("{count} samplers now need {steps} steps and no CFG pass", count=len(ready), steps=needed)


def _length(candidate: Candidate, wanted: dict[Setting, Any]) -> int:
    """Return how many steps a sampler needs: those of its schedule, or of the part that it runs by itself."""
    made_for = candidate.choice.steps if candidate.choice else 0
    sampler, start = candidate.sampler, candidate.sampler.start
    steps = next((wanted[setting] for setting in sampler.all_of("steps") if setting in wanted), made_for)
    return made_for if start is not None and steps - wanted.get(start, 0) == made_for else steps


def _notes(ready: list[Candidate], idle: list[Node]) -> list[str]:
    notes = [candidate.choice.note for candidate in ready if candidate.choice]
    notes += [text for candidate in ready for _, text in neighbours(candidate.line, idle)]
    notes += [say("{node} is bypassed, because the adapter reads the negative prompt.", node=n.label) for n in idle]
    lost = [(node, merge) for candidate in ready for node, merge in candidate.line.lost.items()]
    return notes + [
        say(
            "{node} has no effect on model2 of {merge}, which takes only the weights from there; remove it.",
            node=node.label,
            merge=merge.label,
        )
        for node, merge in lost
    ]


def described(ready: list[Candidate], changes: dict[Setting, Change]) -> list[str]:
    """Describe the changes of each sampler: `KSampler (#3): steps 25 -> 4, cfg 7 -> 1`."""
    lines = []
    for candidate in ready:
        parts = [
            f"{setting.widget} {_old(setting, changes[setting])} -> {_shown(changes[setting].new)}"
            for setting in candidate.sampler.settings
            if setting in changes
        ]
        if parts:
            lines.append(f"{candidate.sampler.node.label}: {', '.join(parts)}.")
    return lines


def _old(setting: Setting, change: Change) -> str:
    """Return the value that counted so far. What a widget holds beside a link is an old one."""
    if setting.primitive is None and any(part.unplug for part in (change, *change.hosts)):
        return say("by link")
    return _shown(setting.value)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)[:40] if isinstance(value, (int, str)) else "?"
