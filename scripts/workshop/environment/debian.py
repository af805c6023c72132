"""Debian packages, for what pip does not bring."""

import os
import shutil
import subprocess
import sys


def apt_install(what: str, packages: tuple[str, ...]) -> None:
    """Install Debian packages if this is root's Debian; otherwise do nothing."""
    if sys.platform == "win32" or not shutil.which("apt-get") or os.geteuid() != 0:
        return
    print(f"Installing {what} ...", flush=True)
    quietly = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (("update",), ("install", "--yes", "--no-install-recommends", *packages)):
        subprocess.run(["apt-get", *command], capture_output=True, env=quietly)
