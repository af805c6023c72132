"""The demo's side-by-side picture."""

import io
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

TILE = 512  # pixels; smaller pictures are enlarged to it
MARGIN, GAP, HEADER, CAPTION = 40, 24, 128, 44
PAPER, INK, FAINT, ACCENT = "#faf9f6", "#22252b", "#767b85", "#b3541e"


@dataclass(frozen=True)
class Picture:
    """A picture of the demo: its file name, PNG bytes, how it was made, and the seconds that sampling took."""

    name: str
    png: bytes
    method: str
    evaluations: int
    negative: str
    seconds: float


def side_by_side(pictures: list[Picture], positive: str) -> Image.Image:
    """Put plain left and SUN right, one row for each negative prompt; `pictures` is in reading order."""
    rows = len(pictures) // 2
    size = (2 * MARGIN + 2 * TILE + GAP, HEADER + rows * (TILE + CAPTION + GAP) + MARGIN - GAP + 40)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    _text(draw, MARGIN, 30, positive, 30, INK, size[0] - 2 * MARGIN)
    for column, picture in enumerate(pictures[:2]):
        left = MARGIN + column * (TILE + GAP)
        seconds = sum(p.seconds for p in pictures[column::2]) / rows
        _text(draw, left, 90, f"{picture.method}", 20, ACCENT if column else INK, TILE - 110)
        draw.text((left + TILE, 90), f"{seconds:.2f} s", ACCENT if column else INK, _font(20), anchor="ra")
    for index, picture in enumerate(pictures):
        left = MARGIN + index % 2 * (TILE + GAP)
        top = HEADER + index // 2 * (TILE + CAPTION + GAP)
        sheet.paste(enlarged(picture.png, TILE), (left, top))
        if index % 2 == 0:
            _text(draw, left, top + TILE + 12, f"negative prompt: {picture.negative}", 18, FAINT, 2 * TILE)
    speedup = sum(p.seconds for p in pictures[0::2]) / sum(p.seconds for p in pictures[1::2])
    evaluations = f"{pictures[0].evaluations} against {pictures[1].evaluations} evaluations of the model"
    note = f"Sampling {speedup:.1f} times faster: {evaluations}. Times of the KSampler node with the models loaded."
    _text(draw, MARGIN, size[1] - 48, note, 16, FAINT, size[0] - 2 * MARGIN)
    return sheet


def enlarged(png: bytes, size: int) -> Image.Image:
    """Crop a picture to the square of its middle, at `size` x `size` pixels."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.resize((size, size), Image.Resampling.LANCZOS, (left, top, left + side, top + side))


def _text(draw: ImageDraw.ImageDraw, x: int, y: int, text: str, size: int, colour: str, width: int) -> None:
    """Write a line of text, in a smaller size if it would be wider than `width`."""
    while size > 10 and draw.textlength(text, _font(size)) > width:
        size -= 1
    draw.text((x, y), text, colour, _font(size))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
