"""Where the weights of a U-Net lie in a GPU's memory, and whether they stay there: a CUDA graph reads them in place."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

SMALL = 2**16
"""Bytes up to which a graph has its own copy of a weight: with dynamic VRAM, ComfyUI makes these anew for each run."""


_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""Attributes that torch gives every module."""


class CannotCapture(Exception):
    """Why a forward runs eagerly, in words for the report."""


@dataclass
class ResidentWeights:
    """The weights at the beginning of a run."""

    large: tuple[Hashable, ...]
    """Address, shape, strides and dtype of each large one."""
    small: list[tuple[dict[str, Any], str]]
    """The small ones: a module's parameters or buffers, and a name in them."""
    kinds: tuple[Hashable, ...] = ()
    """Shape and dtype of each small one, the kind of each module, and how it pads."""
    block: Any = None
    """The range of ComfyUI's dynamic VRAM that holds the rest, None without dynamic VRAM."""

    def small_tensors(self) -> list[Tensor]:
        """Return the small weights as they are now."""
        return [owner[name] for owner, name in self.small]

    @torch.no_grad()
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
        return (self.large, self.kinds, self.block) == (other.large, other.kinds, other.block)


def resident_weights(unet: nn.Module, device: torch.device) -> ResidentWeights:
    """Find where the weights of `unet` lie; raises CannotCapture unless all of them are ready on `device`.

    Every run asks for it, so attributes are read from a module's own dict: torch is slow to look for one that a module
    lacks.
    """
    large: list[Hashable] = []
    small: list[tuple[dict[str, Any], str]] = []
    kinds: list[Hashable] = []
    ranges: list[Any] = []
    classes: set[type] = set()
    for module, own in _modules(unet):
        _check_attributes(own)
        classes.add(type(module))
        kinds.append((type(module), own.get("padding_mode")))
        streamed: tuple[str, ...] = ()
        if own.get("_v") is not None:
            if own.get("_v_signature") is None:
                raise CannotCapture("weights are still being loaded")
            ranges.append(own["_v"])
            streamed = ("weight", "bias")
        for owner in (own["_parameters"], own["_buffers"]):
            for name, tensor in owner.items():
                if tensor is None or name in streamed:
                    continue
                if type(tensor) not in (Tensor, nn.Parameter):
                    raise CannotCapture("weights are quantised by another pack")
                if tensor.device != device:
                    raise CannotCapture("the model is only partly on the GPU")
                if tensor.nbytes <= SMALL:
                    small.append((owner, name))
                    kinds.append((tensor.shape, tensor.dtype))
                else:
                    large.append((tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype))
    for kind in classes:
        _check_class(kind)
    return ResidentWeights(tuple(large), small, tuple(kinds), _block(ranges))


def _modules(unet: nn.Module) -> Iterator[tuple[nn.Module, dict[str, Any]]]:
    """Give each module of `unet` once, and its attributes, sooner than `unet.modules()` does."""
    waiting, seen = [unet], {id(unet)}
    while waiting:
        module = waiting.pop()
        own = vars(module)
        yield module, own
        for child in own["_modules"].values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                waiting.append(child)


def _check_attributes(own: dict[str, Any]) -> None:
    """Raise CannotCapture if another pack may have changed what a module with these attributes does."""
    if own.get("weight_function") or own.get("bias_function"):
        raise CannotCapture("weights are patched while the model runs")
    if own["_forward_hooks"] or own["_forward_pre_hooks"]:
        raise CannotCapture("another node changes the U-Net's modules")
    for name in _of_its_own(tuple(own)):
        if callable(own[name]) and not isinstance(own[name], nn.Module):
            raise CannotCapture("another node changes the U-Net's modules")


@lru_cache(maxsize=512)
def _of_its_own(names: tuple[str, ...]) -> list[str]:
    """Return which of a module's attributes could be functions that a pack has put there; few sets of names occur."""
    return [name for name in names if name not in _OF_EVERY_MODULE and not name.endswith("_lowvram_function")]


def _check_class(kind: Any) -> None:
    """Raise CannotCapture if modules of this class are not ComfyUI's or torch's own, or all have patches."""
    if not kind.__module__.startswith(("comfy.", "torch.nn.")):
        raise CannotCapture("another pack brings modules of its own")
    if getattr(kind, "weight_function", None) or getattr(kind, "bias_function", None):
        raise CannotCapture("weights are patched while the model runs")


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
        if signature is not None:
            vbar.vbar_unpin(block)
