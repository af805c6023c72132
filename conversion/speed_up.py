"""Speed up with SUN: a SUNSpeedUp on the MODEL line before each sampler, and the settings that it needs."""

from dataclasses import dataclass
from typing import Any

from . import edits
from .changes import Change, changes_for, wanted_values
from .edits import Edit
from .graph import Graph, Node, Source, Workflow
from .model_line import ModelLine, model_line
from .models import Choice, Installed, Model, choose_adapter, model_of
from .placement import Box, free_position
from .record import RECORD, make_record
from .result import Plan, sentences
from .rules import RELEASED, SPEED_UP, SUN_ON_MODEL
from .samplers import Sampler, Setting, find_samplers
from .ui_format import TITLE_HEIGHT


@dataclass
class Candidate:
    """A sampler, its model, and either an adapter or the reason why it stays as it is."""

    sampler: Sampler
    line: ModelLine
    model: Model
    choice: Choice | None = None
    refusal: str | None = None


class Lines:
    """The MODEL lines of a workflow, each walked and judged once."""

    def __init__(self, workflow: Workflow, installed: Installed) -> None:
        self._workflow, self._installed = workflow, installed
        self._lines: dict[tuple[str | None, Source | None], tuple[ModelLine, Model]] = {}

    def of(self, graph: Graph, source: Source | None) -> tuple[ModelLine, Model]:
        key = (graph.id, source)
        if key not in self._lines:
            line = model_line(self._workflow, graph, source)
            self._lines[key] = (line, model_of(line, self._installed))
        return self._lines[key]

    def of_sampler(self, sampler: Sampler) -> tuple[ModelLine, Model]:
        return self.of(sampler.graph, sampler.model_input.source if sampler.model_input else None)


def speed_up(workflow: Workflow, targets: list[Node] | None, installed: Installed) -> Plan:
    lines = Lines(workflow, installed)
    everything = [_judge(sampler, lines, installed) for sampler in find_samplers(workflow)]
    chosen = with_partners(aimed_at(everything, targets, workflow), everything)
    if not chosen:
        where = "here" if targets else "in this workflow"
        return Plan(
            f"There is no sampler {where} that SUN knows",
            "SUN speeds up KSampler, KSamplerAdvanced, SamplerCustom and SamplerCustomAdvanced with a CFGGuider. "
            "Where a pack samples in a node of its own, put SUN 4-Step Speed-Up before it by hand and set 4 steps.",
        )
    _keep_partners_alike(chosen)
    ready = [candidate for candidate in chosen if candidate.refusal is None]
    left = [f"{c.sampler.node.label} stays as it is: {c.refusal}." for c in chosen if c.refusal is not None]
    if not ready:
        return Plan("SUN left this workflow as it is", sentences(left))
    return _plan(workflow, ready, left)


def _judge(sampler: Sampler, lines: Lines, installed: Installed) -> Candidate:
    line, model = lines.of_sampler(sampler)
    candidate = Candidate(sampler, line, model, refusal=sampler.problem)
    bypassed = next((node for node in line.passed if node.type in SUN_ON_MODEL and not node.is_active), None)
    if model.sun is not None:
        candidate.refusal = f"{model.sun.label} is on its MODEL line already"
    elif bypassed is not None:
        candidate.refusal = f"{bypassed.label} is on its MODEL line already, but bypassed; enable it (Ctrl+B)"
    elif model.refusal is not None:
        candidate.refusal = model.refusal
    elif candidate.refusal is None and _has_unknown_cut(sampler):
        candidate.refusal = "how many steps it has comes from another node, so its start and end cannot be scaled"
    if candidate.refusal is None:
        candidate.choice = choose_adapter(model, installed)
        if candidate.choice.name is None:
            candidate.refusal = candidate.choice.note
    return candidate


def _has_unknown_cut(sampler: Sampler) -> bool:
    steps = sampler.value("steps")
    cuts = [setting.value for setting in sampler.all_of("boundary")]
    return not isinstance(steps, int) and any(cut not in (0, 10000) for cut in cuts)


def aimed_at(everything: list[Candidate], targets: list[Node] | None, workflow: Workflow) -> list[Candidate]:
    """The samplers that the targets mean: a part of a sampler means it, a subgraph what is in it, and any other node
    the samplers at the lower end of its MODEL line."""
    if targets is None:
        return everything
    chosen: list[Candidate] = []
    for target in targets:
        own = [c for c in everything if target in c.sampler.members]
        inside = [c for c in everything if c.sampler.graph.id in _inner_graphs(workflow, target)]
        chosen += own or inside or [c for c in everything if target in c.line.passed]
    return [c for c in everything if c in chosen]


def _inner_graphs(workflow: Workflow, node: Node) -> set[str | None]:
    found: set[str | None] = set()
    waiting = [node]
    while waiting:
        inner = workflow.inner(waiting.pop())
        if inner is not None and inner.id not in found:
            found.add(inner.id)
            waiting.extend(inner.nodes.values())
    return found


def with_partners(chosen: list[Candidate], everything: list[Candidate]) -> list[Candidate]:
    """Adds the samplers that cannot keep their settings when the chosen ones change: those that share a guider or a
    schedule with one of them, and those that go on with its half-denoised latent."""
    groups = partner_groups(everything)
    keys = {groups[id(candidate)] for candidate in chosen}
    return [candidate for candidate in everything if groups[id(candidate)] in keys]


def partner_groups(everything: list[Candidate]) -> dict[int, int]:
    """A group number for each candidate (by id): union-find over shared members and handed-on latents."""
    parent = {id(c): id(c) for c in everything}

    def root(key: int) -> int:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    by_member: dict[Node, Candidate] = {}
    by_node = {c.sampler.node: c for c in everything}
    for candidate in everything:
        for member in candidate.sampler.members:
            first = by_member.setdefault(member, candidate)
            parent[root(id(candidate))] = root(id(first))
        earlier = _hands_on_noise(candidate.sampler)
        if earlier in by_node:
            parent[root(id(candidate))] = root(id(by_node[earlier]))
    return {key: root(key) for key in parent}


def _hands_on_noise(sampler: Sampler) -> Node | None:
    """The KSamplerAdvanced whose unfinished latent this one goes on with."""
    slot = sampler.node.inputs.get("latent_image")
    source = sampler.graph.through_reroutes(slot.source if slot else None)
    node = sampler.graph.nodes.get(source.node) if source else None
    if node is None or node.type != "KSamplerAdvanced" or not node.is_active:
        return None
    return node if node.widgets.get("return_with_leftover_noise") == "enable" else None


def _keep_partners_alike(chosen: list[Candidate]) -> None:
    """Where one of a group stays as it is, so do the others."""
    groups = partner_groups(chosen)
    refused = {groups[id(c)]: c for c in chosen if c.refusal is not None}
    for candidate in chosen:
        partner = refused.get(groups[id(candidate)])
        if partner is not None and candidate.refusal is None:
            candidate.refusal = f"it shares its schedule with {partner.sampler.node.label}, which has to stay as it is"


def _plan(workflow: Workflow, ready: list[Candidate], left: list[str]) -> Plan:
    steps = min(candidate.choice.steps for candidate in ready if candidate.choice)
    changes = changes_for(wanted_values([candidate.sampler for candidate in ready], steps))
    made: list[Edit] = []
    taken: dict[str | None, list[Box]] = {}
    node_id = workflow.next_id
    for group in _by_line(ready):
        made += _insert(node_id, group, changes, taken)
        node_id += 1
    done: set[tuple[Node, str]] = set()
    for change in changes.values():
        if (change.node, change.widget) not in done:
            done.add((change.node, change.widget))
            made += change.edits()
    return Plan(
        edits=made,
        severity="warn" if any(c.choice.is_missing for c in ready if c.choice) else "info" if left else "success",
        summary=_summary(ready, steps),
        detail=sentences([*_notes(ready), *_described(ready, changes), *left]),
    )


def _by_line(ready: list[Candidate]) -> list[list[Candidate]]:
    """Samplers that one SUNSpeedUp serves: those that the same output feeds over the same native reroutes."""
    groups: dict[tuple[Any, ...], list[Candidate]] = {}
    for candidate in ready:
        slot = candidate.sampler.model_input
        assert slot is not None
        key = (candidate.sampler.graph.id, slot.source, slot.via, candidate.choice.name if candidate.choice else None)
        groups.setdefault(key, []).append(candidate)
    return list(groups.values())


def _insert(
    node_id: int, group: list[Candidate], changes: dict[Setting, Change], taken: dict[str | None, list[Box]]
) -> list[Edit]:
    """One SUNSpeedUp before the samplers of `group`; the link to it keeps the native reroutes that there were."""
    first = group[0].sampler
    graph, slot, choice = first.graph, first.model_input, group[0].choice
    assert slot is not None and slot.source is not None and choice is not None
    fed = list(dict.fromkeys(c.sampler.model_node for c in group if c.sampler.model_node))
    beside = min(fed, key=lambda node: (node.box[0], node.box[1]))
    position = free_position(graph, beside, SPEED_UP["size"], taken.setdefault(graph.id, []))
    width, height = SPEED_UP["size"]
    taken[graph.id].append((position[0], position[1] - TITLE_HEIGHT, position[0] + width, position[1] + height))

    own = [change for c in group for setting, change in changes.items() if setting in c.sampler.settings]
    properties: dict[str, Any] = {RECORD: make_record(own)}
    if choice.name == RELEASED["name"]:
        properties["models"] = [{"name": RELEASED["name"], "url": RELEASED["url"], "directory": RELEASED["folder"]}]
    widgets = {**SPEED_UP["widgets"], "adapter_name": choice.name}
    new = [
        edits.add(graph, node_id, SPEED_UP["type"], position, SPEED_UP["size"], widgets, properties),
        edits.connect(graph, slot.source, node_id, "model", slot.via),
    ]
    for candidate in group:
        sampler = candidate.sampler
        assert sampler.model_node is not None and sampler.model_input is not None
        link = edits.connect(graph, Source(node_id, 0), sampler.model_node.id, sampler.model_input.name)
        if link not in new:
            new.append(link)
    return new


def _summary(ready: list[Candidate], steps: int) -> str:
    if len(ready) == 1:
        return f"{ready[0].sampler.node.label} now needs {steps} steps and no CFG pass"
    return f"{len(ready)} samplers now need {steps} steps and no CFG pass"


def _notes(ready: list[Candidate]) -> list[str]:
    return [candidate.choice.note for candidate in ready if candidate.choice]


def _described(ready: list[Candidate], changes: dict[Setting, Change]) -> list[str]:
    """`KSampler (#3): steps 25 -> 4, cfg 7 -> 1` for each sampler."""
    lines = []
    for candidate in ready:
        parts = [
            f"{setting.widget} {_shown(changes[setting].old)} -> {_shown(changes[setting].new)}"
            for setting in candidate.sampler.settings
            if setting in changes
        ]
        if parts:
            lines.append(f"{candidate.sampler.node.label}: {', '.join(parts)}.")
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)[:40] if isinstance(value, (int, str)) else "?"
