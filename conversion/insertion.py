"""Where on the MODEL lines SUNSpeedUp nodes go in, and the edits that put them there."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .candidate import Candidate
from .changes import Change
from .edits import Edit, connect_input
from .graph import Box, Consumer, Graph, Node, Source
from .placement import free_position
from .record import RECORD, make_record
from .rules import RELEASED, REROUTES, SPEED_UP
from .samplers import Setting
from .ui_format import TITLE_HEIGHT

Spot = tuple[str | None, Source, int | None]
"""Where a SUNSpeedUp can go: a graph, an output in it, and the last native reroute of the links from there."""


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
    behind each, unless such a reroute node is above them all.
    """
    shared = _shared_targets(ready)
    insertions: dict[tuple[Any, ...], Insertion] = {}
    for candidate in ready:
        own = _model_target(candidate)
        target = shared.get(_spot(own)) or own
        assert candidate.choice is not None and candidate.choice.name is not None
        source, graph = _source(target), candidate.sampler.graph
        key = (_spot(target), candidate.choice.name)
        made = Insertion(graph, source, target.input.via, candidate.choice.name, {}, [])
        insertion = insertions.setdefault(key, made)
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


def _spot(target: Consumer) -> Spot:
    return target.node.graph.id, _source(target), target.input.via


def _shared_targets(ready: list[Candidate]) -> dict[Spot, Consumer]:
    """By spot, the reroute input to go before where several ways up come together: the highest at which some do.

    Above it they are one, and all that come together further down come together there too.
    """
    above, order = _ways_up(ready)
    direct = {_spot(_model_target(candidate)) for candidate in ready}
    parting = Counter(direct)
    parting.update(_spot(target) for target in above.values() if target is not None)
    shared: dict[Spot, Consumer] = {}
    for spot in order:
        target = above[spot]
        if target is None:
            continue
        further_up = shared.get(_spot(target))
        if further_up is not None or parting[_spot(target)] > 1:
            shared[spot] = further_up or target
    return shared


def _ways_up(ready: list[Candidate]) -> tuple[dict[Spot, Consumer | None], list[Spot]]:
    """Each spot where SUN can go, with the reroute input one further up where it can go as well; and the spots in an
    order from above."""
    mixed = _mixed_reroutes(ready)
    above: dict[Spot, Consumer | None] = {}
    order: list[Spot] = []
    for candidate in ready:
        target: Consumer | None = _model_target(candidate)
        way: list[Spot] = []
        while target is not None and _spot(target) not in above:
            spot = _spot(target)
            reroute = candidate.sampler.graph.nodes.get(_source(target).node)
            is_passable = reroute is not None and reroute.type in REROUTES and reroute not in mixed
            target = next(_linked(reroute), None) if reroute is not None and is_passable else None
            above[spot] = target
            way.append(spot)
        order += reversed(way)
    return above, order


def _mixed_reroutes(ready: list[Candidate]) -> set[Node]:
    """The reroute nodes that lead to anything but samplers that are sped up."""
    fed = {(target.node, target.input.name) for target in map(_model_target, ready)}
    mixed: set[Node] = set()
    for graph in {candidate.sampler.graph for candidate in ready}:
        others = [node for node in graph.nodes.values() if node.type not in REROUTES]
        ends = [end for node in others for end in _linked(node) if (node, end.input.name) not in fed]
        waiting = [*map(_source, ends), *(source for source in graph.outputs if source is not None)]
        while waiting:
            node = graph.nodes.get(waiting.pop().node)
            if node is not None and node.type in REROUTES and node not in mixed:
                mixed.add(node)
                waiting += map(_source, _linked(node))
    return mixed


def _linked(node: Node) -> Iterator[Consumer]:
    return (Consumer(node, slot) for slot in node.inputs.values() if slot.source is not None)


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
        {
            "op": "add",
            "graph": graph.id,
            "id": node_id,
            "type": SPEED_UP["type"],
            "pos": position,
            "size": (width, height),
            "widgets": widgets,
            "properties": properties,
        },
        connect_input(graph, insertion.source, node_id, "model", insertion.via),
        *(
            connect_input(graph, Source(node_id, 0), target.node.id, target.input.name)
            for target in insertion.targets.values()
        ),
    ]
