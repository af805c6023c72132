"""Checkpoint files: written whole or not at all, and read only if they are undamaged."""

import zipfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from ..errors import SunError
from ..whole_file import whole_file


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a state of tensors and plain values; raises SunError if the disk is full."""
    with whole_file(path) as file:
        writer = _Writer(file)
        try:
            torch.save(state, cast(BinaryIO, writer))
        except RuntimeError as error:
            raise (writer.failure or error) from error


class _Writer:
    """Remembers why writing failed, which torch.save leaves out of the error that it raises."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.flush = file.flush
        self.failure: OSError | None = None

    def write(self, content: Any) -> int:
        """Write to the file."""
        try:
            return self._file.write(content)
        except OSError as error:
            self.failure = error
            raise


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote; raises SunError if a single bit of it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not compare the checksums
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"{damaged} does not match its checksum")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise almost anything
        reason = str(error).partition("\n")[0].rstrip(". ") or type(error).__name__
        raise SunError(
            "The checkpoint {path} cannot be read ({reason}); delete it to start this run anew.",
            path=path,
            reason=reason,
        ) from error
