"""Where a new node goes: beside the node that it feeds, and over no other."""

from math import ceil, floor

from .graph import Box, Node
from .ui_format import TITLE_HEIGHT

MARGIN = 20.0
STEP = 40.0
COLUMNS = range(-20, 10)
ROWS = range(-20, 21)
"""The places that are tried, in steps around the best one, before any place is taken."""


def free_position(boxes: set[Box], beside: Node, size: list[float]) -> tuple[float, float]:
    """Find the free place nearest to the left of `beside`, with top edges in line.

    `boxes` are where something stands on the canvas. If every place around is full, it is the one below them all.
    """
    width, height = size[0], TITLE_HEIGHT + size[1]
    left, top = beside.box[0] - width - 2 * MARGIN, beside.box[1]
    first, last = left + COLUMNS.start * STEP - MARGIN, left + COLUMNS.stop * STEP + width + MARGIN
    upper, lower = top + ROWS.start * STEP - MARGIN, top + ROWS.stop * STEP + height + MARGIN
    full: set[tuple[int, int]] = set()
    for box in boxes:
        if first < box[2] and box[0] < last and upper < box[3] and box[1] < lower:
            columns = _steps(box[0] - left - width, box[2] - left, COLUMNS)
            rows = _steps(box[1] - top - height, box[3] - top, ROWS)
            full.update((column, row) for column in columns for row in rows)
    place = next((place for place in _NEAREST_FIRST if place not in full), None)
    if place is None:
        return left, max(box[3] for box in boxes) + MARGIN + TITLE_HEIGHT
    return left + place[0] * STEP, top + place[1] * STEP + TITLE_HEIGHT


def _steps(start: float, end: float, steps: range) -> range:
    """Those of `steps` at which a new node is nearer than MARGIN to a box."""
    return range(max(floor((start - MARGIN) / STEP) + 1, steps.start), min(ceil((end + MARGIN) / STEP), steps.stop))


def _distance(place: tuple[int, int]) -> float:
    """Upwards, downwards and left are alike; right, over the line's own nodes, is worse."""
    column, row = place
    return abs(row) + (abs(column) if column <= 0 else 3 * column)


_NEAREST_FIRST = sorted(((column, row) for column in COLUMNS for row in ROWS), key=_distance)
