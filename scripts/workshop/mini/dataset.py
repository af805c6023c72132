"""Pictures of every scene that is not held out, as latents on disk, and captions for them."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from .autoencoder import LATENT_MEAN, LATENT_STD, Autoencoder
from .drawing import STYLES, render
from .world import KEYWORDS, TEMPLATES, Scene, all_scenes, caption

NOISE_WORDS = ("masterpiece", "quality", "best", "detailed", "nice", "photo", "blurry", "ugly")  # become <unknown>


def training_scenes() -> list[Scene]:
    """List the scenes that U-Nets draw in training."""
    return [scene for scene in all_scenes() if not scene.held_out]


def as_pictures(arrays: list[np.ndarray]) -> Tensor:
    """Turn uint8 arrays (h, w, 3) into pictures (n, 3, h, w) in 0..1."""
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


@torch.inference_mode()
def make_latents(autoencoder: Autoencoder, style: str, per_scene: int, out: Path) -> None:
    """Draw `per_scene` pictures of every training scene and store their latents, scene after scene."""
    scenes = training_scenes()
    rank, world = dist.get_rank(), dist.get_world_size()
    parts = []
    for i, scene in enumerate(scenes[rank::world]):
        rng = random.Random(f"{style} {scene}")
        pictures = as_pictures([render(scene, STYLES[style], rng) for _ in range(per_scene)])
        parts.append(((autoencoder.taesd_encoder(pictures) - LATENT_MEAN) / LATENT_STD).half())
        if rank == 0 and i % 20 == 0:
            print(f"{out.stem}: {i * world}/{len(scenes)} scenes", flush=True)
    gathered: list[Any] = [None] * world
    dist.all_gather_object(gathered, parts)
    if rank == 0:
        latents = [gathered[i % world][i // world] for i in range(len(scenes))]
        torch.save(torch.stack(latents), out)


def describe(scene: Scene, rng: random.Random) -> str:
    """Write a training caption: sometimes without an attribute, with words that the model does not know, or empty."""
    if rng.random() < 0.1:
        return ""
    kept = replace(
        scene,
        subject=scene.subject if rng.random() > 0.08 else None,
        colour=scene.colour if rng.random() > 0.15 else None,
        place=scene.place if rng.random() > 0.15 else None,
    )
    text = caption(kept, rng.choice((KEYWORDS, *TEMPLATES)))
    if rng.random() < 0.12:
        extra = ", ".join(rng.choice(NOISE_WORDS) for _ in range(rng.randint(1, 4)))
        text = f"{extra}, {text}" if rng.random() < 0.5 else f"{text}, {extra}"
    return text
