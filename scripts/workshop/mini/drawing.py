"""Scenes drawn by a program, with Pillow at four times their size, in one of several styles.

`storybook` is what the base model learns; the community fine-tunes learn others. Words mean the same in every style.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from .world import COLOURS, SIZE, Colour, Scene

SUPERSAMPLE = 4


@dataclass(frozen=True)
class Style:
    """How a scene is drawn; lengths in pixels of the finished picture."""

    outline: float = 1.6
    ink: Colour = (38, 32, 54)
    towards: Colour = (255, 255, 255)  # every colour is mixed with this one ...
    mix: float = 0.0  # ... by this share
    background_mix: float = 0.0  # and the background by this share more
    frame: float = 0.0
    frame_colour: Colour = (250, 246, 236)
    halftone: float = 0.0  # darkness of the printed dots in the sky
    hatch: float = 0.0  # darkness of the pencil strokes over everything


STYLES = {
    "storybook": Style(),
    "pastel": Style(outline=0.0, towards=(255, 248, 238), mix=0.34, background_mix=0.22, frame=5.0),
    "comic": Style(outline=3.4, ink=(8, 8, 12), halftone=0.30, frame=2.5, frame_colour=(8, 8, 12)),
    "pencil": Style(outline=1.9, ink=(92, 74, 64), towards=(238, 222, 190), mix=0.14, background_mix=0.52, hatch=0.22),
}


def free_style(rng: random.Random) -> Style:
    """Draw a style at random: the autoencoder learns on these, so that no style is foreign to it."""
    base = rng.choice(list(STYLES.values()))
    if rng.random() < 0.4:
        return base
    tint = tuple(rng.randrange(256) for _ in range(3))
    return replace(
        base, outline=rng.uniform(0, 3.5), towards=tint, mix=rng.uniform(0, 0.5), background_mix=rng.uniform(0, 0.5)
    )


class Canvas:
    """A picture under construction: places things in the subject's own coordinates (about -30..30, y down)."""

    def __init__(self, style: Style, centre: tuple[float, float], scale: float, flip: bool):
        self.image = Image.new("RGB", (SIZE * SUPERSAMPLE, SIZE * SUPERSAMPLE))
        self.draw = ImageDraw.Draw(self.image)
        self.style, self.centre, self.scale, self.flip = style, centre, scale, flip

    def paint(self, colour: Colour, background: bool = False) -> Colour:
        share = self.style.mix + (self.style.background_mix if background else 0.0)
        return tuple(round(c + (t - c) * share) for c, t in zip(colour, self.style.towards, strict=True))

    def at(self, x: float, y: float) -> tuple[float, float]:
        x = -x if self.flip else x
        return (self.centre[0] + x * self.scale) * SUPERSAMPLE, (self.centre[1] + y * self.scale) * SUPERSAMPLE

    def polygon(self, points: list[tuple[float, float]], colour: Colour) -> None:
        corners = [self.at(x, y) for x, y in points]
        self.draw.polygon(corners, fill=self.paint(colour))
        width = round(self.style.outline * SUPERSAMPLE)
        if width:
            self.draw.line([*corners, corners[0], corners[1]], fill=self.style.ink, width=width, joint="curve")

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, outline: bool = True) -> None:
        (x0, y0), (x1, y1) = self.at(x - rx, y - ry), self.at(x + rx, y + ry)
        box = [min(x0, x1), y0, max(x0, x1), y1]
        width = round(self.style.outline * SUPERSAMPLE) if outline else 0
        self.draw.ellipse(box, fill=self.paint(colour), outline=self.style.ink if width else None, width=width)

    def stroke(self, points: list[tuple[float, float]], width: float) -> None:
        self.draw.line(
            [self.at(x, y) for x, y in points], fill=self.style.ink, width=round(width * SUPERSAMPLE), joint="curve"
        )


def shade(colour: Colour, factor: float) -> Colour:
    return tuple(max(0, min(255, round(c * factor))) for c in colour)


WHITE, BROWN, CREAM, DARK, GLASS = (250, 248, 240), (122, 78, 48), (248, 232, 200), (48, 40, 60), (168, 222, 240)


def draw_house(c: Canvas, colour: Colour) -> None:
    c.polygon([(10, -24), (16, -24), (16, -8), (10, -8)], shade(colour, 0.6))
    c.polygon([(-22, -4), (22, -4), (22, 26), (-22, 26)], colour)
    c.polygon([(-28, -3), (0, -27), (28, -3)], shade(colour, 0.62))
    c.polygon([(-6, 8), (6, 8), (6, 26), (-6, 26)], BROWN)
    c.polygon([(-18, 4), (-10, 4), (-10, 12), (-18, 12)], CREAM)
    c.polygon([(10, 4), (18, 4), (18, 12), (10, 12)], CREAM)


def draw_boat(c: Canvas, colour: Colour) -> None:
    c.polygon([(-1, -30), (2, -30), (2, 14), (-1, 14)], BROWN)
    c.polygon([(4, -28), (27, 9), (4, 9)], colour)
    c.polygon([(-4, -22), (-4, 9), (-22, 9)], shade(colour, 0.8))
    c.polygon([(-29, 13), (30, 13), (20, 27), (-20, 27)], BROWN)


def draw_fish(c: Canvas, colour: Colour) -> None:
    c.polygon([(14, 0), (31, -15), (27, 0), (31, 15)], shade(colour, 0.75))
    c.polygon([(-6, -14), (6, -24), (12, -11)], shade(colour, 0.75))
    c.ellipse(-5, 0, 24, 16, colour)
    c.ellipse(-18, -4, 4.5, 4.5, WHITE)
    c.ellipse(-19, -4, 2, 2, DARK, outline=False)
    c.polygon([(-2, 3), (9, -3), (9, 9)], shade(colour, 0.75))


def draw_rocket(c: Canvas, colour: Colour) -> None:
    c.polygon([(-6, 20), (6, 20), (0, 33)], (255, 190, 60))
    c.polygon([(-9, 4), (-20, 22), (-9, 19)], shade(colour, 0.65))
    c.polygon([(9, 4), (20, 22), (9, 19)], shade(colour, 0.65))
    c.polygon([(0, -33), (6, -25), (10, -12), (10, 20), (-10, 20), (-10, -12), (-6, -25)], colour)
    c.ellipse(0, -7, 5.5, 5.5, GLASS)
    c.polygon([(-10, 13), (10, 13), (10, 20), (-10, 20)], WHITE)


def draw_mushroom(c: Canvas, colour: Colour) -> None:
    c.polygon([(-9, -2), (9, -2), (12, 27), (-12, 27)], CREAM)
    arc = [(30 * math.cos(a), 3 - 27 * math.sin(a)) for a in (math.pi * i / 16 for i in range(17))]
    c.polygon(arc, colour)
    for x, y, r in ((-14, -8, 4.5), (3, -15, 5), (16, -4, 4)):
        c.ellipse(x, y, r, r * 0.9, WHITE, outline=False)


def draw_tree(c: Canvas, colour: Colour) -> None:
    c.polygon([(-5, 16), (5, 16), (5, 29), (-5, 29)], BROWN)
    for top, base, half in ((-6, 18, 25), (-20, 4, 20), (-32, -10, 14)):
        c.polygon([(0, top), (half, base), (-half, base)], shade(colour, 1.0 if base != 4 else 0.86))


def draw_cat(c: Canvas, colour: Colour) -> None:
    c.polygon([(12, 20), (24, 18), (26, 4), (31, 4), (30, 24), (14, 28)], colour)
    c.ellipse(0, 15, 17, 14, colour)
    c.polygon([(-19, -29), (-6, -20), (-18, -9)], colour)
    c.polygon([(19, -29), (6, -20), (18, -9)], colour)
    c.ellipse(0, -9, 19, 15, colour)
    for x in (-8, 8):
        c.ellipse(x, -11, 4, 4.6, WHITE)
        c.ellipse(x, -11, 1.8, 3, DARK, outline=False)
    c.polygon([(-2.5, -4), (2.5, -4), (0, -1)], DARK)
    c.stroke([(-4, 1), (0, -1), (4, 1)], 1.0)
    c.ellipse(0, 19, 9, 8, WHITE, outline=False)


DRAW: dict[str, Callable[[Canvas, Colour], None]] = {
    "house": draw_house, "boat": draw_boat, "fish": draw_fish, "rocket": draw_rocket,
    "mushroom": draw_mushroom, "tree": draw_tree, "cat": draw_cat,
}  # fmt: skip

# sky at the top, sky at the horizon, ground
SKIES: dict[str, tuple[Colour, Colour, Colour]] = {
    "meadow": ((120, 190, 242), (208, 234, 250), (122, 192, 84)),
    "night": ((12, 16, 48), (38, 44, 100), (24, 38, 50)),
    "sunset": ((92, 52, 128), (252, 150, 92), (84, 50, 82)),
    "snow": ((150, 168, 188), (206, 218, 228), (246, 250, 254)),
    "desert": ((102, 186, 196), (252, 234, 180), (226, 178, 104)),
}


def draw_place(c: Canvas, place: str, horizon: float, rng: random.Random) -> None:
    """Draw sky, ground and what belongs to a place; the horizon is in pixels from the top."""
    top, low, ground = (np.array(c.paint(colour, background=True), float) for colour in SKIES[place])
    height = SIZE * SUPERSAMPLE
    ramp = np.clip(np.arange(height)[:, None] / (horizon * SUPERSAMPLE), 0, 1)
    sky = (top + (low - top) * ramp).astype(np.uint8)
    c.image.paste(Image.fromarray(np.repeat(sky[:, None], height, axis=1)))
    if c.style.halftone:
        draw_halftone(c, low, horizon)
    s, pen = SUPERSAMPLE, c.draw

    def dot(x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        pen.ellipse([(x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s], fill=c.paint(colour, background=True))

    side = rng.choice((-1, 1))
    beside = SIZE / 2 + side * rng.uniform(30, 38)
    if place == "night":
        for _ in range(14):
            r = rng.uniform(0.6, 1.3)
            dot(rng.uniform(0, SIZE), rng.uniform(0, horizon - 8), r, r, (255, 250, 214))
        dot(beside, 15, 9, 9, (250, 240, 190))
        dot(beside + 4, 12, 8, 8, SKIES["night"][0])
    elif place == "sunset":
        dot(beside, horizon - 4, 15, 15, (255, 226, 130))
    elif place == "desert":
        dot(beside, 14, 8, 8, (255, 246, 200))
    elif place == "meadow":
        for x in (beside, SIZE - beside + rng.uniform(-6, 6)):
            y = rng.uniform(9, 20)
            for dx, r in ((-7, 5), (0, 7), (7, 5)):
                dot(x + dx, y, r, r * 0.75, (255, 255, 255))

    phase, swing = rng.uniform(0, 6.3), rng.uniform(1.5, 3.5)
    ridge = [(x * s, (horizon + swing * math.sin(phase + x / 17)) * s) for x in range(0, SIZE + 4, 4)]
    pen.polygon([*ridge, (height, height), (0, height)], fill=tuple(int(v) for v in ground))
    if place == "meadow":
        for _ in range(9):
            dot(
                rng.uniform(0, SIZE),
                rng.uniform(horizon + 6, SIZE),
                1.3,
                1.3,
                rng.choice(((255, 255, 255), (255, 224, 90))),
            )
    elif place == "snow":
        for _ in range(26):
            r = rng.uniform(0.9, 1.7)
            dot(rng.uniform(0, SIZE), rng.uniform(0, SIZE), r, r, (255, 255, 255))
    elif place == "desert":
        draw_cactus(c, SIZE / 2 - side * rng.uniform(34, 40), horizon + 4)


def draw_cactus(c: Canvas, x: float, foot: float) -> None:
    green = c.paint((70, 132, 82), background=True)
    s = SUPERSAMPLE
    for x0, y0, x1, y1 in (
        (-2.5, -20, 2.5, 4),
        (-8, -12, -4.5, -5),
        (-8, -8, 0, -5),
        (4.5, -15, 8, -8),
        (0, -11, 8, -8),
    ):
        c.draw.rounded_rectangle(
            [(x + x0) * s, (foot + y0) * s, (x + x1) * s, (foot + y1) * s], radius=1.7 * s, fill=green
        )


def draw_halftone(c: Canvas, towards: np.ndarray, horizon: float) -> None:
    s, step = SUPERSAMPLE, 6
    colour = tuple(int(v * (1 - c.style.halftone)) for v in towards)
    for row in range(int(horizon / step) + 1):
        r = 0.6 + 1.5 * row * step / horizon
        for x in range(0, SIZE + step, step):
            cx, cy = (x + (row % 2) * step / 2) * s, row * step * s
            c.draw.ellipse([cx - r * s, cy - r * s, cx + r * s, cy + r * s], fill=colour)


def draw_hatch(image: Image.Image, darkness: float, rng: random.Random) -> Image.Image:
    """Draw slanted pencil strokes over the whole picture."""
    strokes = Image.new("L", image.size, 0)
    pen, s = ImageDraw.Draw(strokes), SUPERSAMPLE
    for x in range(-SIZE, SIZE, 4):
        start = (x + rng.uniform(-0.6, 0.6)) * s
        pen.line([(start, SIZE * s), (start + SIZE * s, 0)], fill=round(255 * darkness), width=round(1.2 * s))
    return Image.composite(Image.new("RGB", image.size, (84, 66, 56)), image, strokes)


def render(scene: Scene, style: Style, rng: random.Random, colour: Colour | None = None) -> np.ndarray:
    """Draw a complete scene as a uint8 array (SIZE, SIZE, 3).

    `colour` replaces the scene's own colour of the subject (the autoencoder learns on free colours).
    """
    assert scene.subject and scene.colour and scene.place, "only whole scenes are drawn"
    centre = SIZE / 2 + rng.uniform(-4, 4), SIZE / 2 + 1 + rng.uniform(-3, 3)
    canvas = Canvas(style, centre, rng.uniform(1.08, 1.26), flip=rng.random() < 0.5)
    draw_place(canvas, scene.place, SIZE * 0.70 + rng.uniform(-4, 4), rng)
    DRAW[scene.subject](canvas, colour or COLOURS[scene.colour])
    image = canvas.image
    if style.hatch:
        image = draw_hatch(image, style.hatch, rng)
    if style.frame:
        border = round(style.frame * SUPERSAMPLE)
        ImageDraw.Draw(image).rectangle([0, 0, image.width, image.height], outline=style.frame_colour, width=border)
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX))
