"""LCM-LoRA (arXiv 2311.05556): latent consistency distillation (arXiv 2310.04378) of the guided model into a LoRA.

As in diffusers' train_lcm_distill_lora_sd: 50 DDIM timesteps, one step of the solver, the student without gradient as
its own target, pseudo-Huber loss on x_0, and the boundary condition of consistency models, which ComfyUI applies if
a MODEL's sampling is `lcm`. The guidance scale is fixed and not embedded. LoRA by the peft library. Other than
there, the rank is small, and the loop (schedule, batch, averaged weights) is that of the SUN runs.
"""

from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from sun_core.training.losses import add_noise, alpha_at, ddim_jump, guided

RANK = 4
"""Gives about as many parameters as the SUN adapter has."""
NOT_ADAPTED = ("time_embed", "input_blocks.0.0", "out.2")
"""As in diffusers' script, all other linear and convolutional layers are."""
DDIM_STEPS = 50
SIGMA_DATA, TIMESTEP_SCALING = 0.5, 10.0
HUBER_C = 0.001


def inject(unet: nn.Module) -> nn.Module:
    """Add a LoRA that starts at zero to `unet`, the only part of it that learns."""
    targets = [
        name
        for name, module in unet.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d)) and not name.startswith(NOT_ADAPTED)
    ]
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets)
    return inject_adapter_in_model(config, unet)


def enable(unet: nn.Module, enabled: bool) -> None:
    """Switch the LoRA on or off."""
    for module in unet.modules():
        if isinstance(module, BaseTunerLayer):
            module.enable_adapters(enabled)


def boundary(t: Tensor) -> tuple[Tensor, Tensor]:
    """Compute c_skip and c_out at timesteps t, (rows, 1, 1, 1): the identity at t = 0."""
    scaled = (t * TIMESTEP_SCALING).view(-1, 1, 1, 1)
    total = scaled.square() + SIGMA_DATA**2
    return SIGMA_DATA**2 / total, scaled / total.sqrt()


def consistency(unet: nn.Module, x: Tensor, t: Tensor, context: Tensor, alphas: Tensor) -> Tensor:
    """Evaluate the consistency function: x_0 as the student sees it from x_t."""
    a = alpha_at(alphas, t)
    x0 = (x - (1 - a).sqrt() * unet(x, t.float(), context=context)) / a.sqrt()
    c_skip, c_out = boundary(t)
    return c_skip * x + c_out * x0


def loss(unet: nn.Module, x0: Tensor, positive: Tensor, empty: Tensor, guidance: Tensor, alphas: Tensor) -> Tensor:
    """Compute the loss of latent consistency distillation.

    x0: latents (rows, channels, height, width); positive: contexts (rows, tokens, context_dim); empty: that of the
    empty prompt, (1, tokens, context_dim); guidance: (rows,).
    """
    stride = len(alphas) // DDIM_STEPS
    t = (torch.randint(DDIM_STEPS, (len(x0),)) + 1) * stride - 1
    t_next = t - stride  # CLEAN below the first
    x = add_noise(x0, torch.randn_like(x0), t, alphas)
    student = consistency(unet, x, t, positive, alphas)
    with torch.no_grad():
        enable(unet, False)
        context = torch.cat([empty.expand_as(positive), positive])
        eps_empty, eps_positive = unet(x.repeat(2, 1, 1, 1), t.float().repeat(2), context=context).chunk(2)
        enable(unet, True)
        x_next = ddim_jump(x, guided(eps_empty, eps_positive, guidance), t, t_next, alphas)
        target = consistency(unet, x_next, t_next.clamp(min=0), positive, alphas)
    return ((student - target).square() + HUBER_C**2).sqrt().mean() - HUBER_C


def save(trained: dict[str, Tensor], out: Path) -> None:
    """Write the LoRA, given by peft's names, as a file for ComfyUI's LoRA loader; fp16."""
    names = {".lora_A.default.weight": ".lora_down.weight", ".lora_B.default.weight": ".lora_up.weight"}
    state = {}
    for key, value in trained.items():
        ending = next(ending for ending in names if key.endswith(ending))
        state[f"diffusion_model.{key.removesuffix(ending)}{names[ending]}"] = value.half().contiguous()
    save_file(state, out, metadata={"format": "pt", "steps": "4"})
