"""The base model: a text-conditional eps-predicting U-Net with its text encoder."""

import random
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from .dataset import describe, training_scenes
from .loop import averaged, optimize, schedule, stage_seed
from .networks import MiniModel

BATCH = 16  # per process
SCHEDULE = schedule(steps=2400, learning_rate=1e-3, ema=0.998, weight_decay=0.01)
STYLE_SCHEDULE = schedule(steps=300, learning_rate=4e-4, ema=0.99, warmup=50, weight_decay=0.01)


def alphas_cumprod() -> Tensor:
    """Compute SD's noise schedule: (1000,) cumulative products of 1 - beta, betas linear in their square roots."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


def stratified_timesteps(count: int) -> Tensor:
    """Draw one timestep from each of `count` equal parts of 0..999 that the processes share, shuffled."""
    ranks = dist.get_world_size()
    cells = torch.arange(count) * ranks + dist.get_rank()
    return ((cells + torch.rand(count)) / (count * ranks) * 1000).long()[torch.randperm(count)]


def diffusion_loss(model: MiniModel, latents: Tensor, texts: list[str], alphas: Tensor) -> Tensor:
    """Compute the error of the predicted noise, weighted by (1 + sigma^2)^0.3: early steps decide what is drawn."""
    t = stratified_timesteps(len(latents))
    a = alphas[t].view(-1, 1, 1, 1)
    noise = torch.randn_like(latents)
    x = a.sqrt() * latents + (1 - a).sqrt() * noise
    error = (model.eps(x, t, model.encode(texts)) - noise).square().mean((1, 2, 3))
    return (error * a.flatten() ** -0.3).mean()  # 1 + sigma^2 = 1 / a


def train(latents_file: Path, checkpoint: Path, start: Path | None = None) -> None:
    """Learn the latents' distribution; with `start`, fine-tune that model's U-Net and leave its text encoder alone."""
    torch.manual_seed(0)
    model = MiniModel()
    config = SCHEDULE
    if start:
        model.load_state_dict(load(start).state_dict())
        model.text.requires_grad_(False)
        config = STYLE_SCHEDULE
    optimize(model, loss_on(latents_file, model, salt=3), config, checkpoint)


def loss_on(latents_file: Path, model: MiniModel, salt: int) -> Callable[[int], Tensor]:
    """Return the loss of a step on random pictures of the file, with captions; `salt` tells stages apart."""
    latents, scenes, alphas = torch.load(latents_file, weights_only=True), training_scenes(), alphas_cumprod()

    def loss(step: int) -> Tensor:
        seed = stage_seed(step, salt)
        torch.manual_seed(seed)
        rng = random.Random(seed)
        picks = [(rng.randrange(latents.shape[0]), rng.randrange(latents.shape[1])) for _ in range(BATCH)]
        batch = torch.stack([latents[s, i] for s, i in picks]).float()
        return diffusion_loss(model, batch, [describe(scenes[s], rng) for s, _ in picks], alphas)

    return loss


def load(checkpoint: Path) -> MiniModel:
    """Load the averaged weights of a stage."""
    model = MiniModel()
    model.load_state_dict(averaged(checkpoint), strict=False)
    return model.eval()
