"""What a SUN adapter learns from one batch: student, teacher and slow target on one frozen U-Net."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..adapter import SunAdapter
from ..schedule import trailing_timesteps
from .batch import Batch, to_device
from .losses import (
    add_noise,
    cfg_distillation_loss,
    consistency_target,
    ddim_jump,
    guided,
    multi_step_consistency_loss,
    segment_end,
)
from .recipe import Recipe
from .transformer_options import training_transformer_options

EpsPredictor = Callable[[Tensor, Tensor], Tensor]
"""(x, t) -> eps, for prompts that are bound already."""


class Distillation(nn.Module):
    """The losses of one adapter on one frozen noise predictor.

    The *student* is the U-Net with the adapter, the *target* the same with a slow average of it, the *teacher* the
    plain U-Net with classifier-free guidance.

    Args:
        unet: predicts noise, called as unet(x, t, context=..., y=..., transformer_options=...): an LDM U-Net that
            predicts eps, or an EpsUNet for any that ComfyUI loads. It is frozen here.
        alphas: cumulative products of 1 - beta, (timesteps,).
    """

    alphas: Tensor

    def __init__(self, unet: nn.Module, adapter: SunAdapter, alphas: Tensor, recipe: Recipe):
        super().__init__()
        self.unet, self.adapter, self.recipe = unet.requires_grad_(False), adapter, recipe
        self.target = adapter.copy().requires_grad_(False)
        self.starts = trailing_timesteps(recipe.segments, len(alphas))
        self.register_buffer("alphas", alphas, persistent=False)

    def student(self, batch: Batch, adapter: SunAdapter) -> EpsPredictor:
        """Bind a batch's prompts to the U-Net with `adapter`: one evaluation per prediction."""
        options = training_transformer_options(adapter, batch.negative)
        return lambda x, t: self.unet(
            x, t.float(), context=batch.positive, y=batch.positive_y, transformer_options=dict(options)
        )

    def teacher(self, batch: Batch) -> EpsPredictor:
        """Bind a batch's prompts to the guided U-Net: both prompts in one evaluation of twice the rows."""
        context = torch.cat([batch.negative, batch.positive])
        y = None
        if batch.negative_y is not None and batch.positive_y is not None:
            y = torch.cat([batch.negative_y, batch.positive_y])

        def predict(x: Tensor, t: Tensor) -> Tensor:
            eps = self.unet(x.repeat(2, 1, 1, 1), t.float().repeat(2), context=context, y=y, transformer_options={})
            eps_negative, eps_positive = eps.chunk(2)
            return guided(eps_negative, eps_positive, batch.guidance)

        return predict

    def loss(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """Compute MSC on all rows, plus the CFG-distillation loss; a scalar.

        All random numbers come from `generator`, a CPU one, so that they are the same on every device. Timesteps stay
        on the CPU until all are known: nothing here waits for the device.
        """
        n = len(batch.x0)
        own = _whole(n * self.recipe.rollout_share, generator)
        x_own, t_own = self.rolled_out(batch.rows(slice(0, own)), generator)
        x_data, t_data = self.noised(batch.rows(slice(own, n)), generator)
        x, t = torch.cat([x_own, x_data]), torch.cat([t_own, t_data])
        end = segment_end(t, self.starts)
        t_next = torch.maximum(t - self.recipe.teacher_stride, end)
        t, t_next, end = to_device(torch.stack([t, t_next, end]), x.device)
        # both losses start at (x, t), where student and teacher are evaluated once; the student comes last, so that
        # nothing else needs memory while its activations are kept
        with torch.no_grad():
            eps_guided = self.teacher(batch)(x, t)
            x_next = ddim_jump(x, eps_guided, t, t_next, self.alphas)
            eps_next = self.student(batch, self.target)(x_next, t_next.clamp(min=0))
            target = consistency_target(x_next, eps_next, t_next, end, self.alphas)
        eps = self.student(batch, self.adapter)(x, t)
        consistency = multi_step_consistency_loss(x, eps, t, end, target, self.alphas)
        return consistency.mean() + self.recipe.cfg_weight * cfg_distillation_loss(eps, eps_guided)

    def noised(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Add noise to the latents, at timesteps drawn evenly from all segments: (x, t), t on the CPU."""
        t = torch.randint(0, len(self.alphas), (len(batch.x0),), generator=generator)
        noise = _noise_like(batch.x0, generator)
        return add_noise(batch.x0, noise, to_device(t, noise.device), self.alphas), t

    @torch.no_grad()
    def rolled_out(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Make latents as sampling meets them: the target brings pure noise to the start of a random segment.

        Returns (x, t), t on the CPU.
        """
        x = _noise_like(batch.x0, generator)
        # rows that go no further are at the front
        arrive = torch.randint(0, len(self.starts), (len(x),), generator=generator).sort().values
        for i, (start, end) in enumerate(pairwise(self.starts)):
            on = slice(int((arrive <= i).sum()), len(x))
            if on.start == len(x):
                break
            rows, t, s = batch.rows(on), *(torch.full((len(x) - on.start,), at, device=x.device) for at in (start, end))
            x[on] = ddim_jump(x[on], self.student(rows, self.target)(x[on], t), t, s, self.alphas)
        return x, torch.tensor(self.starts)[arrive]

    def update_target(self) -> None:
        """Let the target follow the student by its EMA; once after each optimizer step."""
        self._move_target(1 - self.recipe.target_ema)

    def reset_target(self) -> None:
        """Let the target be the student; after the adapter's weights were loaded."""
        self._move_target(1.0)

    @torch.no_grad()
    def _move_target(self, share: float) -> None:
        torch._foreach_lerp_(list(self.target.parameters()), list(self.adapter.parameters()), share)


def _whole(rows: float, generator: torch.Generator | None) -> int:
    """Round a number of rows to a whole one at random, so that batches of one have their share too."""
    below = int(rows)
    return below if rows == below else below + int(torch.rand((), generator=generator) < rows - below)


def _noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return to_device(torch.randn(x.shape, generator=generator, dtype=x.dtype), x.device)
