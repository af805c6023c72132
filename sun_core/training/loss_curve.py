"""The loss curve of a run as a picture."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, MARGIN = 800, 480, 56
EACH, SMOOTH, AXIS = "#c5d3ec", "#1f4e9c", "#444444"


def loss_curve(losses: Sequence[float]) -> Image.Image:
    """Draw each step's loss and its running mean over a fiftieth of the run, on a logarithmic scale."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(13)
    left, right, top, bottom = MARGIN, WIDTH - 16, 28, HEIGHT - MARGIN
    draw.line([(left, top), (left, bottom), (right, bottom)], fill=AXIS)
    draw.text((left, 8), "loss", fill=AXIS, font=font)
    draw.text((right, HEIGHT - 22), f"{len(losses)} steps", fill=AXIS, font=font, anchor="ra")
    if not losses:
        return image
    logs = [math.log10(max(loss, 1e-12)) for loss in losses]
    low, high = min(logs), max(logs)
    if high - low < 0.1:
        low, high = low - 0.05, high + 0.05

    def point(index: int, value: float) -> tuple[float, float]:
        x = left + (right - left) * index / max(1, len(logs) - 1)
        return x, bottom - (bottom - top) * (value - low) / (high - low)

    for share in (0, 0.25, 0.5, 0.75, 1):
        value = low + share * (high - low)
        _, y = point(0, value)
        draw.line([(left - 4, y), (left, y)], fill=AXIS)
        draw.text((left - 7, y), f"{10**value:.2g}", fill=AXIS, font=font, anchor="rm")
    step = max(1, len(logs) // 2000)
    draw.line([point(i, logs[i]) for i in range(0, len(logs), step)], fill=EACH)
    draw.line([point(i, value) for i, value in enumerate(running_mean(logs)) if i % step == 0], fill=SMOOTH, width=2)
    return image


def running_mean(values: Sequence[float]) -> list[float]:
    """Average the last fiftieth of all values, at least one, at each place."""
    window = max(1, len(values) // 50)
    means, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - window] if i >= window else 0.0)
        means.append(total / min(i + 1, window))
    return means
