"""The one way this pack writes files: whole or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import SunError


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Give a file to write to that replaces `path` at the end.

    At every moment, also in a crash, there is the old file or the new one. Raises SunError if the disk is full.
    """
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise SunError(
                "The disk is full: {path} could not be written; free some space and start again.", path=path
            ) from error
        raise
