"""Let the negative prompt count: put a SUNNegative on the MODEL line before each sampler, and set CFG 1."""

from typing import Any

from .changes import Change, changes_for, edits_of
from .edits import Edit, Plan, sentences
from .graph import Graph, Node, Workflow
from .insertion import Canvas, by_line, insert
from .models import Candidate, Installed, Lines
from .negative_prompt import negative_refusal
from .notes import notes_of, to_restore
from .rules import NEGATIVE, VALUES
from .samplers import Setting, find_samplers
from .speed_up import aimed_at, described
from .words import say


def let_negative_count(workflow: Workflow, targets: list[Node] | None, installed: Installed) -> Plan:
    """Plan for the samplers that the targets mean, or for all. Those for which it would do nothing are named."""
    lines = Lines(workflow, installed)
    everything = [
        Candidate(sampler, *lines.of_sampler(sampler), refusal=negative_refusal(sampler, lines))
        for sampler in find_samplers(workflow)
    ]
    _keep_guiders_alike(everything)
    chosen = aimed_at(everything, targets, workflow)
    if not chosen:
        here = say("There is no sampler here that SUN knows")
        return Plan(
            here if targets else say("There is no sampler in this workflow that SUN knows"),
            say("Before any other sampler, put Negative Prompt at CFG 1 on the MODEL line by hand."),
        )
    ready = [candidate for candidate in chosen if candidate.refusal is None]
    left = [
        say("{node} stays as it is: {reason}.", node=candidate.sampler.node.label, reason=candidate.refusal)
        for candidate in chosen
        if candidate.refusal is not None
    ]
    if not ready:
        return Plan(say("SUN left this workflow as it is"), sentences(left))
    return _plan(workflow, ready, left)


def _keep_guiders_alike(everything: list[Candidate]) -> None:
    """Refuse a sampler whose guider serves another one that is refused: a new node would stand before both."""
    refused = {candidate.sampler.model_node: candidate for candidate in everything if candidate.refusal is not None}
    for candidate in everything:
        other = refused.get(candidate.sampler.model_node)
        if other is not None and candidate.refusal is None:
            candidate.refusal = say(
                "it shares its guider with {node}, which has to stay as it is", node=other.sampler.node.label
            )


def _plan(workflow: Workflow, ready: list[Candidate], left: list[str]) -> Plan:
    settings = [setting for candidate in ready for setting in candidate.sampler.all_of("cfg")]
    changes = changes_for(dict.fromkeys(settings, VALUES["cfg"]))
    made: list[Edit] = []
    boxes: dict[Graph, Canvas] = {}
    former = {setting: to_restore(change, NEGATIVE) for setting, change in changes.items()}
    for node_id, group in enumerate(by_line(ready), workflow.next_id):
        made += insert(NEGATIVE, node_id, group, former, boxes)
    made += edits_of(changes.values())
    made += notes_of(former.values(), NEGATIVE) if workflow.has_modes else []
    return Plan(
        edits=made,
        severity="info" if left else "success",
        summary=_summary(ready),
        detail=sentences([*described(ready, changes), *_saved(changes), *left]),
    )


def _summary(ready: list[Candidate]) -> str:
    if len(ready) == 1:
        return say("The negative prompt of {node} now counts at CFG 1", node=ready[0].sampler.node.label)
    return say("The negative prompts of {count} samplers now count at CFG 1", count=len(ready))


def _saved(changes: dict[Setting, Change]) -> list[str]:
    """Say that a CFG pass is saved if there was one."""
    old: list[Any] = [setting.value for setting in changes]
    if not any(isinstance(cfg, (int, float)) and cfg > 1 for cfg in old):
        return []
    return [say("At CFG 1 each step evaluates the model once, not twice.")]
