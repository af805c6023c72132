"""The frozen U-Net of a MODEL as what distillation needs: one noise predictor for teacher and student alike."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_sampling
import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..apply import has_sun
from ..errors import SunError
from ..layers import cross_attention_layers

TIMESTEPS = 1000  # LCM's schedule, whose prediction is none of noise, has 50


class EpsUNet(nn.Module):
    """A MODEL's U-Net as a noise predictor on DDPM's variance-preserving scale, whatever it predicts itself.

    ComfyUI's own `apply_model` brings inputs to the U-Net's dtype, and knows eps and v prediction; here the noise is
    read off its denoised latent.
    """

    def __init__(self, base: BaseModel):
        super().__init__()
        self.base = base

    def forward(
        self, x: Tensor, t: Tensor, context: Tensor, y: Tensor | None = None, transformer_options: dict | None = None
    ) -> Tensor:
        """x: (rows, channels, height, width) at timesteps t (rows,); y: SDXL's vector of pooled text and sizes."""
        sigma = self.base.model_sampling.sigmas.to(x)[t.long()]
        options = {**(transformer_options or {}), "optimized_attention_override": _differentiable_attention}
        scaled = x * (1 + sigma**2).sqrt().view(-1, 1, 1, 1)
        extra = {} if y is None else {"y": y}
        denoised = self.base.apply_model(scaled, sigma, c_crossattn=context, transformer_options=options, **extra)
        return (scaled - denoised) / sigma.view(-1, 1, 1, 1)


def _differentiable_attention(_: Any, *args: Any, **kwargs: Any) -> Tensor:
    """torch's attention, in place of whichever ComfyUI runs with: some of those have no gradient."""
    return comfy.ldm.modules.attention.attention_pytorch(*args, **kwargs)


def alphas_of(model: ModelPatcher) -> Tensor:
    """(timesteps,) cumulative products of 1 - beta of the MODEL's noise schedule."""
    sigmas = model.get_model_object("model_sampling").sigmas.float().clone()
    return 1 / (1 + sigmas**2)


def check_teacher(model: ModelPatcher) -> None:
    """Raises SunError where no adapter can be distilled on this MODEL."""
    sampling, base = model.get_model_object("model_sampling"), model.model
    if not cross_attention_layers(base.diffusion_model):
        raise SunError(
            "This MODEL has no U-Net with cross-attention (it looks like Flux, SD3 or another transformer), so no SUN "
            "adapter can be trained for it; connect a Stable Diffusion 1.5, 2 or SDXL checkpoint."
        )
    if has_sun(model):
        raise SunError(
            "This MODEL has a SUN adapter on it already, and the teacher must be the plain model; connect the MODEL "
            "from before that node."
        )
    kinds = comfy.model_sampling
    predicts_noise = isinstance(sampling, kinds.EPS) and not isinstance(sampling, (kinds.X0, kinds.EDM))
    if not isinstance(sampling, kinds.ModelSamplingDiscrete) or not predicts_noise or len(sampling.sigmas) != TIMESTEPS:
        raise SunError(
            "This MODEL's noise schedule is not Stable Diffusion's (1000 timesteps, eps or v prediction), which SUN "
            "needs; connect the MODEL without a ModelSampling node, or another checkpoint."
        )
    if base.concat_keys or base.diffusion_model.in_channels != base.latent_format.latent_channels:
        raise SunError(
            "This MODEL is for inpainting or editing and takes a picture beside the latent; train on the checkpoint "
            "that it was made from, whose adapter fits it as well."
        )


def key_shapes_hash(unet: nn.Module) -> str:
    """What tells the family of a U-Net: a hash of its weights' names and shapes (16 hex digits)."""
    shapes = sorted(f"{key} {tuple(tensor.shape)}" for key, tensor in unet.state_dict().items())
    return hashlib.sha256("\n".join(shapes).encode()).hexdigest()[:16]


@contextmanager
def usable_for_autograd(module: nn.Module) -> Iterator[None]:
    """Within, weights that were loaded in inference mode, as ComfyUI's nodes load them, can take part in autograd.

    They are shown to autograd as ordinary tensors over the same memory; afterwards all is as before. No weight is held
    on to: ComfyUI may move them meanwhile, and that must free the memory that they leave.
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
    """Where the weights that were loaded in inference mode lie: a part's dictionary, and the name in it."""
    for part in module.modules():
        all_weights: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for weights in all_weights:
            for name, weight in weights.items():
                if weight is not None and weight.is_inference():
                    yield weights, name


def _anew(weight: Tensor) -> Tensor:
    """`weight` as a frozen tensor of the mode that we are in, inference or not; the memory is shared."""
    plain = torch.empty(0, dtype=weight.dtype, device=weight.device)
    plain.set_(weight.untyped_storage(), weight.storage_offset(), weight.size(), weight.stride())
    return nn.Parameter(plain, requires_grad=False) if isinstance(weight, nn.Parameter) else plain


def with_weights_that_stay(model: ModelPatcher) -> ModelPatcher:
    """`model` in a copy that is loaded as a whole, where ComfyUI streams its weights (dynamic VRAM, since 0.33).

    Streamed weights may be gone from the device by the time of the backward pass.
    Raises SunError where the loader of this MODEL cannot be asked for a copy.
    """
    is_dynamic = getattr(model, "is_dynamic", None)
    if is_dynamic is None or not is_dynamic():
        return model
    try:
        whole = model.clone(disable_dynamic=True)
    except RuntimeError as error:
        raise SunError(
            "This MODEL comes from a loader that cannot load it without dynamic VRAM, which training needs; use Load "
            "Checkpoint or Load Diffusion Model, or start ComfyUI with --disable-dynamic-vram."
        ) from error
    whole.model.diffusion_model.to(whole.model_dtype())  # ComfyUI left linear layers in the dtype of their file
    return whole
