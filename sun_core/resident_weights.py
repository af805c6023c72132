"""Where the weights of a U-Net lie in a GPU's memory, and whether they stay there: a CUDA graph reads them in place."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

SMALL = 2**16
"""Bytes up to which a graph has its own copy of a weight: with dynamic VRAM, ComfyUI makes these anew for each run."""


class CannotCapture(Exception):
    """Why a forward runs eagerly, in words for the report."""


@dataclass
class ResidentWeights:
    """The weights at the beginning of a run."""

    large: tuple[Hashable, ...]
    """Address, shape, strides and dtype of each large one."""
    small: list[tuple[dict[str, Any], str]]
    """The small ones: a module's parameters or buffers, and a name in them."""
    modules: tuple[Any, ...] = ()
    """The kind of each module, and how it pads."""
    block: Any = None
    """The range of ComfyUI's dynamic VRAM that holds the rest, None without dynamic VRAM."""

    def small_tensors(self) -> list[Tensor]:
        """Return the small weights as they are now."""
        return [owner[name].detach() for owner, name in self.small]

    def copy_small(self) -> list[Tensor]:
        """Copy the small weights."""
        return [tensor.clone() for tensor in self.small_tensors()]

    @contextmanager
    def replaced_small(self, copies: list[Tensor]) -> Iterator[None]:
        """Within, the modules have `copies` as their small weights."""
        own = [owner[name] for owner, name in self.small]
        for (owner, name), copy in zip(self.small, copies, strict=True):
            owner[name] = nn.Parameter(copy, requires_grad=False) if isinstance(owner[name], nn.Parameter) else copy
        try:
            yield
        finally:
            for (owner, name), tensor in zip(self.small, own, strict=True):
                owner[name] = tensor

    def is_where(self, other: "ResidentWeights") -> bool:
        """Say whether the large weights lie where the others lay, and the small ones are of the same kind."""
        mine, others = ([(t.shape, t.dtype) for t in weights.small_tensors()] for weights in (self, other))
        kept = (self.large, self.modules, self.block) == (other.large, other.modules, other.block)
        return kept and mine == others


def resident_weights(unet: nn.Module, device: torch.device) -> ResidentWeights:
    """Find where the weights of `unet` lie; raises CannotCapture unless all of them are ready on `device`."""
    large: list[Hashable] = []
    small: list[tuple[dict[str, Any], str]] = []
    ranges: list[Any] = []
    kinds: list[Any] = []
    for module in unet.modules():
        _check_module(module)
        kinds.append((type(module), getattr(module, "padding_mode", None)))
        if getattr(module, "weight_function", None) or getattr(module, "bias_function", None):
            raise CannotCapture("weights are patched while the model runs")
        streamed: tuple[str, ...] = ()
        if getattr(module, "_v", None) is not None:
            if getattr(module, "_v_signature", None) is None:
                raise CannotCapture("weights are still being loaded")
            ranges.append(module._v)
            streamed = ("weight", "bias")
        for owner in (module._parameters, module._buffers):
            for name, tensor in owner.items():
                if tensor is None or name in streamed:
                    continue
                if type(tensor) not in (Tensor, nn.Parameter):
                    raise CannotCapture("weights are quantised by another pack")
                if tensor.device != device:
                    raise CannotCapture("the model is only partly on the GPU")
                if tensor.nbytes <= SMALL:
                    small.append((owner, name))
                else:
                    large.append((tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype))
    return ResidentWeights(tuple(large), small, tuple(kinds), _block(ranges))


def _check_module(module: nn.Module) -> None:
    """Raise CannotCapture if another pack may have changed what a module does."""
    changed = (
        name
        for name, value in vars(module).items()
        if callable(value) and not isinstance(value, nn.Module) and not name.endswith("_lowvram_function")
    )
    if module._forward_hooks or module._forward_pre_hooks or any(changed):
        raise CannotCapture("another node changes the U-Net's modules")
    if not type(module).__module__.startswith(("comfy.", "torch.nn.")):
        raise CannotCapture("another pack brings modules of its own")


def _block(ranges: list[tuple[Any, int, int]]) -> Any:
    """Return the one range (owner, address, size) around all ranges of dynamic VRAM, as ComfyUI does for its graphs."""
    if not ranges:
        return None
    if any(owner is not ranges[0][0] for owner, _, _ in ranges):
        raise CannotCapture("weights lie in several places")
    start = min(address for _, address, _ in ranges)
    return ranges[0][0], start, max(address + size for _, address, size in ranges) - start


@contextmanager
def pinned(block: Any) -> Iterator[bytes | None]:
    """Keep dynamic VRAM's weights where they are; give the signature of their pages, None if they are not there."""
    if block is None:
        yield b""
        return
    import comfy_aimdo.model_vbar as vbar  # with ComfyUI since 0.33

    signature = vbar.vbar_fault(block)
    try:
        yield None if signature is None else bytes(signature)
    finally:
        vbar.vbar_unpin(block)
