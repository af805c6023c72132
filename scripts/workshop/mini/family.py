"""The mini family as users have it, loaded and sampled by ComfyUI's own loaders and samplers."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.sample
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from safetensors.torch import load_file
from torch import Tensor

from .files import BASE, COMMUNITY, LORAS, community_unet, lora_file
from .world import SIZE, TEMPLATES, Scene, all_scenes, caption

BATCH = 25
CFG = 3.0
NOISE_OF_STEPS = 1_000_000
"""Samplers that add noise must not add what they started from."""


@dataclass(frozen=True)
class Way:
    """One way of sampling."""

    title: str
    steps: int
    cfg: float
    sampler: str
    scheduler: str

    @property
    def evaluations(self) -> int:
        """U-Net evaluations of one picture; one with CFG counts as two."""
        return self.steps * (2 if self.cfg != 1.0 else 1)


TEACHER_25 = Way("25 steps, CFG", 25, CFG, "dpmpp_2m", "normal")


@dataclass(frozen=True)
class Family:
    """A loaded checkpoint: ComfyUI's MODEL, CLIP and VAE."""

    model: ModelPatcher
    clip: Any
    vae: Any

    @classmethod
    def load(cls, style: str = "storybook") -> "Family":
        """Load the base, or its U-Net in a community style."""
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(BASE), embedding_directory=None)
        if style in COMMUNITY:
            model = comfy.sd.load_diffusion_model(str(community_unet(style)))
        elif style in LORAS:
            model, _ = comfy.sd.load_lora_for_models(model, None, load_file(lora_file(style)), 1.0, 0.0)
        return cls(model, clip, vae)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encode prompts as contexts (n, 77, width)."""
        return torch.cat([self.clip.encode_from_tokens(self.clip.tokenize(text)) for text in texts])

    @torch.inference_mode()
    def draw(
        self, model: ModelPatcher, way: Way, positives: Sequence[str], negatives: Sequence[str], seed: int
    ) -> Tensor:
        """Draw pictures in 0..1 (n, 3, h, w)."""
        latents = self.sample(model, way, positives, negatives, seed)
        return torch.cat([self.vae.decode(part).movedim(-1, 1)[:, :3].float() for part in latents.split(BATCH)])

    @torch.inference_mode()
    def sample(
        self, model: ModelPatcher, way: Way, positives: Sequence[str], negatives: Sequence[str], seed: int
    ) -> Tensor:
        """Sample latents (n, 4, h/8, w/8).

        The i-th starts from the noise of seed + i, in every way; samplers that add noise add other noise in each batch.
        """
        out = []
        for first in range(0, len(positives), BATCH):
            rows = slice(first, min(first + BATCH, len(positives)))
            noise = torch.stack(
                [torch.randn(4, SIZE // 8, SIZE // 8, generator=torch.Generator().manual_seed(seed + i))
                 for i in range(rows.start, rows.stop)]
            )  # fmt: skip
            latents = comfy.sample.sample(
                model, noise, way.steps, way.cfg, way.sampler, way.scheduler,
                [[self.encode(positives[rows]), {}]], [[self.encode(negatives[rows]), {}]],
                torch.zeros_like(noise), disable_pbar=True, seed=NOISE_OF_STEPS + seed + first,
            )  # fmt: skip
            out.append(latents)
        return torch.cat(out)


def unseen_prompts(count: int, seed: int = 0) -> list[tuple[Scene, str]]:
    """List prompts of combinations that no U-Net drew in training, in a fixed random order, repeated if too few."""
    pairs = [(scene, caption(scene, t)) for scene in all_scenes() if scene.held_out for t in TEMPLATES]
    random.Random(seed).shuffle(pairs)
    return list(itertools.islice(itertools.cycle(pairs), count))
