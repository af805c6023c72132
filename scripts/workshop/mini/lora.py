"""A community style as a LoRA file, as artists share them: low-rank changes of the base U-Net's weights."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from . import base
from .loop import averaged, optimize, schedule

RANK = 4
SCHEDULE = schedule(steps=400, learning_rate=4e-3, warmup=50, ema=0.99)


class LowRank(nn.Module):
    """W + up · down, for the weight of a Linear (out, in) or a Conv2d (out, in, k, k)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(RANK, *weight.shape[1:]) / weight[0].numel() ** 0.5)
        self.up = nn.Parameter(torch.zeros(weight.shape[0], RANK))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down.flatten(1)).view_as(weight)


def add_lora(unet: nn.Module) -> dict[str, LowRank]:
    """Put a LoRA on every layer in which it is smaller than the weight; return them by the layer's name."""
    layers = {name: m for name, m in unet.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    out = {}
    for name, layer in layers.items():
        change = LowRank(layer.weight)
        if sum(p.numel() for p in change.parameters()) < layer.weight.numel():
            parametrize.register_parametrization(layer, "weight", change)
            out[name] = change
    return out


def train(latents_file: Path, start: Path, checkpoint: Path) -> None:
    """Train a LoRA on the base model `start`."""
    torch.manual_seed(0)
    model = base.load(start).requires_grad_(False)
    add_lora(model.unet)
    optimize(model, base.loss_on(latents_file, model, salt=8), SCHEDULE, checkpoint)


def export(start: Path, checkpoint: Path, title: str, out: Path) -> None:
    """Write the averaged LoRA with the usual keys, which LoraLoader reads; without alpha its scale is 1."""
    unet = base.load(start).unet
    changes = add_lora(unet)
    ema = averaged(checkpoint)
    weights = {}
    for name, change in changes.items():
        change.load_state_dict({kind: ema[f"unet.{name}.parametrizations.weight.0.{kind}"] for kind in ("up", "down")})
        key = f"lora_unet_{name.replace('.', '_')}"
        up = change.up.detach()
        weights[f"{key}.lora_up.weight"] = (up[:, :, None, None] if change.down.ndim == 4 else up).half().contiguous()
        weights[f"{key}.lora_down.weight"] = change.down.detach().half().contiguous()
    save_file(weights, out, {"modelspec.title": title})
