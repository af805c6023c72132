"""The icon and the banner of the registry: a sun with 24 rays, of which 4 are long, for 4 steps in place of 25."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from .. import REPOSITORY

FONT = 'font-family="DejaVu Sans, Arial, sans-serif"'
NIGHT, SUN, RAY, WHITE, GREY = "#1a202c", "#f6b73c", "#4a5568", "#f7fafc", "#cbd5e0"
RAYS, LONG_RAYS = 24, 4


def sun(x: int, y: int, radius: int) -> Iterator[str]:
    """Draw a sun around (x, y), in pixels: SVG elements."""
    yield f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{SUN}"/>'
    for number in range(RAYS):
        is_long = number % (RAYS // LONG_RAYS) == 0
        angle = 2 * math.pi * number / RAYS  # clockwise from the top
        x1, y1, x2, y2 = (
            centre + sign * length * radius * turn(angle)
            for length in (1.35, 1.75 if is_long else 1.51)
            for centre, sign, turn in ((x, 1, math.sin), (y, -1, math.cos))
        )
        colour, width = (SUN, 0.17 * radius) if is_long else (RAY, 0.07 * radius)
        yield (
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'stroke="{colour}" stroke-width="{width:.1f}" stroke-linecap="round"/>'
        )
    yield (
        f'<text x="{x}" y="{y + 0.42 * radius:.1f}" {FONT} font-weight="700" font-size="{1.15 * radius:.0f}" '
        f'text-anchor="middle" fill="{NIGHT}">{LONG_RAYS}</text>'
    )


def icon() -> str:
    return svg(400, 400, "SUN: 4 steps in place of 25", [background(400, 400, 'rx="72" '), *sun(200, 200, 92)])


def banner() -> str:
    words = [
        f"<g {FONT}>",
        f'  <text x="500" y="232" font-size="74" font-weight="700" fill="{WHITE}">SUN for ComfyUI</text>',
        f'  <text x="502" y="310" font-size="35" fill="{SUN}">Stable Diffusion 1.5 in 4 steps</text>',
        f'  <text x="502" y="366" font-size="29" fill="{GREY}">Without CFG, and the negative prompt still works</text>',
        "</g>",
    ]
    return svg(1260, 540, "SUN for ComfyUI", [background(1260, 540), *sun(250, 270, 112), *words])


def background(width: int, height: int, corners: str = "") -> str:
    return f'<rect width="{width}" height="{height}" {corners}fill="{NIGHT}"/>'


def svg(width: int, height: int, title: str, elements: list[str]) -> str:
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    lines = (f"  {line}\n" for line in (f"<title>{title}</title>", *elements))
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{"".join(lines)}</svg>\n'


REGISTRY_PICTURES: dict[str, Callable[[], str]] = {"icon": icon, "banner": banner}


def file_of(name: str) -> Path:
    """Return the file of one of these pictures."""
    return REPOSITORY / "docs" / f"{name}.svg"


def write_registry_pictures(names: list[str]) -> None:
    """Write the pictures of these names."""
    for name in names:
        file_of(name).write_text(REGISTRY_PICTURES[name](), encoding="utf-8")
        print(f"  made: {file_of(name).name}")
