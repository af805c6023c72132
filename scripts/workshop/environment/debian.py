"""Debian packages, for what pip does not bring."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import TypeVar

from .cache import cache_folder
from .locks import lock

T = TypeVar("T")
OTHERS_SECONDS = 300
"""How long apt-get waits while another program installs packages, as Debian's own updates do."""


def command(what: str, names: tuple[str, ...], packages: tuple[str, ...]) -> str | None:
    """Return the first command of these names that is installed, as `found_or_installed` does."""
    return found_or_installed(lambda: next(filter(None, map(shutil.which, names)), None), what, packages)


def found_or_installed(find: Callable[[], T | None], what: str, packages: tuple[str, ...]) -> T | None:
    """Return what `find` finds; if nothing, and this is root's Debian, install these packages and look again."""
    if (already := find()) is not None or not _can_install():
        return already
    cache_folder().mkdir(parents=True, exist_ok=True)
    with lock(cache_folder() / "debian-lock"):  # apt-get fails beside another one
        if (by_another := find()) is not None:  # while this one waited
            return by_another
        _install(what, packages)
    return find()


def _can_install() -> bool:
    return sys.platform != "win32" and shutil.which("apt-get") is not None and os.geteuid() == 0


def _install(what: str, packages: tuple[str, ...]) -> None:
    print(f"Installing {what} ...", flush=True)
    quietly = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    waiting = ("-o", f"DPkg::Lock::Timeout={OTHERS_SECONDS}")
    errors = []
    for arguments in (("update",), ("install", "--yes", "--no-install-recommends", *packages)):
        done = subprocess.run(["apt-get", *waiting, *arguments], capture_output=True, env=quietly, text=True)
        errors += done.stderr.split() if done.returncode else []
    if done.returncode:
        print(f"apt-get could not install {what}: {' '.join(errors)[:600]}", flush=True)
