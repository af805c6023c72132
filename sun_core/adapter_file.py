"""What makes a file a SUN adapter, and one sentence for every other file."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from .errors import SunError, Text
from .safetensors_file import CutShortError, Header, read_header

ADVICE = Text("choose a SUN adapter (.safetensors)")
USUAL_STEPS = 4
"""What adapters are distilled for whose metadata say nothing, such as the released ones."""
LARGEST_ADAPTER = 8 * 2**30
"""Bytes; SDXL's in fp32 has under 3 GB."""

_KEY = re.compile(r"(?:0|[1-9][0-9]{0,3})\.(to_[kv]_(neg|extra_pos)\.weight|to_k_(neg|extra_pos)_(alpha|beta))")
_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
_FAMILIES = {(16, 768): "Stable Diffusion 1.x", (16, 1024): "Stable Diffusion 2.x", (70, 2048): "SDXL"}

_OTHER_FORMATS = (
    (b"PK\x03\x04", "a pickle checkpoint (.pt/.ckpt/.bin in a zip), which can run code when opened"),
    (b"\x80", "a Python pickle, which can run code when opened"),
    (b"GGUF", "a GGUF model"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"<", "a web page, not the file itself"),
)
_OTHER_MODELS = (
    (r"lora_|\.lora\.|lokr_|hada_|oft_|\.diff$|\.alpha$", "a LoRA", "load it with Load LoRA"),
    (r"model\.diffusion_model\.|first_stage_model\.", "a whole checkpoint", "load it with Load Checkpoint"),
    (r"ip_adapter\.|image_proj\.", "an IP-Adapter", "load it with an IP-Adapter node"),
    (r"control_model\.|controlnet_|zero_convs\.", "a ControlNet", "load it with Load ControlNet Model"),
    (
        r"double_blocks\.|joint_blocks\.|input_blocks\.|down_blocks\.",
        "a diffusion model",
        "load it with its own loader",
    ),
    (r"decoder\.|encoder\.(?:down|conv|mid)|taesd_", "a VAE", "load it with Load VAE"),
    (
        r"text_model\.|transformer\.|encoder\.block|emb_params",
        "a text encoder or embedding",
        "load it with its own loader",
    ),
)


@dataclass(frozen=True)
class AdapterLayout:
    """The shape of an adapter: what decides which models it fits."""

    layers: dict[int, tuple[int, int]]
    """(hidden_dim, context_dim) of each cross-attention layer, by official number."""
    extra_positive: bool

    @property
    def context_dim(self) -> int:
        return next(iter(self.layers.values()))[1]

    @property
    def family(self) -> str:
        """The family's name if the layout gives it away, else ''."""
        return _FAMILIES.get((len(self.layers), self.context_dim), "")

    def describe(self) -> Text:
        return Text(
            "{family} with {count} cross-attention layers and text width {width}",
            family=self.family or Text("a model"),
            count=len(self.layers),
            width=self.context_dim,
        )

    def first_difference(self, model: "AdapterLayout") -> Text:
        """Where two layouts that are not equal differ first, in words."""
        for number in sorted(self.layers.keys() | model.layers.keys()):
            mine, its = self.layers.get(number), model.layers.get(number)
            if mine is None:
                return Text("the adapter lacks layer {number}", number=number)
            if its is None:
                return Text("the MODEL has no layer {number}", number=number)
            if mine != its:
                return Text(
                    "layer {number} is {mine} in the adapter and {its} in the MODEL",
                    number=number,
                    mine=f"{mine[0]}x{mine[1]}",
                    its=f"{its[0]}x{its[1]}",
                )
        return Text("they have the same layers")


def read_layout(path: str | Path) -> tuple[AdapterLayout, torch.dtype, dict[str, str]]:
    """Read layout, dtype and metadata of an adapter file from its header alone; SunError for any other file."""
    name = Path(path).name
    try:
        header = read_header(path)
    except FileNotFoundError:
        raise SunError(
            "The SUN adapter {name} is not there any more; put it back, or {advice}.", name=name, advice=ADVICE
        ) from None
    except (SafetensorError, OSError) as error:
        what = _what_it_is_instead(path, error)
        raise SunError("{name} is {what}; {advice}.", name=name, what=what, advice=ADVICE) from error
    layout = layout_of(name, {key: tensor.shape for key, tensor in header.tensors.items()})
    return layout, _dtype(name, header), header.metadata


def family_of(layout: AdapterLayout, metadata: Mapping[str, str]) -> str:
    """Return the family that an adapter's layout gives away, else what its metadata say; '' if they do not."""
    return layout.family or metadata.get("family", "")[:100]


def steps_of(metadata: Mapping[str, str]) -> int:
    """Return how many steps an adapter is distilled for by its metadata, which may say anything."""
    steps = metadata.get("steps", "")
    is_number = steps.isascii() and steps.isdigit() and len(steps) < 4
    return int(steps) if is_number and 1 <= int(steps) <= 100 else USUAL_STEPS


def _dtype(name: str, header: Header) -> torch.dtype:
    """Find the dtype that holds all weights; raises SunError for integers, and for sizes that do not add up."""
    dtypes = {tensor.dtype for tensor in header.tensors.values()}
    if other := sorted(dtypes - _DTYPES.keys()):
        raise SunError(
            "{name} has weights of type {other}, but SUN adapters are F16, BF16 or F32; {advice}.",
            name=name,
            other=other[0],
            advice=ADVICE,
        )
    for key, tensor in header.tensors.items():
        if tensor.size != math.prod(tensor.shape) * _DTYPES[tensor.dtype].itemsize:
            raise SunError(
                "{name} is damaged: {key} has {size} bytes, which is not the size of {shape} in {dtype}; download it "
                "again, or {advice}.",
                name=name,
                key=key,
                size=f"{tensor.size:,}",
                shape=tensor.shape,
                dtype=tensor.dtype,
                advice=ADVICE,
            )
    if sum(tensor.size for tensor in header.tensors.values()) > LARGEST_ADAPTER:
        raise SunError(
            "{name} has more than {size} GB, which no SUN adapter has; {advice}.",
            name=name,
            size=LARGEST_ADAPTER // 2**30,
            advice=ADVICE,
        )
    return _DTYPES[dtypes.pop()] if len(dtypes) == 1 else torch.float32


def layout_of(name: str, shapes: Mapping[str, tuple[int, ...]]) -> AdapterLayout:
    """Return the layout that these tensors make; raises SunError unless they make a whole SUN adapter."""
    foreign = [key for key in shapes if not _KEY.fullmatch(key)]
    if len(foreign) == len(shapes):
        raise SunError("{name} is {what}.", name=name, what=_other_model(shapes))
    if foreign:
        raise SunError(
            "{name} has keys that no SUN adapter has, such as {key}; {advice}.",
            name=name,
            key=json.dumps(foreign[0][:80]),
            advice=ADVICE,
        )

    numbers = {int(key.split(".")[0]) for key in shapes}
    for number in range(1, max(numbers) + 1, 2):
        if number not in numbers:
            raise SunError(
                "{name} is incomplete: layer {number} is missing; download it again, or {advice}.",
                name=name,
                number=number,
                advice=ADVICE,
            )
    if even := sorted(number for number in numbers if number % 2 == 0):
        raise SunError(
            "{name} has a layer {number}, but SUN adapters number their layers 1, 3, 5, ...; {advice}.",
            name=name,
            number=even[0],
            advice=ADVICE,
        )

    extra_positive = any("extra_pos" in key for key in shapes)
    layers = {number: _layer_dims(name, number, shapes, extra_positive) for number in sorted(numbers)}
    widths = {context_dim for _, context_dim in layers.values()}
    if len(widths) > 1:
        raise SunError(
            "{name} mixes the text widths {widths}, but all its layers must have one; {advice}.",
            name=name,
            widths=sorted(widths),
            advice=ADVICE,
        )
    return AdapterLayout(layers, extra_positive)


def check_tensors(path: str | Path, state: Mapping[str, Tensor]) -> None:
    """Raise SunError if a weight is NaN or infinite."""
    for key, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise SunError(
                "{name} is damaged: {key} has values that are not numbers (NaN or infinite); download it again, or "
                "{advice}.",
                name=Path(path).name,
                key=key,
                advice=ADVICE,
            )


def _layer_dims(name: str, number: int, shapes: Mapping[str, tuple[int, ...]], extra_positive: bool) -> tuple[int, int]:
    """(hidden_dim, context_dim) of one layer, all of whose tensors must be there and agree."""
    expected: dict[str, tuple[int, ...]] = {}
    weight = shapes.get(f"{number}.to_k_neg.weight", (0, 0))
    if len(weight) != 2:
        raise SunError(
            "{name} is damaged: {key} should be a matrix and is {shape}; {advice}.",
            name=name,
            key=f"{number}.to_k_neg.weight",
            shape=weight,
            advice=ADVICE,
        )
    hidden_dim, context_dim = weight
    if 0 in weight and f"{number}.to_k_neg.weight" in shapes:
        raise SunError(
            "{name} is damaged: {key} has no values {shape}; {advice}.",
            name=name,
            key=f"{number}.to_k_neg.weight",
            shape=weight,
            advice=ADVICE,
        )
    for branch in ("neg", "extra_pos") if extra_positive else ("neg",):
        expected |= {f"{number}.to_{kv}_{branch}.weight": (hidden_dim, context_dim) for kv in "kv"}
        expected |= {f"{number}.to_k_{branch}_{scale}": (hidden_dim,) for scale in ("alpha", "beta")}
    for key, shape in expected.items():
        if key not in shapes:
            raise SunError(
                "{name} is incomplete: {key} is missing; download it again, or {advice}.",
                name=name,
                key=key,
                advice=ADVICE,
            )
        if shapes[key] != shape:
            raise SunError(
                "{name} is damaged: {key} has the shape {found} instead of {shape}; {advice}.",
                name=name,
                key=key,
                found=shapes[key],
                shape=shape,
                advice=ADVICE,
            )
    return hidden_dim, context_dim


def _what_it_is_instead(path: str | Path, error: SafetensorError | OSError) -> Text:
    """Say what a file is that safetensors cannot read, from its first bytes."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            size = file.seek(0, 2)
    except OSError as unreadable:
        return Text("a file that cannot be read ({why})", why=unreadable.strerror)
    if size == 0:
        return Text("an empty file")
    for magic, what in _OTHER_FORMATS:
        if head.startswith(magic):
            return Text(what)
    if len(head) > 8 and head[8:9] == b"{":
        if isinstance(error, CutShortError):
            return Text(
                "a damaged safetensors file, probably a download that was cut short ({size} bytes)", size=f"{size:,}"
            )
        return Text("a safetensors file with an unreadable header ({why})", why=_why(error))
    return Text("not a safetensors file ({why})", why=_why(error))


def _why(error: SafetensorError | OSError) -> object:
    """Return why `read_header` failed: a Text, or the words of the operating system."""
    return error.strerror if isinstance(error, OSError) else error.args[0]


def _other_model(keys: Iterable[str]) -> Text:
    """Say what a safetensors file without a single SUN key is, from its keys."""
    keys = list(keys)
    for pattern, what, loading in _OTHER_MODELS:
        if any(re.search(pattern, key) for key in keys):
            return Text(
                "{what}, not a SUN adapter; {loading} and {advice} here",
                what=Text(what),
                loading=Text(loading),
                advice=ADVICE,
            )
    if not keys:
        return Text("not a SUN adapter (it has no tensors at all); {advice}", advice=ADVICE)
    key = json.dumps(keys[0][:80])
    return Text("not a SUN adapter (its first key is {key}); {advice}", key=key, advice=ADVICE)
