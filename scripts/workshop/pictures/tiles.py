"""Labelled pictures, put together to one: for thumbnails, help pages and the README."""

import io

from PIL import Image, ImageDraw, ImageFilter, ImageFont

LABEL, GAP = 28, 4  # pixels: a label's height; between tiles
INK, PAPER = "#ffffff", "#22252b"


def tile(png: bytes, width: int, height: int, label: str = "") -> Image.Image:
    """Cut the middle of a picture to `width` x `height` pixels, with a label under it if there is one."""
    bar = LABEL if label else 0
    made = Image.new("RGB", (width, height), PAPER)
    made.paste(_fitted(drawn_larger(png, 4), width, height - bar))
    if label:
        _write(ImageDraw.Draw(made), label, width, height - bar / 2)
    return made


def whole(png: bytes) -> Image.Image:
    """Open a picture at its own size."""
    return Image.open(io.BytesIO(png)).convert("RGB")


def sheet(rows: list[list[Image.Image]]) -> Image.Image:
    """Put tiles of one size in rows, with a gap between them."""
    width, height = rows[0][0].size
    columns = max(map(len, rows))
    made = Image.new("RGB", (columns * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP), INK)
    for y, row in enumerate(rows):
        for x, one in enumerate(row):
            made.paste(one, (x * (width + GAP), y * (height + GAP)))
    return made


def drawn_larger(png: bytes, factor: int) -> Image.Image:
    """Enlarge a picture as a drawing: the median keeps edges sharp and takes the stairs out of them."""
    picture = whole(png)
    larger = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.LANCZOS)
    return larger.filter(ImageFilter.MedianFilter(7)).filter(ImageFilter.UnsharpMask(factor, 140, 2))


def _fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Cut out the largest middle part of that shape, at that size."""
    scale = min(picture.width / width, picture.height / height)
    left, top = (picture.width - width * scale) / 2, (picture.height - height * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    return picture.resize((width, height), Image.Resampling.LANCZOS, box)


def _write(draw: ImageDraw.ImageDraw, label: str, width: int, middle: float) -> None:
    size = 17.0
    while size > 8 and draw.textlength(label, font=ImageFont.load_default(size)) > width - 8:
        size -= 0.5
    draw.text((width / 2, middle), label, INK, ImageFont.load_default(size), anchor="mm")
