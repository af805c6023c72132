"""Deterministic sampling with teacher and student while training: DDIM on trailing timesteps."""

import hashlib
from itertools import pairwise

import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from torch import Tensor

from ..adapter import SunAdapter
from ..schedule import trailing_timesteps
from .batch import Batch
from .distillation import Distillation, EpsPredictor
from .losses import CLEAN, ddim_jump
from .prompts import Prompts
from .tensor_folder import content_hash

TEACHER_STEPS = 25


@torch.no_grad()
def sample(predict: EpsPredictor, noise: Tensor, steps: int, alphas: Tensor) -> Tensor:
    """Denoise pure noise, (rows, channels, height, width), in `steps` evaluations of `predict`; can be interrupted."""
    x = noise
    timesteps = [*trailing_timesteps(steps, len(alphas)), CLEAN]
    for now, then in pairwise(timesteps):
        throw_exception_if_processing_interrupted()
        t, s = (torch.full((len(x),), value, device=x.device) for value in (now, then))
        x = ddim_jump(x, predict(x, t), t, s, alphas)
    return x


class Sampler:
    """Draws with the teacher or the student; a batch's x0 is the noise to start from."""

    def __init__(self, distillation: Distillation):
        self.distillation = distillation
        self.name = content_hash(distillation.unet)

    def teacher(self, batch: Batch, steps: int = TEACHER_STEPS) -> Tensor:
        """Draw with the plain U-Net and CFG: latents, (rows, channels, height, width)."""
        return sample(self.distillation.teacher(batch), batch.x0, steps, self.distillation.alphas)

    def student(self, batch: Batch, adapter: SunAdapter) -> Tensor:
        """Draw with `adapter`, in as many steps as it is for: latents, (rows, channels, height, width)."""
        predict = self.distillation.student(batch, adapter)
        return sample(predict, batch.x0, self.distillation.recipe.segments, self.distillation.alphas)

    def start(self, pairs: list[tuple[str, str]], prompts: Prompts, guidance: float, seeds: list[str]) -> Batch:
        """Make the batch that draws (positive, negative) prompts, each from the noise of its seed."""
        channels = prompts.encoder.base.latent_format.latent_channels
        noise = torch.cat([noise_of(seed, (channels, *prompts.encoder.latent_size)) for seed in seeds])
        positives, negatives = zip(*pairs, strict=True)
        texts = prompts.batch([*positives, *negatives])
        return Batch.of(noise, texts, torch.full((len(pairs),), guidance)).to(self.distillation.alphas.device)


def noise_of(seed: str, shape: tuple[int, int, int]) -> Tensor:
    """Draw noise, (1, channels, height, width), that is the same for the same seed on every device."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big", signed=True)
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(number))
