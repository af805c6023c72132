"""What a SUN adapter learns from one batch: student, teacher and slow target on one frozen U-Net."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Goal:
    """What the student must agree with on a batch."""

    x: Tensor
    """Where both losses start, (rows, channels, height, width)."""
    t: Tensor
    """Timesteps of x, (rows,)."""
    end: Tensor
    """The end of each row's segment, (rows,)."""
    eps_guided: Tensor
    """The teacher's prediction at (x, t), as x."""
    landing: Tensor
    """Where the student's jump to the end should land, as x."""


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

        All random numbers come from `generator`, a CPU one, so that they are the same on every device. Nothing here
        waits for the device: what has to be known on the host, such as timesteps, is drawn there.
        """
        return self.student_loss(batch, self.goals([batch], [generator])[0])

    def student_loss(self, batch: Batch, goal: Goal) -> Tensor:
        """Compute both losses of a batch against its goal; a scalar. They share the student's one evaluation."""
        eps = self.student(batch, self.adapter)(goal.x, goal.t)
        consistency = multi_step_consistency_loss(goal.x, eps, goal.t, goal.end, goal.landing, self.alphas)
        return consistency.mean() + self.recipe.cfg_weight * cfg_distillation_loss(eps, goal.eps_guided)

    @torch.no_grad()
    def goals(self, batches: Sequence[Batch], generators: Sequence[torch.Generator | None]) -> list[Goal]:
        """Compute what the student must agree with on each batch, for all of them in the same evaluations."""
        x, t, own, arrive = self._starts(batches, generators)
        batch = Batch.joined(batches)
        x[own] = self.rolled_out(batch.select(own), x[own], arrive)
        end = segment_end(t, self.starts)
        t_next = torch.maximum(t - self.recipe.teacher_stride, end)
        t, t_next, end = to_device(torch.stack([t, t_next, end]), x.device)
        eps_guided = self.teacher(batch)(x, t)
        x_next = ddim_jump(x, eps_guided, t, t_next, self.alphas)
        eps_next = self.student(batch, self.target)(x_next, t_next.clamp(min=0))
        landing = consistency_target(x_next, eps_next, t_next, end, self.alphas)
        rows = [len(batch.x0) for batch in batches]
        parts = zip(*(tensor.split(rows) for tensor in (x, t, end, eps_guided, landing)), strict=True)
        return [Goal(*part) for part in parts]

    def _starts(
        self, batches: Sequence[Batch], generators: Sequence[torch.Generator | None]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw where the rows of all batches start: latents x with their timesteps t, (rows,), on the CPU.

        Some rows start in pure noise, as in sampling: `own` are their indices, and `arrive` says how many steps the
        target then takes with each of them, until it stands at t.
        """
        x, t, own, arrive, first = [], [], [], [], 0
        for batch, generator in zip(batches, generators, strict=True):
            rows = len(batch.x0)
            noisy = _whole(rows * self.recipe.rollout_share, generator)
            x.append(_noise_like(batch.x0[:noisy], generator))
            arrive.append(torch.randint(0, len(self.starts), (noisy,), generator=generator).sort().values)
            t.append(torch.tensor(self.starts)[arrive[-1]])
            own.append(torch.arange(first, first + noisy))
            x_data, t_data = self.noised(batch.rows(slice(noisy, rows)), generator)
            x.append(x_data)
            t.append(t_data)
            first += rows
        return torch.cat(x), torch.cat(t), to_device(torch.cat(own), x[0].device), torch.cat(arrive)

    def noised(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Add noise to the latents, at timesteps drawn evenly from all segments: (x, t), t on the CPU."""
        t = torch.randint(0, len(self.alphas), (len(batch.x0),), generator=generator)
        noise = _noise_like(batch.x0, generator)
        return add_noise(batch.x0, noise, to_device(t, noise.device), self.alphas), t

    @torch.no_grad()
    def rolled_out(self, batch: Batch, noise: Tensor, arrive: Tensor) -> Tensor:
        """Let the target take `arrive` steps of sampling with each row of noise; `arrive` is (rows,), on the CPU."""
        x = noise.clone()
        for i, (start, end) in enumerate(pairwise(self.starts)):
            on = (arrive > i).nonzero().flatten()
            if len(on) == 0:
                break
            t, s = (torch.full((len(on),), at, device=x.device) for at in (start, end))
            on = to_device(on, x.device)
            x[on] = ddim_jump(x[on], self.student(batch.select(on), self.target)(x[on], t), t, s, self.alphas)
        return x

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
