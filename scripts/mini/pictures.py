"""Sheets of pictures to look at: the community styles in 25 steps and, with one adapter, in 4."""

from collections.abc import Mapping

import numpy as np
from evaluate import TEACHER_25, WAYS, Family
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

TILE, GAP, LABEL, HEADER = 192, 8, 132, 40
PAPER, INK = "#faf9f6", "#22252b"


def style_sheet(families: Mapping[str, tuple[Family, object]], texts: list[str], seed: int = 11) -> Image.Image:
    """A row for each style: pairs of teacher and SUN from the same noise, one pair for each prompt.

    Args:
        families: by title, the family and its MODEL with SUN.
    """
    pair = 2 * TILE + GAP
    width = LABEL + len(texts) * (pair + 3 * GAP)
    sheet = Image.new("RGB", (width, HEADER + len(families) * (TILE + 2 * GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(17)
    sun = next(way for way in WAYS if way.sun)
    for row, (title, (family, with_sun)) in enumerate(families.items()):
        top = HEADER + row * (TILE + 2 * GAP)
        draw.text((GAP, top + TILE // 2), title, INK, font, anchor="lm")
        columns = [
            family.draw(model, way, texts, [""] * len(texts), seed)
            for model, way in ((family.model, TEACHER_25), (with_sun, sun))
        ]
        for i in range(len(texts)):
            for side, pictures in enumerate(columns):
                left = LABEL + i * (pair + 3 * GAP) + side * (TILE + GAP)
                sheet.paste(enlarged(pictures[i]), (left, top))
                if row == 0:
                    label = "4 steps, SUN" if side else "25 steps, CFG"
                    draw.text((left + TILE // 2, HEADER // 2), label, INK, font, anchor="mm")
    return sheet


def enlarged(picture: Tensor) -> Image.Image:
    """(3, h, w) in 0..1 as an image of TILE pixels."""
    array = (picture.clamp(0, 1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return Image.fromarray(array).resize((TILE, TILE), Image.Resampling.LANCZOS)
