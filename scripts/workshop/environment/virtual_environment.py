"""Virtual environments of the Python that runs these commands."""

import os
import subprocess
import sys
from pathlib import Path

from .cache import raise_if_disk_is_full
from .setup_error import SetupError


def make_virtual_environment(folder: Path) -> None:
    """Make one in `folder`. Raises SetupError if this Python cannot."""
    made = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True, text=True)
    if made.returncode:
        raise_if_disk_is_full(made.stdout + made.stderr)
        raise SetupError(
            "Python cannot make a virtual environment here: install its venv module "
            "(on Debian and Ubuntu the package python3-venv) and try again."
        )


def interpreter(folder: Path) -> Path:
    """Return the Python of the virtual environment in `folder`."""
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"
