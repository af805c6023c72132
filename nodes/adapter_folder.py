"""The model folder type `sun`: which adapter files there are, and what to say if one is missing."""

import hashlib
from pathlib import Path
from weakref import WeakValueDictionary

import folder_paths

from ..conversion.rules import RELEASED, RELEASED_SIZE
from ..sun_core.adapter import SunAdapter, load_adapter
from ..sun_core.errors import SunError, Text
from .language import in_page_language

FOLDER = "sun"
EXTENSIONS = {".safetensors", ".sft"}

LONGEST_NAME = 1024
"""Characters, subfolders included."""

RELEASED_ADAPTER = RELEASED["name"]

_loaded: WeakValueDictionary[tuple, SunAdapter] = WeakValueDictionary()
"""Adapters in use, by path and state of their file: nodes that name the same file share its weights."""


def register_folder() -> None:
    """Register models/sun with ComfyUI, after the folders that extra_model_paths.yaml names for `sun`."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    paths, extensions = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {*extensions, *EXTENSIONS})


def adapter_names() -> list[str]:
    """List the adapter files; if there are none, the released file's name, so that the widget shows what is missing."""
    return folder_paths.get_filename_list(FOLDER) or [RELEASED_ADAPTER]


def validated(name: object) -> bool | str:
    """Return True if the file exists, otherwise what to tell the user; for validate_inputs.

    A name that arrives over a link is None here; it is checked when the node runs.
    """
    missing = None if name is None else _missing(name)
    return True if missing is None else in_page_language(missing)


def _missing(name: object) -> Text | None:
    if name is None or name == "":
        return Text("No SUN adapter is chosen; choose a file from the list.")
    if not isinstance(name, str) or len(name) > LONGEST_NAME:
        return Text("{name} cannot be the name of a SUN adapter; choose a file from the list.", name=repr(name)[:80])
    if folder_paths.get_full_path(FOLDER, name):
        return None
    folder = folder_paths.get_folder_paths(FOLDER)[0]
    released = {"released": RELEASED_ADAPTER, "size": RELEASED_SIZE}
    released |= {key: RELEASED[key] for key in ("license", "url")}
    if name == RELEASED_ADAPTER:
        return Text(
            "The SUN adapter is not installed yet: download {released} ({size}, {license}) from {url}, put it into "
            "{folder} and press R.",
            **released,
            folder=folder,
        )
    if there := folder_paths.get_filename_list(FOLDER)[:5]:
        return Text(
            "The SUN adapter {name} is no longer in {folder}; put it back, or choose another one ({there}).",
            name=name,
            folder=folder,
            there=", ".join(there),
        )
    return Text(
        "The SUN adapter {name} is missing, and {folder} is empty; put it back, or download {released} ({size}, "
        "{license}) from {url} into that folder.",
        name=name,
        folder=folder,
        **released,
    )


def fingerprint(name: object) -> str:
    """Return a hash that changes when the file called `name` is replaced; for fingerprint_inputs.

    ComfyUI saves it in the metadata of every image, so it must not hold the file's path.
    """
    path = folder_paths.get_full_path(FOLDER, name) if isinstance(name, str) else None
    state = (name, *_state(path)) if path else (name,)
    return hashlib.sha256(repr(state).encode()).hexdigest()[:16]


def _state(path: str) -> tuple[int, int]:
    stat = Path(path).stat()
    return stat.st_mtime_ns, stat.st_size


def adapter_named(name: object) -> SunAdapter:
    """Load an adapter by its file name, or return the one already in use.

    Raises SunError if no file is named, and if the file is missing or is not a SUN adapter.
    """
    if missing := _missing(name):
        raise SunError(missing)
    path = folder_paths.get_full_path_or_raise(FOLDER, name)
    key = (path, *_state(path))
    adapter = _loaded.get(key)
    if adapter is None:
        adapter = _loaded[key] = load_adapter(path)
    return adapter


register_folder()
