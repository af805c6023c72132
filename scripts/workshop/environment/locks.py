"""File locks between runs: one waits for another, or refuses to run beside it."""

import contextlib
import errno
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .setup_error import SetupError


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the system releases it if this process dies."""
    with path.open("a+b") as file:
        if not _try_lock(file.fileno()):
            print("Another run is setting up; waiting for it.", flush=True)
            while not _try_lock(file.fileno()):
                time.sleep(0.5)
        yield


@contextlib.contextmanager
def alone(path: Path, otherwise: str) -> Iterator[None]:
    """Hold an exclusive lock on `path`, or raise SetupError(otherwise) if another run holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if not _try_lock(file.fileno()):
            raise SetupError(otherwise)
        yield


def _try_lock(descriptor: int) -> bool:
    """Try to take the lock; on a file system without locks this always succeeds."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
    return True
