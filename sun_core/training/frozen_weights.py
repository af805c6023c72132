"""The weights of a MODEL while it trains an adapter: frozen, whole on the device, and usable by autograd."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..errors import SunError


@contextmanager
def usable_for_autograd(module: nn.Module) -> Iterator[None]:
    """Let weights that were loaded in inference mode, as ComfyUI's nodes load them, take part in autograd.

    Inside the context they are ordinary tensors over the same memory; afterwards all is as before. No reference to a
    weight is kept: ComfyUI may move weights meanwhile, and that must free the memory that they leave.
    """
    replaced = list(_of_inference_mode(module))
    for weights, name in replaced:
        weights[name] = _anew(weights[name])
    try:
        yield
    finally:
        with torch.inference_mode():
            for weights, name in replaced:
                weights[name] = _anew(weights[name])


def _of_inference_mode(module: nn.Module) -> Iterator[tuple[dict[str, Any], str]]:
    """Find the weights that were loaded in inference mode: the dictionary of a submodule, and the name in it."""
    for part in module.modules():
        all_weights: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for weights in all_weights:
            for name, weight in weights.items():
                if weight is not None and weight.is_inference():
                    yield weights, name


def _anew(weight: Tensor) -> Tensor:
    """Make a frozen tensor of the present mode, inference or not, over the memory of `weight`."""
    plain = torch.empty(0, dtype=weight.dtype, device=weight.device)
    plain.set_(weight.untyped_storage(), weight.storage_offset(), weight.size(), weight.stride())
    return nn.Parameter(plain, requires_grad=False) if isinstance(weight, nn.Parameter) else plain


@contextmanager
def channels_last(module: nn.Module) -> Iterator[None]:
    """Keep the weights of convolutions in the memory order that tensor cores compute in; afterwards as before.

    Otherwise cuDNN converts the input and the output of each convolution. ComfyUI may move weights meanwhile.
    """
    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    for convolution in convolutions:
        convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
    try:
        yield
    finally:
        for convolution in convolutions:
            convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.contiguous_format)


def with_weights_that_stay(model: ModelPatcher) -> ModelPatcher:
    """Return `model`, or a copy that is loaded whole if ComfyUI streams its weights (dynamic VRAM, since 0.33).

    Streamed weights may have left the device by the time of the backward pass. Raises SunError if this MODEL comes
    from a loader that cannot make a copy.
    """
    is_dynamic = getattr(model, "is_dynamic", None)
    if is_dynamic is None or not is_dynamic():
        return model
    try:
        whole = model.clone(disable_dynamic=True)
    except RuntimeError as error:
        raise SunError(
            "Training cannot use dynamic VRAM, and the loader of this MODEL loads it in no other way; use Load "
            "Checkpoint or Load Diffusion Model, or start ComfyUI with --disable-dynamic-vram."
        ) from error
    whole.model.diffusion_model.to(whole.model_dtype())  # ComfyUI left linear layers in the dtype of their file
    return whole
