"""Where a new node goes: beside the node that it feeds, and over no other."""

from collections.abc import Iterable
from math import ceil, floor

from .graph import Box, Graph, Node
from .ui_format import TITLE_HEIGHT

MARGIN = 20.0
STEP = 40.0
COLUMNS = range(-20, 10)
ROWS = range(-20, 21)
"""The places that are tried, in steps around the best one, before any place is taken."""


def free_position(graph: Graph, beside: Node, size: list[float], taken: Iterable[Box] = ()) -> tuple[float, float]:
    """The free place nearest to the left of `beside`, top edges in line; `taken` are the boxes of other new nodes.

    Where all around is full, the place below everything.
    """
    width, height = size[0], TITLE_HEIGHT + size[1]
    left, top = beside.box[0] - width - 2 * MARGIN, beside.box[1]
    first, last = left + COLUMNS[0] * STEP - MARGIN, left + COLUMNS[-1] * STEP + width + MARGIN
    upper, lower = top + ROWS[0] * STEP - MARGIN, top + ROWS[-1] * STEP + height + MARGIN
    near = {box for box in taken if box[0] < last and first < box[2] and box[1] < lower and upper < box[3]}
    full = _full_places(graph.boxes_near((first, upper, last, lower)) | near, left, top, width, height)
    for column, row in _NEAREST_FIRST:
        if not full[row] >> (column - COLUMNS[0]) & 1:
            return left + column * STEP, top + row * STEP + TITLE_HEIGHT
    return left, max([graph.bottom, *(box[3] for box in taken)]) + MARGIN + TITLE_HEIGHT


def _full_places(boxes: Iterable[Box], left: float, top: float, width: float, height: float) -> dict[int, int]:
    """For each row of places a bit for each column: 1 where one of the boxes would be too near.

    A box is marked once on all places that it fills; to hold every place against every box is slow in a large graph.
    """
    full = dict.fromkeys(ROWS, 0)
    for box in boxes:
        first = max(floor((box[0] - MARGIN - left - width) / STEP) + 1, COLUMNS.start)
        end = min(ceil((box[2] + MARGIN - left) / STEP), COLUMNS.stop)
        if first < end:
            bits = (1 << end - COLUMNS.start) - (1 << first - COLUMNS.start)
            upper = max(floor((box[1] - MARGIN - top - height) / STEP) + 1, ROWS.start)
            lower = min(ceil((box[3] + MARGIN - top) / STEP), ROWS.stop)
            for row in range(upper, lower):
                full[row] |= bits
    return full


def _distance(place: tuple[int, int]) -> float:
    """Upwards, downwards and left are alike; right, over the line's own nodes, is worse."""
    column, row = place
    return abs(row) + (abs(column) if column <= 0 else 3 * column)


_NEAREST_FIRST = sorted(((column, row) for column in COLUMNS for row in ROWS), key=_distance)
