"""Virtual environments of the Python that runs these commands."""

import os
import subprocess
import sys
from pathlib import Path

from . import debian
from .cache import raise_if_disk_is_full
from .setup_error import SetupError

VENV_PACKAGES = ("python3-venv",)  # Debian's python3 comes without a part of it


def make_virtual_environment(folder: Path) -> None:
    """Make one in `folder`. Raises SetupError if this Python cannot."""

    def made() -> bool | None:
        done = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True, text=True)
        raise_if_disk_is_full(done.stdout + done.stderr)
        return True if done.returncode == 0 else None

    is_debians = sys.base_prefix == "/usr"
    if not (debian.found_or_installed(made, "Python's venv module", VENV_PACKAGES) if is_debians else made()):
        raise SetupError(
            "Python cannot make a virtual environment here: install its venv module "
            f"(on Debian and Ubuntu the package {VENV_PACKAGES[0]}) and try again."
        )


def interpreter(folder: Path) -> Path:
    """Return the Python of the virtual environment in `folder`."""
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"
