"""Samplers that can only be changed together: those that share a guider or a schedule, or hand on unfinished noise."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from .graph import MUTED, SUBGRAPH_INPUT, Graph, Node, Source, Workflow
from .model_line import instance_input
from .rules import REROUTES, SAMPLERS, is_latent_input
from .samplers import Sampler


def with_partners(chosen: Iterable[Sampler], everything: list[Sampler], workflow: Workflow) -> list[Sampler]:
    """The chosen samplers and those that cannot keep their settings when the chosen ones change."""
    groups = partner_groups(everything, workflow)
    numbers = {groups[sampler] for sampler in chosen}
    return [sampler for sampler in everything if groups[sampler] in numbers]


def grouped(samplers: list[Sampler], workflow: Workflow) -> list[list[Sampler]]:
    """The samplers, partners together."""
    together: dict[Sampler, list[Sampler]] = defaultdict(list)
    for sampler, group in partner_groups(samplers, workflow).items():
        together[group].append(sampler)
    return list(together.values())


def partner_groups(samplers: list[Sampler], workflow: Workflow) -> dict[Sampler, Sampler]:
    """For each sampler the one that stands for its group: union-find over shared parts and handed-on latents."""
    parent = {sampler: sampler for sampler in samplers}

    def root(sampler: Sampler) -> Sampler:
        while parent[sampler] is not sampler:
            parent[sampler] = parent[parent[sampler]]
            sampler = parent[sampler]
        return sampler

    by_member: dict[Node, Sampler] = {}
    by_node = {sampler.node: sampler for sampler in samplers}
    for sampler in samplers:
        for member in sampler.members:
            parent[root(sampler)] = root(by_member.setdefault(member, sampler))
        for earlier in _handing_on_noise(sampler, workflow):
            if earlier in by_node:
                parent[root(sampler)] = root(by_node[earlier])
    return {sampler: root(sampler) for sampler in samplers}


def _handing_on_noise(sampler: Sampler, workflow: Workflow) -> Iterator[Node]:
    """Every KSamplerAdvanced whose unfinished latent this one goes on with, also past what only changes a latent."""
    slot = sampler.node.inputs.get("latent_image")
    waiting = [(sampler.graph, slot.source)] if slot and slot.source else []
    seen: set[tuple[str | None, Source]] = set()
    while waiting:
        graph, source = waiting.pop()
        if (graph.id, source) in seen:
            continue
        seen.add((graph.id, source))
        node = graph.nodes.get(source.node)
        if node is not None and node.type in SAMPLERS and node.is_active:
            if node.widgets.get("return_with_leftover_noise") == "enable":
                yield node
        else:
            waiting.extend(_latents_above(graph, source, workflow))


def _latents_above(graph: Graph, source: Source, workflow: Workflow) -> Iterator[tuple[Graph, Source]]:
    """What feeds the node behind `source` with latents, into subgraphs and out of them."""
    node = graph.nodes.get(source.node)
    if source.node == SUBGRAPH_INPUT:
        for instance in graph.hosts:
            outer = instance_input(instance, graph, source.slot)
            if outer is not None and outer.source is not None:
                yield instance.graph, outer.source
    elif node is None or node.mode == MUTED:
        return
    elif (inner := workflow.inner(node)) is not None and node.is_active:
        feeding = inner.outputs[source.slot] if source.slot < len(inner.outputs) else None
        yield from [(inner, feeding)] if feeding is not None else []
    else:
        for slot in node.inputs.values():
            if slot.source is not None and (node.type in REROUTES or is_latent_input(slot.name, slot.type)):
                yield graph, slot.source
