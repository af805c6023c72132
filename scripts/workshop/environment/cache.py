"""The cache folder: each part is made once, in a folder whose name says what it is made of."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from .locks import lock
from .setup_error import SetupError

MARKER = ".complete"
DISK_NEEDED = 12 * 2**30  # torch with its CUDA libraries is most of it


def cache_folder() -> Path:
    """Return the folder for everything that the commands make, apart from their results."""
    if chosen := os.environ.get("SUN_COMFYUI_CACHE"):
        return Path(chosen).absolute()
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "sun-comfyui"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sun-comfyui"


def cached(name: str, made_of: tuple[str, ...], make: Callable[[Path], None]) -> Path:
    """Return the cache's folder `name` for `made_of`; `make(folder)` fills it if it is not complete."""
    key = hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]
    folder = cache_folder() / f"{name}-{key}"
    if (folder / MARKER).exists():
        return folder
    cache_folder().mkdir(parents=True, exist_ok=True)
    with lock(cache_folder() / "lock"):
        if not (folder / MARKER).exists():  # another run may have made it while this one waited
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / MARKER).touch()
    return folder


def check_free_disk(folder: Path) -> None:
    """Raise SetupError if the disk of `folder` has too little room for an environment."""
    if shutil.disk_usage(folder).free < DISK_NEEDED:
        raise SetupError(disk_is_full())


def raise_if_disk_is_full(output: str) -> None:
    """Raise SetupError if a failed command's output says that the disk is full."""
    if os.strerror(errno.ENOSPC) in output:
        raise SetupError(disk_is_full())


def disk_is_full() -> str:
    """Say that the disk is full, and what to do about it."""
    return (
        f"The disk that holds {cache_folder()} has less than the {DISK_NEEDED / 2**30:.0f} GB free that ComfyUI and "
        "its requirements need: free some space, or set SUN_COMFYUI_CACHE to a folder on another disk."
    )
