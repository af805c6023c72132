"""Captioned pictures from where users keep them: a folder, a metadata.jsonl, WebDataset shards. Imports no ComfyUI.

What cannot be used is reported to a `BadData`.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import SunError
from .bad_data import BadData
from .captions import problem_of

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
METADATA = "metadata.jsonl"  # as `datasets` reads an imagefolder
CAPTION_FIELDS = ("text", "caption", "prompt")


@dataclass(frozen=True)
class Picture:
    """A captioned picture, encoded as in its file."""

    name: str
    caption: str
    content: bytes

    def pixels(self, width: int, height: int) -> Tensor:
        """Decode to (1, height, width, 3) in 0..1, scaled to cover that size and cropped in the middle.

        Raises whatever Pillow's decoders raise if the content is not a whole picture.
        """
        with Image.open(io.BytesIO(self.content)) as opened:
            picture = _as_rgb(ImageOps.exif_transpose(opened))
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255).unsqueeze(0)


def _as_rgb(picture: Image.Image) -> Image.Image:
    """Convert a picture of any mode, 16-bit grey too; what is transparent becomes white."""
    if picture.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        grey = np.asarray(picture, dtype=np.float32) / 257
        return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in picture.getbands() or "transparency" in picture.info:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def read_pictures(data: Path, bad: BadData) -> Iterator[Picture]:
    """Read the pictures of a folder, of a .tar shard, or of a folder of shards, in the order of their names.

    Raises SunError if there is no data at that path.
    """
    shards = [data] if data.suffix == ".tar" else sorted(data.glob("*.tar"))
    if not data.exists():
        raise SunError(
            "There is no training data at {data}; name a folder of pictures, or WebDataset shards (.tar).", data=data
        )
    if shards:
        return _with_usable_captions(_shards(shards, bad), bad)
    if data.is_file():
        raise SunError(
            "{data} is not training data; name a folder of pictures, or WebDataset shards (.tar).", data=data
        )
    read = _metadata if (data / METADATA).exists() else _folder
    return _with_usable_captions(read(data, bad), bad)


def _with_usable_captions(pictures: Iterator[Picture], bad: BadData) -> Iterator[Picture]:
    """Leave out captions that cannot be meant as prompts."""
    for picture in pictures:
        if problem := problem_of(picture.caption):
            bad.report(f"The caption of {picture.name} {problem}")
            continue
        yield picture


def _folder(folder: Path, bad: BadData) -> Iterator[Picture]:
    """Read pictures that have a .txt of the same name beside them."""
    files = {path for path in folder.rglob("*") if path.is_file()}
    pictures = sorted(path for path in files if path.suffix.lower() in PICTURE_ENDINGS)
    captioned = {path.with_suffix(".txt") for path in pictures}
    for caption in sorted(path for path in files if path.suffix == ".txt" and path not in captioned):
        bad.report(f"The caption {caption} has no picture beside it")
    for path in pictures:
        caption = path.with_suffix(".txt")
        if caption not in files:
            bad.report(f"The picture {path} has no caption: {caption.name} is missing")
            continue
        try:
            yield Picture(str(path), caption.read_text(encoding="utf-8-sig").strip(), path.read_bytes())
        except (OSError, UnicodeDecodeError) as error:
            bad.report(f"{path} or its caption cannot be read ({error})")


def _metadata(folder: Path, bad: BadData) -> Iterator[Picture]:
    """Read the pictures that the lines of metadata.jsonl name: {"file_name": ..., "text": ...}."""
    for number, line in enumerate((folder / METADATA).read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"line {number} of {folder / METADATA}"
        try:
            entry = json.loads(line.decode("utf-8-sig"))
        except ValueError as error:  # neither UTF-8 nor JSON
            bad.report(f"{where} is not JSON ({error})")
            continue
        name, caption = (entry.get("file_name"), _caption(entry)) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or caption is None:
            bad.report(f"{where} lacks file_name or {CAPTION_FIELDS[0]}")
            continue
        if "\0" in name:
            bad.report(f"{where} names {name!r}, which cannot be a file's name")
            continue
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            bad.report(f"{where} names {name}, which lies outside of the folder")
            continue
        try:
            yield Picture(str(path), caption, path.read_bytes())
        except OSError:
            bad.report(f"{where} names {name}, which cannot be read")


def _shards(shards: list[Path], bad: BadData) -> Iterator[Picture]:
    """Read the samples of WebDataset shards: a picture, and a .txt or a .json with its caption."""
    try:
        import webdataset
    except ImportError:
        raise SunError(
            "WebDataset shards need the Python package webdataset; install it with pip, or unpack the shards into a "
            "folder of pictures."
        ) from None
    for shard in shards:
        try:
            # the file itself, since webdataset takes a path for a URL; a damaged archive ends in an exception
            with open(shard, "rb") as stream:
                files = webdataset.tariterators.tar_file_expander([{"url": str(shard), "stream": stream}])
                for sample in webdataset.tariterators.group_by_keys(files):
                    yield from _sample(shard, sample, bad)
                if any(stream.read()):  # tarfile takes a damaged header for the end of the archive
                    raise OSError("it goes on after its end")
        except SunError:
            raise
        except Exception as error:  # webdataset lets through what tarfile, zlib and the system raise
            bad.report(f"The shard {shard} is damaged and was read only in part ({error})")


def _sample(shard: Path, sample: dict[str, Any], bad: BadData) -> Iterator[Picture]:
    name = f"{sample['__key__']} in {shard}"
    picture = next((sample[kind] for e in PICTURE_ENDINGS if (kind := e[1:]) in sample), None)
    try:
        caption = sample["txt"].decode() if "txt" in sample else _caption(json.loads(sample.get("json", b"null")))
    except (UnicodeDecodeError, json.JSONDecodeError):
        caption = None
    if picture is None or caption is None:
        bad.report(f"The sample {name} has no {'picture' if picture is None else 'readable caption'}")
        return
    yield Picture(name, caption.strip(), picture)


def _caption(entry: object) -> str | None:
    """Find the caption that a JSON object holds under one of the usual names."""
    if not isinstance(entry, dict):
        return None
    found = next((entry[name] for name in CAPTION_FIELDS if name in entry), None)
    return found.strip() if isinstance(found, str) else None
