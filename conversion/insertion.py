"""Where on the MODEL lines SUNSpeedUp nodes go in, and the edits that put them there."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from . import edits
from .candidate import Candidate
from .changes import Change
from .edits import Edit
from .graph import Box, Consumer, Graph, Node, Source
from .placement import free_position
from .record import RECORD, make_record
from .rules import RELEASED, REROUTES, SPEED_UP
from .samplers import Setting
from .ui_format import TITLE_HEIGHT


@dataclass
class Insertion:
    """One SUNSpeedUp: after `source`, before the inputs of `targets`, for the samplers of `candidates`."""

    graph: Graph
    source: Source
    via: int | None
    adapter: str
    targets: dict[tuple[Node, str], Consumer]
    candidates: list[Candidate]


def by_line(ready: list[Candidate]) -> list[Insertion]:
    """The fewest SUNSpeedUp nodes that serve these samplers and nothing else.

    Each goes right before its sampler. Samplers that one output feeds share one; where reroute nodes part them, it goes
    before these, provided that they lead to these samplers alone. Native reroutes that part them are kept, with a node
    behind each.
    """
    fed = {(c.sampler.graph.id, target.node, target.input.name) for c in ready for target in [_model_target(c)]}
    ways = {id(c): _way_up(c, fed) for c in ready}
    passing: dict[tuple[str | None, Source], set[Source]] = defaultdict(set)
    for candidate in ready:
        direct = _source(ways[id(candidate)][0])
        for target in ways[id(candidate)]:
            passing[candidate.sampler.graph.id, _source(target)].add(direct)
    insertions: dict[tuple[Any, ...], Insertion] = {}
    for candidate in ready:
        graph, way = candidate.sampler.graph, ways[id(candidate)]
        target = next((t for t in way if len(passing[graph.id, _source(t)]) > 1), way[0])
        source, via = _source(target), target.input.via
        assert candidate.choice is not None and candidate.choice.name is not None
        key = (graph.id, source, via, candidate.choice.name)
        insertion = insertions.setdefault(key, Insertion(graph, source, via, candidate.choice.name, {}, []))
        insertion.candidates.append(candidate)
        insertion.targets[target.node, target.input.name] = target
    return list(insertions.values())


def _model_target(candidate: Candidate) -> Consumer:
    sampler = candidate.sampler
    assert sampler.model_node is not None and sampler.model_input is not None
    return Consumer(sampler.model_node, sampler.model_input)


def _source(target: Consumer) -> Source:
    assert target.input.source is not None
    return target.input.source


def _way_up(candidate: Candidate, fed: set[tuple[Any, ...]]) -> list[Consumer]:
    """The inputs before which SUN can go: the sampler's own, and those of the reroute nodes above it that lead to
    nothing but samplers that are sped up."""
    graph, target = candidate.sampler.graph, _model_target(candidate)
    way = [target]
    while True:
        node = graph.nodes.get(_source(target).node)
        if node is None or node.type not in REROUTES or any(node is step.node for step in way):
            return way
        onward = graph.final_consumers(Source(node.id, 0))
        slot = next((slot for slot in node.inputs.values() if slot.source), None)
        if slot is None or any((graph.id, end.node, end.input.name) not in fed for end in onward):
            return way
        target = Consumer(node, slot)
        way.append(target)


def insert(
    node_id: int, insertion: Insertion, changes: dict[Setting, Change], taken: dict[str | None, list[Box]]
) -> list[Edit]:
    """The edits of one insertion. The link to the new node keeps the native reroutes that there were.

    `taken` are the boxes of nodes added so far, by graph; the new one is added.
    """
    graph = insertion.graph
    beside = min((target.node for target in insertion.targets.values()), key=lambda node: (node.box[0], node.box[1]))
    position = free_position(graph, beside, SPEED_UP["size"], taken.setdefault(graph.id, []))
    width, height = SPEED_UP["size"]
    taken[graph.id].append((position[0], position[1] - TITLE_HEIGHT, position[0] + width, position[1] + height))

    settings = [setting for candidate in insertion.candidates for setting in candidate.sampler.settings]
    record = make_record(node_id, [changes[setting] for setting in settings if setting in changes])
    properties: dict[str, Any] = {RECORD: record}
    if insertion.adapter == RELEASED["name"]:
        properties["models"] = [{"name": RELEASED["name"], "url": RELEASED["url"], "directory": RELEASED["folder"]}]
    widgets = {**SPEED_UP["widgets"], "adapter_name": insertion.adapter}
    return [
        edits.add(graph, node_id, SPEED_UP["type"], position, SPEED_UP["size"], widgets, properties),
        edits.connect(graph, insertion.source, node_id, "model", insertion.via),
        *(
            edits.connect(graph, Source(node_id, 0), target.node.id, target.input.name)
            for target in insertion.targets.values()
        ),
    ]
