"""Names for adapter files that are to be written."""

import re
from itertools import count
from pathlib import Path

import folder_paths

from ..sun_core.errors import SunError
from .adapter_folder import FOLDER


def new_adapter_file(prefix: str) -> Path:
    """A path in the folder of adapters that no file has yet: the prefix and a number.

    Raises SunError where the prefix is no plain file name.
    """
    name = prefix.strip()
    if not re.fullmatch(r"\w[\w .()+-]*", name):
        raise SunError(
            f"{prefix!r} cannot be a file's name; choose one of letters, digits, spaces and - _ . ( ) + that starts "
            "with a letter or a digit."
        )
    folder = Path(folder_paths.get_folder_paths(FOLDER)[0])
    numbered = (folder / f"{name}_{number:05}_.safetensors" for number in count(1))
    return next(path for path in numbered if not path.exists())
