"""What torch's inductor makes code for the CPU with: a C++ compiler and Python's headers."""

import shutil
import sysconfig
from pathlib import Path

from . import debian

COMPILERS = ("g++", "clang++", "cl")  # those that inductor tries
COMPILER_PACKAGES = ("g++", "python3-dev")  # Debian's


def compiler() -> str | None:
    """Return a C++ compiler's command, and install it first if this is root on Debian; None without it or headers."""

    def with_headers() -> str | None:
        found = next(filter(None, map(shutil.which, COMPILERS)), None)
        return found if Path(sysconfig.get_path("include"), "Python.h").exists() else None

    return debian.found_or_installed(with_headers, "a C++ compiler", COMPILER_PACKAGES)
