"""What the samplers behind a SUN node show: that their CFG is ignored, and which negative prompt is in use."""

from typing import Any

from .findings import FROM_SAMPLER
from .graph import SUBGRAPH_INPUT, Node, Source, on_one_line
from .left_behind import is_off
from .model_line import instance_input
from .rules import NEGATIVE, PROMPTS
from .samplers import Sampler
from .surroundings import Surroundings, once
from .words import say

LONGEST = 24
"""Characters of a negative prompt in a note."""


def served(sun: Node, around: Surroundings) -> list[dict[str, Any]]:
    """Return the samplers behind a SUN node that is on: {"graph", "node", "label", "note"}.

    The node is the one with the sampler's negative prompt: the sampler itself, or its guider.
    """
    if is_off(sun) or (sun.type == NEGATIVE and around.adapter_beside(sun)):
        return []
    return [
        {
            "graph": node.graph.id,
            "node": node.id,
            "label": sampler.node.label,
            "note": _note(sampler, node, sun, around),
        }
        for sampler in around.works_for(sun)
        if sampler.node.problem is None and (node := sampler.model_node or sampler.node).type != "SUNSampler"
    ]


def _note(sampler: Sampler, node: Node, sun: Node, around: Surroundings) -> str:
    is_automatic = sun.widgets.get("cfg" if sun.type == NEGATIVE else "settings") != FROM_SAMPLER
    negative = _prompt(sun if sun.feed("negative") is not None else node, around)
    parts = []
    if is_automatic and sampler.all_of("cfg"):
        parts.append(say("CFG ignored"))
    if negative:
        parts.append(say("negative: {prompt}", prompt=negative))
    return " · ".join(parts)


@once
def _prompt(node: Node, around: Surroundings) -> str:
    """Return the beginning of a node's negative prompt, or the title of the node that makes it.

    Goes on past reroutes, out of subgraphs, and through nodes such as Apply ControlNet that hand a negative on.
    """
    seen: set[tuple[str | None, Source]] = set()
    graph, source = node.graph, node.feed("negative")
    while source is not None and (graph.id, source) not in seen:
        seen.add((graph.id, source))
        source = graph.through_reroutes(source)
        if source is None:
            return ""
        if source.node == SUBGRAPH_INPUT:
            host = next(iter(graph.hosts), None)
            outer = instance_input(host, graph, source.slot) if host is not None else None
            if host is None or outer is None:
                return ""
            graph, source = host.graph, outer.source
            continue
        found = graph.nodes.get(source.node)
        if found is None:
            return ""
        if "negative" not in found.inputs:
            return _said(found)
        source = found.feed("negative")
    return ""


def _said(node: Node) -> str:
    text = node.widgets.get("text")
    if node.type not in PROMPTS or node.feed("text") is not None or not isinstance(text, str):
        return _short(node.title or node.type)
    return f"“{_short(text)}”" if text.strip() else say("(empty)")


def _short(text: str) -> str:
    line = on_one_line(" ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1].rstrip()}…"
