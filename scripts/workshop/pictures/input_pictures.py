"""Pictures to start from, for the workflows that need one: a rough painting, and a picture with a mask."""

import io

from PIL import Image, ImageDraw

SKY, MEADOW, CAP, DOT, STEM = "#a8d4f5", "#8fd070", "#d8352f", "#ffffff", "#fbf1dc"


def painting(size: int) -> bytes:
    """Paint a mushroom as somebody would in a few seconds: a PNG of `size` x `size` pixels."""
    scale = 4  # drawn larger and made smaller: soft edges
    picture = Image.new("RGB", (100 * scale, 100 * scale), SKY)
    draw = ImageDraw.Draw(picture)

    def at(*places: int) -> list[int]:
        return [place * scale for place in places]

    draw.rectangle(at(0, 72, 100, 100), MEADOW)
    draw.rectangle(at(41, 50, 59, 84), STEM)
    draw.pieslice(at(18, 22, 82, 86), 180, 360, CAP)
    draw.ellipse(at(33, 33, 43, 43), DOT)
    draw.ellipse(at(58, 35, 66, 43), DOT)
    return _png(picture.resize((size, size), Image.Resampling.LANCZOS))


def with_mask(png: bytes) -> bytes:
    """Put a mask over the middle of a picture, as ComfyUI's mask editor stores one: as transparent pixels."""
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    alpha = Image.new("L", picture.size, 255)
    width, height = picture.size
    ImageDraw.Draw(alpha).ellipse([width * 0.14, height * 0.14, width * 0.86, height * 0.92], 0)
    picture.putalpha(alpha)
    return _png(picture)


def _png(picture: Image.Image) -> bytes:
    written = io.BytesIO()
    picture.save(written, "PNG")
    return written.getvalue()
