"""Reads the headers of safetensors files, as bytes.

`safe_open` and `load_file` map a file into memory. If another program then cuts it short, reading it kills the process.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from .errors import Text

LARGEST_HEADER = 16 * 2**20
"""Bytes; parsing takes up to 25 times as much memory."""
MOST_DIMENSIONS = 16


class CutShortError(SafetensorError):
    """The file ends before its header says so."""


@dataclass(frozen=True)
class TensorEntry:
    """What a header says of a tensor."""

    dtype: str
    """As safetensors names it: F16, BF16, F32, ..."""
    shape: tuple[int, ...]
    span: tuple[int, int]
    """First byte, and the byte after the last, behind the header."""

    @property
    def size(self) -> int:
        """The tensor's bytes in the file."""
        return self.span[1] - self.span[0]


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself."""

    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]


def read_header(path: str | Path) -> Header:
    """Read the header of a file whose tensors fill the rest of it, which is not read.

    Raises SafetensorError for any other file, with a Text that says why, and OSError if it cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise CutShortError(Text("it ends within its header"))
        if length > LARGEST_HEADER:
            found, most = length // 2**20, LARGEST_HEADER // 2**20
            raise SafetensorError(Text("it has {found} MB, and {most} MB are the most", found=found, most=most))
        text = file.read(length)
    header = _parsed(text)
    _check_spans(header, size - 8 - length)
    return header


def _parsed(text: bytes) -> Header:
    try:
        values = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        raise SafetensorError(Text("it is not JSON")) from None
    if not isinstance(values, dict):
        raise SafetensorError(Text("it is not a JSON object"))
    metadata = values.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise SafetensorError(Text("its metadata are not texts"))
    return Header({key: _entry(key, value) for key, value in values.items()}, metadata)


def _entry(key: str, value: Any) -> TensorEntry:
    match value:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(start), int(end)]} if (
            re.fullmatch(r"\w{1,16}", dtype, re.ASCII)
            and len(shape) <= MOST_DIMENSIONS
            and all(isinstance(length, int) and 0 <= length < 2**63 for length in shape)
            and 0 <= start <= end
        ):
            return TensorEntry(dtype, tuple(shape), (start, end))
    raise SafetensorError(Text("it does not describe the tensor {key}", key=json.dumps(key[:80])))


def _check_spans(header: Header, size: int) -> None:
    """Raise SafetensorError unless the tensors fill `size` bytes, without gaps and overlaps."""
    end = 0
    for start, stop in sorted(tensor.span for tensor in header.tensors.values()):
        if start != end:
            raise SafetensorError(Text("its tensors overlap, or leave gaps"))
        end = stop
    if end > size:
        raise CutShortError(Text("it ends within its tensors"))
    if end < size:
        raise SafetensorError(Text("{count} bytes follow its last tensor", count=f"{size - end:,}"))
