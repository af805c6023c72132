"""Samplers that can only be changed together: those that share a guider or a schedule, or hand on unfinished noise."""

from collections.abc import Iterable

from .graph import Node
from .samplers import Sampler


def with_partners(chosen: Iterable[Sampler], everything: list[Sampler]) -> list[Sampler]:
    """The chosen samplers and those that cannot keep their settings when the chosen ones change."""
    groups = partner_groups(everything)
    numbers = {groups[sampler] for sampler in chosen}
    return [sampler for sampler in everything if groups[sampler] in numbers]


def partner_groups(samplers: list[Sampler]) -> dict[Sampler, Sampler]:
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
        earlier = _hands_on_noise(sampler)
        if earlier in by_node:
            parent[root(sampler)] = root(by_node[earlier])
    return {sampler: root(sampler) for sampler in samplers}


def _hands_on_noise(sampler: Sampler) -> Node | None:
    """The KSamplerAdvanced whose unfinished latent this one goes on with."""
    slot = sampler.node.inputs.get("latent_image")
    source = sampler.graph.through_reroutes(slot.source if slot else None)
    node = sampler.graph.nodes.get(source.node) if source else None
    if node is None or node.type != "KSamplerAdvanced" or not node.is_active:
        return None
    return node if node.widgets.get("return_with_leftover_noise") == "enable" else None
