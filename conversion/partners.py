"""Samplers that can only be changed together: those that share a schedule, or hand on a half-denoised latent."""

from .candidate import Candidate
from .graph import Node
from .samplers import Sampler


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


def keep_partners_alike(chosen: list[Candidate]) -> None:
    """Where one of a group stays as it is, so do the others."""
    groups = partner_groups(chosen)
    refused = {groups[id(c)]: c for c in chosen if c.refusal is not None}
    for candidate in chosen:
        partner = refused.get(groups[id(candidate)])
        if partner is not None and candidate.refusal is None:
            candidate.refusal = f"it shares its schedule with {partner.sampler.node.label}, which has to stay as it is"
