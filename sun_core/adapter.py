"""SunAdapter: the weights that SUN adds to a U-Net's cross-attention layers, and their files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from .adapter_file import ADVICE, AdapterLayout, check_tensors, layout_of, read_layout, steps_of
from .errors import SunError
from .layers import CrossAttentionLayer, cross_attention_layers
from .whole_file import whole_file

NEGATIVE, EXTRA_POSITIVE = "neg", "extra_pos"
"""The branches, as official files name them."""


class SunLayer(nn.Module):
    """The adapter of one cross-attention layer; parameter names are those of official files (SUNAttnProcessor).

    The linear layers cast their weights to what they are given, so that an adapter can be kept in fp16, offloaded and
    loaded in part by ComfyUI; the alphas and betas are cast where they are used.
    """

    def __init__(self, hidden_dim: int, context_dim: int, extra_positive: bool, dtype: torch.dtype):
        super().__init__()
        self.hidden_dim, self.context_dim = hidden_dim, context_dim

        def linear() -> nn.Module:
            return comfy.ops.manual_cast.Linear(context_dim, hidden_dim, bias=False, dtype=dtype)

        self.to_k_neg, self.to_v_neg = linear(), linear()
        self.to_k_neg_alpha = nn.Parameter(torch.ones(hidden_dim, dtype=dtype))
        self.to_k_neg_beta = nn.Parameter(torch.zeros(hidden_dim, dtype=dtype))
        if extra_positive:
            self.to_k_extra_pos, self.to_v_extra_pos = linear(), linear()
            self.to_k_extra_pos_alpha = nn.Parameter(torch.ones(hidden_dim, dtype=dtype))
            self.to_k_extra_pos_beta = nn.Parameter(torch.zeros(hidden_dim, dtype=dtype))

    def keys_values(self, branch: str, context: Tensor) -> tuple[Tensor, Tensor]:
        """Project a context for a branch: (rows, tokens, context_dim) -> K and V, each (rows, tokens, hidden_dim)."""
        k, v = (self._modules[f"to_{kv}_{branch}"] for kv in "kv")  # getattr takes long
        return _project(k, context), _project(v, context)

    def per_channel(self, branch: str, which: str) -> Tensor:
        """Return the "alpha" or "beta" of a branch: (hidden_dim,)."""
        return cast(Tensor, self._parameters[f"to_k_{branch}_{which}"])  # getattr takes long


def _project(linear: Any, context: Tensor) -> Tensor:
    """Call a linear layer, without the half of its time that ComfyUI's casting takes if there is nothing to cast."""
    weight = linear.weight
    if weight.dtype != context.dtype or weight.device != context.device or linear.weight_function:
        return linear(context)
    return nn.functional.linear(context, weight)


class SunAdapter(nn.ModuleDict):
    """One SunLayer per cross-attention layer of a model family, by official number ("1", "3", ...).

    `state_dict()` has exactly the keys of an official adapter file.
    """

    def __init__(self, layout: AdapterLayout, dtype: torch.dtype = torch.float32):
        super().__init__(
            {
                str(number): SunLayer(hidden_dim, context_dim, layout.extra_positive, dtype)
                for number, (hidden_dim, context_dim) in layout.layers.items()
            }
        )
        self.layout = layout
        self.metadata: dict[str, str] = {}
        self.patcher: ModelPatcher | None = None
        """What ComfyUI's model management knows the adapter by, once it is on a MODEL (see apply.py)."""

    def __getitem__(self, number: str) -> SunLayer:
        return cast(SunLayer, super().__getitem__(number))

    @property
    def by_number(self) -> dict[str, SunLayer]:
        """The layers by number; to look one up in a ModuleDict takes long."""
        return cast(dict[str, SunLayer], self._modules)

    @property
    def steps(self) -> int:
        """How many steps it is distilled for."""
        return steps_of(self.metadata)

    def copy(self, dtype: torch.dtype | None = None) -> "SunAdapter":
        """Copy the weights (in `dtype`) and the metadata; ComfyUI's model management does not know the copy yet."""
        dtype = dtype or self.dtype
        copy = SunAdapter(self.layout, dtype)
        copy.load_state_dict({key: weight.to(dtype) for key, weight in self.state_dict().items()})
        copy.metadata = dict(self.metadata)
        return copy.to(next(self.parameters()).device)

    @classmethod
    def for_unet(cls, unet: nn.Module, extra_positive: bool = True, alpha: float = 1.0) -> "SunAdapter":
        """Make an untrained fp32 adapter for `unet`: each layer starts from its own to_k and to_v, with beta 0.

        Raises SunError if `unet` has no cross-attention layers.
        """
        layers = cross_attention_layers(unet)
        adapter = cls(unet_layout(layers, extra_positive))
        state: dict[str, Tensor] = {}
        for layer in layers:
            for branch in (NEGATIVE, EXTRA_POSITIVE) if extra_positive else (NEGATIVE,):
                for kv, own in (("k", layer.attention.to_k), ("v", layer.attention.to_v)):
                    state[f"{layer.number}.to_{kv}_{branch}.weight"] = own.weight.detach().to("cpu", torch.float32)
                state[f"{layer.number}.to_k_{branch}_alpha"] = torch.full((layer.hidden_dim,), alpha)
                state[f"{layer.number}.to_k_{branch}_beta"] = torch.zeros(layer.hidden_dim)
        adapter.load_state_dict(state)  # with dynamic VRAM, ComfyUI's layers have no weights before
        return adapter

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


def unet_layout(layers: list[CrossAttentionLayer], extra_positive: bool = True) -> AdapterLayout:
    """Return the layout of adapters for a U-Net with these layers; raises SunError if there are none."""
    if not layers:
        raise SunError(
            "This MODEL has no U-Net with cross-attention (it looks like Flux, SD3 or another transformer), and there "
            "is no place in it for SUN; connect a Stable Diffusion 1.5 checkpoint."
        )
    return AdapterLayout({layer.number: (layer.hidden_dim, layer.context_dim) for layer in layers}, extra_positive)


def check_fit(adapter: SunAdapter, layers: list[CrossAttentionLayer]) -> None:
    """Raise a SunError that describes both if `adapter` was not made for a U-Net with these layers."""
    model = unet_layout(layers, adapter.layout.extra_positive)
    if adapter.layout.layers == model.layers:
        return
    raise SunError(
        "This SUN adapter does not fit this MODEL: the adapter is for {its}, the MODEL is {model}; {difference}; "
        "choose an adapter that was made for this model family.",
        its=adapter.layout.describe(),
        model=model.describe(),
        difference=adapter.layout.first_difference(model),
    )


def load_adapter(path: str | Path) -> SunAdapter:
    """Read an official adapter file or one of our own (safetensors; fp16, bf16 or fp32, kept as they are).

    Raises SunError, one sentence that says what the file is, for everything that is not a whole and finite SUN adapter.
    """
    layout, dtype, metadata = read_layout(path)
    state = _read_tensors(Path(path), layout)
    check_tensors(path, state)
    adapter = SunAdapter(layout, dtype)
    adapter.load_state_dict(state)
    adapter.requires_grad_(False)
    adapter.metadata = metadata
    return adapter


def _read_tensors(path: Path, layout: AdapterLayout) -> dict[str, Tensor]:
    """Read the weights of a file whose header has been checked; raises SunError if the file changes meanwhile."""
    changed = SunError(
        "{name} changed while it was being read; queue again, or {advice}.", name=path.name, advice=ADVICE
    )
    try:
        before = path.stat()
        content = path.read_bytes()  # not through mmap, see safetensors_file.py
        after = path.stat()
    except OSError as error:
        raise SunError(
            "{name} can no longer be read ({why}); queue again, or {advice}.",
            name=path.name,
            why=error.strerror,
            advice=ADVICE,
        ) from error
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise changed
    try:
        state = load(content)
    except SafetensorError as error:
        raise SunError(
            "{name} has a damaged header; download it again, or {advice}.", name=path.name, advice=ADVICE
        ) from error
    if layout_of(path.name, {key: tuple(tensor.shape) for key, tensor in state.items()}) != layout:
        raise changed
    return state


def save_adapter(
    adapter: SunAdapter, path: str | Path, metadata: Mapping[str, str], dtype: torch.dtype = torch.float16
) -> None:
    """Write `adapter` under the official keys, with `metadata` (family, steps, recipe, ...) in the header.

    A file that is already there is replaced only once the new one is whole. Raises SunError if a weight is too large
    for `dtype`, or not a number.
    """
    state = {key: tensor.detach().to("cpu", dtype).contiguous() for key, tensor in adapter.state_dict().items()}
    if any(not torch.isfinite(tensor).all() for tensor in state.values()):
        raise SunError(
            "The adapter was not saved: it has weights that are not numbers in {dtype} (NaN or too large); train it "
            "again with a lower learning rate.",
            dtype=str(dtype).removeprefix("torch."),
        )
    with whole_file(path) as file:
        file.write(save(state, metadata={**adapter.metadata, **metadata}))
