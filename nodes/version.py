"""The pack's version, which only pyproject.toml states."""

import re
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def pack_version() -> str:
    """Read the version from pyproject.toml; Python 3.10 has no TOML reader."""
    found = re.search(r'^version = "([^"]+)"$', PYPROJECT.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise ValueError(f"{PYPROJECT} states no version")
    return found.group(1)
