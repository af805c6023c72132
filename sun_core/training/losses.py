"""The two losses that distil a SUN adapter (arXiv 2312.08887, sec. 3.3), as plain functions. Torch only.

Throughout, `x` is a latent (rows, channels, height, width) in the variance-preserving scale of DDPM, `eps` a noise
prediction of the same shape, `t` integer timesteps (rows,), and `alphas` the cumulative products of 1 - beta
(timesteps,). Timestep -1 stands for clean data, where the cumulative product is 1.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

EpsPredictor = Callable[[Tensor, Tensor], Tensor]
"""(x, t) -> eps; the prompts are bound already."""

CLEAN = -1


def alpha_at(alphas: Tensor, t: Tensor) -> Tensor:
    """Cumulative products at timesteps t, (rows, 1, 1, 1)."""
    return torch.where(t == CLEAN, torch.ones_like(alphas[0]), alphas[t.clamp(min=0)]).view(-1, 1, 1, 1)


def add_noise(x0: Tensor, noise: Tensor, t: Tensor, alphas: Tensor) -> Tensor:
    """x_t = sqrt(a) x_0 + sqrt(1 - a) noise."""
    a = alpha_at(alphas, t)
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def ddim_jump(x: Tensor, eps: Tensor, t: Tensor, s: Tensor, alphas: Tensor) -> Tensor:
    """One deterministic DDIM step (arXiv 2010.02502, eq. 12 with eta 0) from timesteps t to s."""
    a, b = alpha_at(alphas, t), alpha_at(alphas, s)
    x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
    return b.sqrt() * x0 + (1 - b).sqrt() * eps


def guided(eps_negative: Tensor, eps_positive: Tensor, scale: Tensor) -> Tensor:
    """Classifier-free guidance: e(c-) + w (e(c+) - e(c-)); `scale` w is (rows,)."""
    return eps_negative + scale.view(-1, 1, 1, 1) * (eps_positive - eps_negative)


def segment_end(t: Tensor, starts: Sequence[int]) -> Tensor:
    """Lower end of the segment that each t > -1 lies in, (rows,): the next sampling timestep below t, or CLEAN in the
    last.

    starts: the sampling timesteps that cut time into segments, falling (schedule.trailing_timesteps).
    """
    ends = torch.tensor([*starts[1:], CLEAN], device=t.device)  # descending
    below = ends < t.view(-1, 1)
    return ends[below.int().argmax(dim=1)]


def cfg_distillation_loss(student: EpsPredictor, teacher: EpsPredictor, x: Tensor, t: Tensor) -> Tensor:
    """CFG distillation: the student's one prediction against the guided teacher's, mean squared error."""
    with torch.no_grad():
        target = teacher(x, t)
    return (student(x, t) - target).square().mean()


def consistency_target(
    target_student: EpsPredictor,
    teacher: EpsPredictor,
    x: Tensor,
    t: Tensor,
    t_next: Tensor,
    end: Tensor,
    alphas: Tensor,
    teacher_steps: int = 1,
) -> Tensor:
    """Where the segment's end lies: `teacher_steps` guided DDIM steps from t to t_next, then the target student's one
    jump.

    Where t_next is the end itself the teacher's result stands (the boundary condition: there the student is the
    identity).
    """  # fmt: skip
    now = t
    for k in range(1, teacher_steps + 1):
        then = t + torch.div((t_next - t) * k, teacher_steps, rounding_mode="trunc")
        x, now = ddim_jump(x, teacher(x, now), now, then, alphas), then
    jumped = ddim_jump(x, target_student(x, now.clamp(min=0)), now, end, alphas)
    return torch.where((now == end).view(-1, 1, 1, 1), x, jumped)


def multi_step_consistency_loss(
    student: EpsPredictor,
    target_student: EpsPredictor,
    teacher: EpsPredictor,
    x: Tensor,
    t: Tensor,
    t_next: Tensor,
    starts: Sequence[int],
    alphas: Tensor,
    teacher_steps: int = 1,
) -> Tensor:
    """MSC: from x_t the student's single jump to its segment's end must agree with `consistency_target`.

    Args:
        t_next: timesteps below t, not below the segment's end.

    Returns:
        squared error at the segment's end, (rows,): how to weight rows is the trainer's business.
    """  # fmt: skip
    end = segment_end(t, starts)
    with torch.no_grad():
        target = consistency_target(target_student, teacher, x, t, t_next, end, alphas, teacher_steps)
    return (ddim_jump(x, student(x, t), t, end, alphas) - target).square().mean((1, 2, 3))
