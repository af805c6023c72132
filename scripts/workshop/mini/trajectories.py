"""The teacher's own way from noise to picture, stored at the segments' starts: what the adapter learns from.

DPM++ 2M with CFG, six steps in each of the four segments: the 25-step picture that the student is to reach, and each
state on the way that a sampler with four steps meets.
"""

import random
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from comfy.k_diffusion.sampling import sample_dpmpp_2m
from torch import Tensor

from sun_core.schedule import trailing_timesteps
from sun_core.training.losses import guided

from . import base
from .adapter import GUIDANCE, RECIPE, draw_pair
from .dataset import training_scenes
from .networks import MiniModel

STEPS_IN_SEGMENT = 6
ROWS = 25
LATENT = (4, 12, 12)


def sigmas(alphas: Tensor) -> Tensor:
    """Compute the noise levels of the teacher's steps, then 0: (25,)."""
    a = alphas[torch.tensor(trailing_timesteps(RECIPE.segments * STEPS_IN_SEGMENT))]
    return torch.cat([((1 - a) / a).sqrt(), torch.zeros(1)])


@torch.inference_mode()
def draw(model: MiniModel, positives: list[str], negatives: list[str], alphas: Tensor) -> tuple[Tensor, Tensor]:
    """Draw pictures, and keep what the adapter learns from, in DDPM's variance-preserving scale.

    Returns states at the segments' starts and at the end (rows, 5, 4, 12, 12), and the guided eps at the starts
    (rows, 4, 4, 12, 12).
    """
    n, levels = len(positives), sigmas(alphas)
    timesteps = trailing_timesteps(RECIPE.segments * STEPS_IN_SEGMENT)
    context = torch.cat([model.encode(negatives), model.encode(positives)])
    states, eps_at_starts, step = [], [], 0

    def denoised(x: Tensor, sigma: Tensor, **_: object) -> Tensor:
        nonlocal step
        scaled = x / (1 + sigma.view(-1, 1, 1, 1) ** 2).sqrt()
        t = torch.full((2 * n,), timesteps[step])
        eps = guided(*model.eps(scaled.repeat(2, 1, 1, 1), t, context).chunk(2), torch.full((n,), GUIDANCE))
        if step % STEPS_IN_SEGMENT == 0:
            states.append(scaled)
            eps_at_starts.append(eps)
        step += 1
        return x - sigma.view(-1, 1, 1, 1) * eps

    noise = torch.randn(n, *LATENT)
    end = sample_dpmpp_2m(denoised, noise * (1 + levels[0] ** 2).sqrt(), levels, disable=True)
    return torch.stack([*states, end], 1), torch.stack(eps_at_starts, 1)


def make(teacher: Path, count: int, out: Path) -> None:
    """Draw `count` trajectories of training scenes, shared between the processes, and store them with their prompts."""
    model, alphas, scenes = base.load(teacher), base.alphas_cumprod(), training_scenes()
    rank, world = dist.get_rank(), dist.get_world_size()
    parts = []
    for chunk in range(rank, count // ROWS, world):
        torch.manual_seed(chunk)
        rng = random.Random(f"trajectories {chunk}")
        positives, negatives = zip(*(draw_pair(rng.choice(scenes), rng) for _ in range(ROWS)), strict=True)
        states, eps = draw(model, list(positives), list(negatives), alphas)
        parts.append((states.half(), eps.half(), positives, negatives))
        if rank == 0 and len(parts) % 5 == 0:
            print(f"{out.stem}: {chunk * ROWS}/{count}", flush=True)
    gathered: list[Any] = [None] * world
    dist.all_gather_object(gathered, parts)
    if rank == 0:
        chunks = [part for one in gathered for part in one]
        torch.save(
            {
                "states": torch.cat([states for states, _, _, _ in chunks]),
                "eps": torch.cat([eps for _, eps, _, _ in chunks]),
                "positives": [text for _, _, texts, _ in chunks for text in texts],
                "negatives": [text for _, _, _, texts in chunks for text in texts],
            },
            out,
        )
