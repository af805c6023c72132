"""Which model a safetensors file holds, as far as its header tells: nothing of the weights is read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from .adapter_file import AdapterLayout
from .errors import Text
from .safetensors_file import read_header

_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "unet.", "")

_LDM = re.compile(r"(input|output|middle)_blocks?\.(\d+)\.(?:(\d+)\.)?transformer_blocks\.(\d+)\.attn2\.to_k\.weight")
_DIFFUSERS = re.compile(
    r"(down|up|mid)_blocks?\.(?:(\d+)\.)?attentions\.(\d+)\.transformer_blocks\.(\d+)\.attn2\.to_k\.weight"
)
_ORDER = {"input": 0, "down": 0, "output": 1, "up": 1, "middle": 2, "mid": 2}

_OTHER_FAMILIES = (
    (r"\.time_stack\.|temporal_transformer|motion_modules", "a video model"),
    (r"(^|\.)joint_blocks\.", "SD3"),
    (r"(^|\.)double_blocks\.", "Flux or a relative of it"),
    (r"(^|\.)(transformer_blocks|blocks|layers|double_layers|single_transformer_blocks)\.\d+\.", "a transformer model"),
)


@dataclass(frozen=True)
class ModelHeader:
    family: str
    """In words; if no family is known, what the layers are."""
    layout: AdapterLayout | None
    """The cross-attention layers; None if there are none that SUN could work on."""


def read_model_header(path: str | Path) -> ModelHeader | None:
    """Say what a checkpoint or diffusion model file holds; None if it cannot be read as safetensors."""
    try:
        tensors = read_header(path).tensors
    except (SafetensorError, OSError):
        return None
    shapes = {key: tensor.shape for key, tensor in tensors.items() if key.endswith("attn2.to_k.weight")}
    return model_header(list(tensors), shapes)


def model_header(keys: list[str], shapes: Mapping[str, tuple[int, ...]]) -> ModelHeader:
    """Recognise a model by its tensor names and the shapes of the to_k weights of cross-attention."""
    for pattern, family in _OTHER_FAMILIES[:1]:
        if any(re.search(pattern, key) for key in keys):
            return ModelHeader(family, None)
    places = {}
    for key, shape in shapes.items():
        place = _place(key)
        if place is not None and len(shape) == 2:
            places[place] = (shape[0], shape[1])
    if places:
        layers = {2 * position + 1: places[place] for position, place in enumerate(sorted(places))}
        layout = AdapterLayout(layers, extra_positive=False)
        return ModelHeader(layout.family or layout.describe(), layout)
    for pattern, family in _OTHER_FAMILIES:
        if any(re.search(pattern, key) for key in keys):
            return ModelHeader(family, None)
    return ModelHeader(Text("no U-Net with cross-attention"), None)


def _place(key: str) -> tuple[int, ...] | None:
    """Where a cross-attention layer stands in the order of official adapter files: down, up, then middle."""
    for prefix in _PREFIXES:
        if not key.startswith(prefix):
            continue
        inner = key.removeprefix(prefix)
        match = _LDM.fullmatch(inner) or _DIFFUSERS.fullmatch(inner)
        if match is not None:
            return (_ORDER[match[1]], *(int(number or 0) for number in match.groups()[1:]))
    return None
