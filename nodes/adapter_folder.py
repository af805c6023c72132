"""The model folder type `sun`: where adapter files are, and what to say where they are not."""

from pathlib import Path
from weakref import WeakValueDictionary

import folder_paths

from ..conversion.rules import RELEASED
from ..sun_core.adapter import SunAdapter, load_adapter
from ..sun_core.errors import SunError

FOLDER = "sun"
EXTENSIONS = {".safetensors", ".sft"}

RELEASED_ADAPTER = RELEASED["name"]
RELEASED_AT = "https://huggingface.co/Williechai/SpeedUpNet"

_loaded: WeakValueDictionary[tuple, SunAdapter] = WeakValueDictionary()
"""Adapters in use, by file and its state: nodes that name the same file share its weights."""


def register_folder() -> None:
    """Makes models/sun known to ComfyUI, after whatever extra_model_paths.yaml says about `sun`."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    paths, extensions = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {*extensions, *EXTENSIONS})


def adapter_names() -> list[str]:
    """The adapter files there are; with none, the released file's name, so that the widget says what is missing."""
    return folder_paths.get_filename_list(FOLDER) or [RELEASED_ADAPTER]


def is_there(name: str | None) -> bool | str:
    """For validate_inputs: True, or what to say about a file that is not there.

    A name that comes over a link is None here, and looked at when the node runs.
    """
    if name is None or folder_paths.get_full_path(FOLDER, name):
        return True
    folder = folder_paths.get_folder_paths(FOLDER)[0]
    if name == RELEASED_ADAPTER:
        return (
            f"The SUN adapter is not there yet: download {RELEASED_ADAPTER} (76.8 MB, MIT) from {RELEASED_AT}, "
            f"put it into {folder} and press R."
        )
    there = ", ".join(folder_paths.get_filename_list(FOLDER)[:5])
    if there:
        return f"The SUN adapter {name} is not in {folder} any more; put it back, or choose another one ({there})."
    return (
        f"The SUN adapter {name} is not there, and {folder} is empty; put it back, or download {RELEASED_ADAPTER} "
        f"(76.8 MB, MIT) from {RELEASED_AT} into that folder."
    )


def file_state(name: str | None) -> tuple:
    """For fingerprint_inputs: changes when the file that `name` stands for is replaced."""
    path = folder_paths.get_full_path(FOLDER, name) if name else None
    if path is None:
        return (name, None)
    stat = Path(path).stat()
    return (path, stat.st_mtime_ns, stat.st_size)


def adapter_named(name: str) -> SunAdapter:
    """Loads an adapter of the folder, or gives the one that is in use already; SunError where it cannot be."""
    there = is_there(name)
    if isinstance(there, str):
        raise SunError(there)
    state = file_state(name)
    adapter = _loaded.get(state)
    if adapter is None:
        adapter = _loaded[state] = load_adapter(state[0])
    return adapter


register_folder()
