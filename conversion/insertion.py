"""Find where new nodes go, on the MODEL lines and on the canvas, and make the edits that put them there."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil, floor
from typing import Any

from .changes import Change
from .edits import Edit, connect_input
from .graph import Box, Consumer, Graph, Node, Source
from .models import Candidate
from .record import RECORD, make_record
from .rules import INSERTED, RELEASED, REROUTES
from .samplers import Setting
from .ui_format import TITLE_HEIGHT

Spot = tuple[str | None, Source, int | None]
"""Where a new node can go: a graph, an output in it, and the last native reroute of the links from there."""


@dataclass
class Insertion:
    """One new node: after `source`, before the inputs of `targets`, for the samplers of `candidates`."""

    graph: Graph
    source: Source
    via: int | None
    adapter: str | None
    """The one that it names, if it is a SUNSpeedUp."""
    targets: dict[tuple[Node, str], Consumer]
    candidates: list[Candidate]


def by_line(ready: list[Candidate]) -> list[Insertion]:
    """Return the fewest new nodes that serve these samplers and nothing else.

    A node goes right before its sampler. Samplers that one output feeds share a node. If reroute nodes part them, it
    goes before the highest of these that leads to such samplers alone. If only native reroutes part them, each of these
    keeps a node of its own.
    """
    ways = _Ways(ready)
    insertions: dict[tuple[Spot, str | None], Insertion] = {}
    for candidate in ready:
        target, adapter = ways.shared(_model_target(candidate)), candidate.choice.name if candidate.choice else None
        made = Insertion(candidate.sampler.graph, _source(target), target.input.via, adapter, {}, [])
        insertion = insertions.setdefault((_spot(target), adapter), made)
        insertion.candidates.append(candidate)
        insertion.targets[target.node, target.input.name] = target
    return list(insertions.values())


class _Ways:
    """The ways from samplers up through reroutes. They join further up, so that each place is looked at once."""

    def __init__(self, ready: list[Candidate]) -> None:
        self._mixed = _mixed_reroutes(ready)
        self._above: dict[Spot, Consumer | None] = {}
        """The input of the reroute at each place, if SUN may go before that one too."""
        self._below: dict[Spot, set[Spot | None]] = defaultdict(set)
        """The places right below each, and None for a sampler."""
        self._shared: dict[Spot, Consumer | None] = {}
        for target in map(_model_target, ready):
            self._below[_spot(target)].add(None)
            self._climb(target)

    def _climb(self, target: Consumer) -> None:
        spot = _spot(target)
        while spot not in self._above:
            reroute = target.node.graph.nodes.get(spot[1].node)
            is_passable = reroute is not None and reroute.type in REROUTES and reroute not in self._mixed
            upper = next(_linked(reroute), None) if reroute is not None and is_passable else None
            self._above[spot] = upper
            if upper is None:
                return
            self._below[_spot(upper)].add(spot)
            spot = _spot(upper)

    def shared(self, target: Consumer) -> Consumer:
        """Return the highest input on the way up at which another way joins, or `target` itself."""
        steps: dict[Spot, Consumer] = {}
        spot = _spot(target)
        while spot not in self._shared and spot not in steps and (upper := self._above[spot]) is not None:
            steps[spot] = upper
            spot = _spot(upper)
        found = self._shared.get(spot)
        for lower, upper in reversed(steps.items()):
            if found is None and len(self._below[_spot(upper)]) > 1:
                found = upper
            self._shared[lower] = found
        return found or target


def _model_target(candidate: Candidate) -> Consumer:
    sampler = candidate.sampler
    assert sampler.model_node is not None and sampler.model_input is not None
    return Consumer(sampler.model_node, sampler.model_input)


def _source(target: Consumer) -> Source:
    assert target.input.source is not None
    return target.input.source


def _spot(target: Consumer) -> Spot:
    return target.node.graph.id, _source(target), target.input.via


def _mixed_reroutes(ready: list[Candidate]) -> set[Node]:
    """Return the reroute nodes that lead to anything other than samplers that are sped up."""
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


class Canvas:
    """Where something stands in a graph, found by its position."""

    CELL = 200.0
    """The size of the squares by which boxes are found, about that of a node."""
    MOST_CELLS = 400
    """A box that lies in more squares than this is kept apart."""

    def __init__(self, boxes: Iterable[Box]) -> None:
        self.bottom = float("-inf")
        self.large: list[Box] = []
        self._cells: dict[tuple[int, int], list[Box]] = defaultdict(list)
        for box in boxes:
            self.add(box)

    def add(self, box: Box) -> None:
        """Add where something stands."""
        self.bottom = max(self.bottom, box[3])
        columns, rows = self._squares(box)
        if len(columns) * len(rows) > self.MOST_CELLS:
            self.large.append(box)
            return
        for cell in product(columns, rows):
            self._cells[cell].append(box)

    def in_the_way(self, area: Box) -> Box | None:
        """Return a box that overlaps an area, unless it is a large one."""
        left, top, right, bottom = area
        for cell in product(*self._squares(area)):
            for box in self._cells.get(cell, ()):
                if left < box[2] and box[0] < right and top < box[3] and box[1] < bottom:
                    return box
        return None

    def _squares(self, box: Box) -> tuple[range, range]:
        left, top, right, bottom = (floor(edge / self.CELL) for edge in box)
        return range(left, right + 1), range(top, bottom + 1)


def insert(
    node_type: str,
    node_id: int,
    insertion: Insertion,
    former: dict[Setting, Change],
    boxes: dict[Graph, Canvas],
) -> list[Edit]:
    """Return the edits that put in one node. The link to the new node keeps the native reroutes of the old link.

    `former` are the changes with what Restore has to bring back; the node gets a record of those of its samplers.
    `boxes` are the canvases of the graphs that already have new nodes; this one's is added, and the new node on it.
    """
    graph = insertion.graph
    beside = min((target.node for target in insertion.targets.values()), key=lambda node: (node.box[0], node.box[1]))
    if graph not in boxes:
        boxes[graph] = Canvas(graph.boxes())
    new = INSERTED[node_type]
    position = free_position(boxes[graph], beside, new.size)
    width, height = new.size
    boxes[graph].add((position[0], position[1] - TITLE_HEIGHT, position[0] + width, position[1] + height))

    settings = [setting for candidate in insertion.candidates for setting in candidate.sampler.settings]
    made = [former[setting] for setting in settings if setting in former]
    record = make_record(node_id, made, insertion.targets.values())
    properties: dict[str, Any] = {RECORD: record}
    if insertion.adapter == RELEASED["name"]:
        properties["models"] = [{"name": RELEASED["name"], "url": RELEASED["url"], "directory": RELEASED["folder"]}]
    adapter = {} if insertion.adapter is None else {"adapter_name": insertion.adapter}
    return [
        {
            "op": "add",
            "graph": graph.id,
            "id": node_id,
            "type": node_type,
            "pos": position,
            "size": (width, height),
            "widgets": {**adapter, **new.widgets},
            "properties": properties,
        },
        connect_input(graph, insertion.source, node_id, "model", insertion.via),
        *(
            connect_input(graph, Source(node_id, 0), target.node.id, target.input.name)
            for target in insertion.targets.values()
        ),
    ]


MARGIN = 20.0
STEP = 40.0
COLUMNS = range(-20, 10)
ROWS = range(-20, 21)
"""The places to try, in steps around the best one."""


def free_position(canvas: Canvas, beside: Node, size: tuple[float, float]) -> tuple[float, float]:
    """Find the free place nearest to the left of `beside`, with top edges in line.

    If every place around is full, it is the one below everything.
    """
    width, height = size[0], TITLE_HEIGHT + size[1]
    left, top = beside.box[0] - width - 2 * MARGIN, beside.box[1]

    def covered(box: Box) -> Iterator[tuple[int, int]]:
        columns = _steps(box[0] - left - width, box[2] - left, COLUMNS)
        return product(columns, _steps(box[1] - top - height, box[3] - top, ROWS))

    full = {place for box in canvas.large for place in covered(box)}
    for place in _NEAREST_FIRST:
        if place in full:
            continue
        x, y = left + place[0] * STEP, top + place[1] * STEP
        box = canvas.in_the_way((x - MARGIN, y - MARGIN, x + width + MARGIN, y + height + MARGIN))
        if box is None:
            return x, y + TITLE_HEIGHT
        full.update(covered(box))
    return left, canvas.bottom + MARGIN + TITLE_HEIGHT


def _steps(start: float, end: float, steps: range) -> range:
    """Return those of `steps` at which a new node would be nearer than MARGIN to a box."""
    return range(max(floor((start - MARGIN) / STEP) + 1, steps.start), min(ceil((end + MARGIN) / STEP), steps.stop))


def _distance(place: tuple[int, int]) -> float:
    """Rate a place. Up, down and left are alike; right is worse, because the line's own nodes stand there."""
    column, row = place
    return abs(row) + (abs(column) if column <= 0 else 3 * column)


_NEAREST_FIRST = sorted(((column, row) for column in COLUMNS for row in ROWS), key=_distance)
