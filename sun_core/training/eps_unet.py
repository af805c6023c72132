"""The U-Net of a MODEL as a noise predictor, whatever it predicts itself."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.ldm.modules.attention
import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ..attention_patch import OVERRIDE_KEY


class EpsUNet(nn.Module):
    """A MODEL's U-Net as a noise predictor on DDPM's variance-preserving scale.

    ComfyUI's own `apply_model` casts inputs to the U-Net's dtype, and knows eps and v prediction; the noise is
    computed from the denoised latent that it returns.
    """

    def __init__(self, base: BaseModel):
        super().__init__()
        self.base = base

    def forward(
        self, x: Tensor, t: Tensor, context: Tensor, y: Tensor | None = None, transformer_options: dict | None = None
    ) -> Tensor:
        """Predict the noise in x, (rows, channels, height, width), at timesteps t, (rows,).

        context: (rows, tokens, context_dim); y: SDXL's vector of pooled text and sizes, (rows, channels).
        """
        sigma = self.base.model_sampling.sigmas.to(x)[t.long()]
        options = {**(transformer_options or {}), OVERRIDE_KEY: _differentiable_attention}
        scaled = x * (1 + sigma**2).sqrt().view(-1, 1, 1, 1)
        extra = {} if y is None else {"y": y}
        with _constants_on(x.device, self.base.diffusion_model):
            denoised = self.base.apply_model(scaled, sigma, c_crossattn=context, transformer_options=options, **extra)
        return (scaled - denoised) / sigma.view(-1, 1, 1, 1)


@contextmanager
def _constants_on(device: torch.device, unet: nn.Module) -> Iterator[None]:
    """Make the constants of a U-Net's timestep embedding on its CUDA device.

    The newest cores make them on the CPU, and the copy to the device would let the host wait for all that the device
    has still to compute.
    """
    if device.type != "cuda":
        yield
        return
    with ExitStack() as mode, ExitStack() as hook:
        mode.enter_context(device)
        hook.callback(unet.get_submodule("time_embed").register_forward_pre_hook(lambda *_: mode.close()).remove)
        yield


def _differentiable_attention(
    _: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None, **kwargs: Any
) -> Tensor:
    """Use torch's attention in place of whichever ComfyUI runs with: some of those have no gradient."""
    if mask is None and not any(kwargs.get(name) for name in _OTHER_ATTENTION):
        return attention(q, k, v, heads)
    return comfy.ldm.modules.attention.attention_pytorch(q, k, v, heads, mask, **kwargs)


_OTHER_ATTENTION = ("skip_reshape", "skip_output_reshape", "scale", "enable_gqa")
"""What `attention` does not do; Stable Diffusion's U-Nets do not ask for it."""


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attend with the kernel that torch chooses: (rows, tokens, channels) each -> as q.

    ComfyUI always prefers the same one, which is slower than torch's choice on some GPUs.
    """
    rows, _, channels = q.shape
    q, k, v = (t.view(rows, -1, heads, channels // heads).transpose(1, 2) for t in (q, k, v))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, -1, channels)


def alphas_of(model: ModelPatcher) -> Tensor:
    """Compute the cumulative products of 1 - beta of the MODEL's noise schedule, (timesteps,)."""
    sigmas = model.get_model_object("model_sampling").sigmas.float().clone()
    return 1 / (1 + sigmas**2)
