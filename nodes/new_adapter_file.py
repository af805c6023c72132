"""Names for new adapter files."""

import re
from itertools import count
from pathlib import Path

import folder_paths

from ..sun_core.errors import SunError
from .adapter_folder import FOLDER

LONGEST = 200
"""Bytes; file systems allow 255 for the whole name."""


def new_adapter_file(prefix: str) -> Path:
    """Return an unused path in the adapter folder: the prefix and a number.

    Raises SunError if the prefix is not a plain file name, or is too long for one.
    """
    name = prefix.strip()
    if len(name.encode(errors="replace")) > LONGEST:
        raise SunError("The file's name {name!r}... is too long; choose a shorter one.", name=name[:20])
    if not re.fullmatch(r"\w[\w .()+-]*", name):
        raise SunError(
            "{prefix!r} cannot be a file's name; use letters, digits, spaces and - _ . ( ) +, and start with a letter "
            "or a digit.",
            prefix=prefix,
        )
    folder = Path(folder_paths.get_folder_paths(FOLDER)[0])
    numbered = (folder / f"{name}_{number:05}_.safetensors" for number in count(1))
    return next(path for path in numbered if not path.exists())
