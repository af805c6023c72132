"""What a SUN adapter learns from one batch: the teacher, the student and its slow target on one frozen U-Net."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..adapter import SunAdapter
from ..attention_patch import training_transformer_options
from ..errors import SunError
from ..schedule import trailing_timesteps
from .losses import (
    EpsPredictor,
    add_noise,
    cfg_distillation_loss,
    ddim_jump,
    guided,
    multi_step_consistency_loss,
    segment_end,
)
from .text import Prompt

SEGMENTS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Recipe:
    """How an adapter is distilled."""

    segments: int = 4
    """Sampling steps that the adapter is for: time is cut at their timesteps."""
    teacher_stride: int = 50
    """Timesteps between x_t and x_t', which one guided DDIM step of the teacher crosses."""
    rollout_share: float = 0.5
    """Share of a batch's rows that the student itself brought to the start of a segment, from pure noise, as in
    sampling.
    """
    cfg_weight: float = 0.2
    """Weight of the CFG-distillation loss beside MSC."""
    target_ema: float = 0.95

    def __post_init__(self) -> None:
        if self.segments not in SEGMENTS:
            raise SunError(f"An adapter cannot be trained for {self.segments} steps; choose 1, 2, 4 or 8 segments.")


@dataclass(frozen=True)
class Batch:
    """Latents of pictures with their prompts: x0 (rows, channels, height, width), contexts (rows, tokens,
    context_dim).
    """

    x0: Tensor
    positive: Tensor
    negative: Tensor
    guidance: Tensor
    """The teacher's CFG scale, (rows,)."""
    positive_y: Tensor | None = None
    """SDXL's vector of pooled text and sizes, (rows, channels)."""
    negative_y: Tensor | None = None

    @classmethod
    def of(cls, x0: Tensor, prompts: Prompt, guidance: Tensor) -> "Batch":
        """`prompts`: the positives of all rows, then the negatives."""
        positive, negative = prompts.context.chunk(2)
        positive_y, negative_y = (None, None) if prompts.y is None else prompts.y.chunk(2)
        return cls(x0, positive, negative, guidance, positive_y, negative_y)

    def rows(self, chosen: slice) -> "Batch":
        return Batch(*(None if tensor is None else tensor[chosen] for tensor in self._tensors()))  # type: ignore[arg-type]

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(None if tensor is None else tensor.to(device) for tensor in self._tensors()))  # type: ignore[arg-type]

    def is_finite(self) -> bool:
        return all(bool(tensor.isfinite().all()) for tensor in self._tensors() if tensor is not None)

    def _tensors(self) -> tuple[Tensor | None, ...]:
        return self.x0, self.positive, self.negative, self.guidance, self.positive_y, self.negative_y


class Distillation(nn.Module):
    """The losses of one adapter on one frozen noise predictor.

    Args:
        unet: predicts noise, called as unet(x, t, context=..., y=..., transformer_options=...): an LDM U-Net that
            predicts eps, or teacher.EpsUNet for any that ComfyUI loads; frozen here.
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
        """The U-Net with `adapter`, one evaluation per prediction."""
        options = training_transformer_options(adapter, batch.negative)
        return lambda x, t: self.unet(
            x, t.float(), context=batch.positive, y=batch.positive_y, transformer_options=dict(options)
        )

    def teacher(self, batch: Batch) -> EpsPredictor:
        """The plain U-Net with classifier-free guidance, both prompts in one evaluation of twice the rows."""
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
        """MSC on all rows, plus the CFG-distillation loss.

        All that is random comes from `generator` (a CPU one), so that it is the same on every device.
        """
        n = len(batch.x0)
        own = _whole(n * self.recipe.rollout_share, generator)
        x_own, t_own = self.rolled_out(batch.rows(slice(0, own)), generator)
        x_data, t_data = self.noised(batch.rows(slice(own, n)), generator)
        x, t = torch.cat([x_own, x_data]), torch.cat([t_own, t_data])
        end = segment_end(t, self.starts)
        t_next = torch.maximum(t - self.recipe.teacher_stride, end)
        # both losses start at (x, t), where student and teacher are evaluated once
        student_eps = self.student(batch, self.adapter)(x, t)
        with torch.no_grad():
            teacher_eps = self.teacher(batch)(x, t)
        consistency = multi_step_consistency_loss(
            lambda x, t: student_eps,
            self.student(batch, self.target),
            lambda x, t: teacher_eps,
            x, t, t_next, self.starts, self.alphas,
        )  # fmt: skip
        distillation = cfg_distillation_loss(lambda x, t: student_eps, lambda x, t: teacher_eps, x, t)
        return consistency.mean() + self.recipe.cfg_weight * distillation

    forward = loss  # what DistributedDataParallel calls

    def noised(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Pictures with noise, at timesteps drawn evenly from all segments."""
        t = torch.randint(0, len(self.alphas), (len(batch.x0),), generator=generator).to(batch.x0.device)
        return add_noise(batch.x0, _noise_like(batch.x0, generator), t, self.alphas), t

    @torch.no_grad()
    def rolled_out(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Latents as sampling meets them: pure noise at the first timestep, brought to a random segment's start by
        the target.
        """
        x = _noise_like(batch.x0, generator)
        starts = torch.tensor(self.starts, device=x.device)
        # rows that go no further are at the front
        arrive = torch.randint(0, len(starts), (len(x),), generator=generator).sort().values.to(x.device)
        for i in range(len(starts) - 1):
            on = slice(int((arrive <= i).sum()), len(x))
            if on.start == len(x):
                break
            rows, t, s = batch.rows(on), starts[i].expand(len(x) - on.start), starts[i + 1].expand(len(x) - on.start)
            x[on] = ddim_jump(x[on], self.student(rows, self.target)(x[on], t), t, s, self.alphas)
        return x, starts[arrive]

    def update_target(self) -> None:
        """Let the target follow the student by its EMA; once after each optimiser step."""
        self._move_target(1 - self.recipe.target_ema)

    def reset_target(self) -> None:
        """Let the target be the student; after the adapter's weights were loaded."""
        self._move_target(1.0)

    @torch.no_grad()
    def _move_target(self, share: float) -> None:
        for slow, fast in zip(self.target.parameters(), self.adapter.parameters(), strict=True):
            slow.lerp_(fast, share)


def _whole(rows: float, generator: torch.Generator | None) -> int:
    """A whole number of rows, drawn where `rows` is between two, so that batches of one have their share too."""
    below = int(rows)
    return below if rows == below else below + int(torch.rand((), generator=generator) < rows - below)


def _noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
