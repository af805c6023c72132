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

from ..errors import SunError
from ..layers import cross_attention_layers
from ..patching import has_sun


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
    if not isinstance(sampling, kinds.ModelSamplingDiscrete) or not isinstance(sampling, kinds.EPS) or isinstance(
        sampling, (kinds.X0, kinds.EDM)
    ):  # fmt: skip
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

    They are shown to autograd as ordinary tensors over the same memory; afterwards all is as before.
    """
    replaced: list[tuple[dict[str, Any], str, Tensor]] = []
    for part in module.modules():
        all_weights: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for weights in all_weights:
            for name, weight in weights.items():
                if weight is not None and weight.is_inference():
                    replaced.append((weights, name, weight))
                    weights[name] = _ordinary(weight)
    try:
        yield
    finally:
        for weights, name, weight in replaced:
            if weights[name].device == weight.device:  # else ComfyUI has moved it meanwhile
                weights[name] = weight


def _ordinary(weight: Tensor) -> Tensor:
    """`weight` (made in inference mode) as an ordinary frozen tensor; the memory is shared."""
    plain = torch.empty(0, dtype=weight.dtype, device=weight.device)
    plain.set_(weight.untyped_storage(), weight.storage_offset(), weight.size(), weight.stride())
    return nn.Parameter(plain, requires_grad=False) if isinstance(weight, nn.Parameter) else plain
