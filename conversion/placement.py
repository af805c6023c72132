"""Where a new node goes: beside the node that it feeds, and over no other."""

from collections.abc import Iterable

from .graph import Box, Graph, Node
from .ui_format import TITLE_HEIGHT

MARGIN = 20.0
STEP = 40.0
REACH = 40
"""How many steps around the best place are tried before any place is taken."""


def free_position(graph: Graph, beside: Node, size: list[float], taken: Iterable[Box] = ()) -> tuple[float, float]:
    """The free place nearest to the left of `beside`, top edges in line; `taken` are the boxes of other new nodes.

    Where all around is full, the place below everything.
    """
    width, height = size
    left, top = beside.box[0] - width - 2 * MARGIN, beside.box[1]
    reach = REACH * STEP + width + height + MARGIN
    boxes = [*(node.box for node in graph.nodes.values()), *graph.fixtures, *taken]
    near = [box for box in boxes if abs(box[0] - left) < reach + (box[2] - box[0]) and box[3] > top - reach]
    near = [box for box in near if box[1] < top + reach + height]
    for x, y in _OFFSETS:
        place = (left + x, top + y, left + x + width, top + y + TITLE_HEIGHT + height)
        if not any(_overlap(place, box) for box in near):
            return place[0], place[1] + TITLE_HEIGHT
    return left, max(box[3] for box in boxes) + MARGIN + TITLE_HEIGHT


def _distance(offset: tuple[float, float]) -> float:
    """Upwards, downwards and left are alike; right, over the line's own nodes, is worse."""
    x, y = offset
    return abs(y) + (abs(x) if x <= 0 else 3 * x)


_OFFSETS = sorted(
    ((x * STEP, y * STEP) for x in range(-REACH // 2, REACH // 4) for y in range(-REACH // 2, REACH // 2 + 1)),
    key=_distance,
)


def _overlap(one: Box, other: Box) -> bool:
    return (
        one[0] < other[2] + MARGIN
        and other[0] < one[2] + MARGIN
        and one[1] < other[3] + MARGIN
        and other[1] < one[3] + MARGIN
    )
