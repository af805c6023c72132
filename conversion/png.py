"""Read and replace the workflows that ComfyUI embeds in its pictures, as text chunks of a PNG file."""

import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from .graph import ConversionError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEYWORDS = ("workflow", "prompt")
"""The UI's graph and the API's, as ComfyUI's SaveImage names them."""
LARGEST_TEXT = 16 * 2**20
"""Bytes. Reading a workflow takes about 70 times as much memory."""


class Chunk(NamedTuple):
    kind: bytes
    data: bytes


def read_texts(png: bytes) -> dict[str, str]:
    """Return the embedded workflows by keyword. Raises ConversionError if the file is not a complete PNG."""
    texts: dict[str, str] = {}
    chunks, _ = _chunks(png)
    for chunk in chunks:
        keyword, text = _text(chunk)
        if keyword in KEYWORDS:
            texts.setdefault(keyword, text)
    return texts


def with_texts(png: bytes, texts: Mapping[str, str]) -> bytes:
    """Return a copy of a PNG with new texts under its keywords. The picture stays the same bit for bit."""
    chunks, rest = _chunks(png)
    parts = [SIGNATURE]
    for chunk in chunks:
        keyword, _ = _text(chunk)
        if keyword in texts:
            chunk = _text_chunk(keyword, texts[keyword])
        checksum = struct.pack(">I", zlib.crc32(chunk.kind + chunk.data))
        parts += [struct.pack(">I", len(chunk.data)), chunk.kind, chunk.data, checksum]
    return b"".join([*parts, rest])


def _chunks(png: bytes) -> tuple[list[Chunk], bytes]:
    """Split a PNG into its chunks and the bytes that some programs append to it."""
    if not png.startswith(SIGNATURE):
        raise ConversionError("This is not a PNG file, whatever its name says.")
    chunks: list[Chunk] = []
    place = len(SIGNATURE)
    while place < len(png) and not (chunks and chunks[-1].kind == b"IEND"):
        length = int.from_bytes(png[place : place + 4], "big")
        kind, data = png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        if len(data) < length or len(kind) < 4:
            raise ConversionError("This PNG file is incomplete; it was cut short.")
        chunks.append(Chunk(kind, data))
        place += 12 + length
    return chunks, png[place:]


def _text(chunk: Chunk) -> tuple[str, str]:
    """Return keyword and text of a text chunk that holds a workflow, or two empty strings."""
    keyword, _, rest = chunk.data.partition(b"\0")
    name = keyword.decode("latin-1")
    if name not in KEYWORDS:
        return "", ""
    if len(chunk.data) > LARGEST_TEXT:
        raise ConversionError("The text in this PNG file is larger than any workflow.")
    try:
        if chunk.kind == b"tEXt":
            return name, rest.decode("latin-1")
        if chunk.kind == b"zTXt":
            return name, _inflate(rest[1:]).decode("latin-1")
        if chunk.kind == b"iTXt":
            _, _, text = rest[2:].split(b"\0", 2)
            return name, (_inflate(text) if rest[0] else text).decode("utf-8")
    except ConversionError:
        raise
    except (ValueError, IndexError, zlib.error):
        raise ConversionError(f"The {name} in this PNG file is damaged.") from None
    return "", ""


def _inflate(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(data, LARGEST_TEXT)
    if unpacker.unconsumed_tail:
        raise ConversionError("The text in this PNG file is larger than any workflow.")
    return text


def _text_chunk(keyword: str, text: str) -> Chunk:
    try:
        return Chunk(b"tEXt", keyword.encode() + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        return Chunk(b"iTXt", keyword.encode() + b"\0\0\0\0\0" + text.encode("utf-8"))
