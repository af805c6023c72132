"""What this machine has for a plan: adapters and models by the headers of their files, and the nodes of all packs."""

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import folder_paths

import nodes

from ..conversion.models import Adapter, Installed, ModelFile
from ..sun_core.adapter_file import family_of, read_layout, steps_of
from ..sun_core.errors import SunError, Text
from ..sun_core.model_header import ModelHeader, read_model_header
from .adapter_folder import FOLDER
from .language import translated

MODEL_FOLDERS = ("checkpoints", "diffusion_models")
MODEL_EXTENSIONS = (".safetensors", ".sft")

FileState = tuple[str, int, int, int]
"""Path, time of change (of permissions too) and size of a file: the key of its cached header."""


def installed(default: str | None) -> Installed:
    """Return the adapters and models on this machine, with the adapter that the user prefers."""
    return Installed(installed_adapters(), default, model_file, node_definition)


def installed_adapters() -> list[Adapter]:
    """Read the headers of all adapter files; errors are in the language that is spoken."""
    return [_adapter(name) for name in folder_paths.get_filename_list(FOLDER)]


def node_definition(node_type: str) -> dict[str, Any] | None:
    """Return what /object_info says of a node type's inputs, or None if it is not installed."""
    node_class = nodes.NODE_CLASS_MAPPINGS.get(node_type)
    if node_class is None:
        return None
    try:
        return {"input": node_class.INPUT_TYPES()}
    except Exception:  # of another pack, whatever it is; /object_info leaves such a node out as well
        logging.exception("SUN could not read the inputs of %s.", node_type)
        return {}


def model_file(names: Sequence[str]) -> ModelFile | None:
    """Read the header of the first of these files that is in one of the model folders."""
    for name in names:
        for folder in MODEL_FOLDERS:
            if not name.lower().endswith(MODEL_EXTENSIONS) or not folder_paths.get_full_path(folder, name):
                continue
            header = _model_header(_state(folder, name))
            if header is not None:
                layout = tuple(header.layout.layers.items()) if header.layout else None
                return ModelFile(name, translated(header.family), layout)
    return None


def _adapter(name: str) -> Adapter:
    try:
        adapter = _read_adapter(name, _state(FOLDER, name))
    except OSError:
        adapter = Text("{name} cannot be read; check its permissions.", name=name)
    return adapter if isinstance(adapter, Adapter) else Adapter(name, error=translated(adapter))


def _state(folder: str, name: str) -> FileState:
    path = folder_paths.get_full_path_or_raise(folder, name)
    stat = Path(path).stat()
    return path, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size


@lru_cache(maxsize=256)
def _read_adapter(name: str, state: FileState) -> Adapter | Text:
    """Read the header of an adapter file, or say in one sentence why it cannot be used."""
    path, *_, size = state
    try:
        layout, _, metadata = read_layout(path)
    except SunError as error:
        return error.sentence
    layers = tuple(layout.layers.items())
    return Adapter(name, family_of(layout, metadata), layers, len(layers), steps_of(metadata), size)


@lru_cache(maxsize=256)
def _model_header(state: FileState) -> ModelHeader | None:
    return read_model_header(state[0])
