"""The two losses that distil a SUN adapter (arXiv 2312.08887, sec. 3.3). Torch only.

Symbols, as in the papers:
    x, x_0      latents and clean latents, (rows, channels, height, width), in DDPM's variance-preserving scale
    eps         a prediction of the noise in x, of the same shape
    t, s        integer timesteps, (rows,); -1 (CLEAN) stands for clean data, where alpha is 1
    alphas      cumulative products of 1 - beta, (timesteps,): DDPM's alpha-bar, DDIM's alpha
    w           guidance scale, (rows,)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

CLEAN = -1


def alpha_at(alphas: Tensor, t: Tensor) -> Tensor:
    """Look up the cumulative products at timesteps t, (rows, 1, 1, 1)."""
    return torch.where(t == CLEAN, torch.ones_like(alphas[0]), alphas[t.clamp(min=0)]).view(-1, 1, 1, 1)


def add_noise(x_0: Tensor, noise: Tensor, t: Tensor, alphas: Tensor) -> Tensor:
    """Diffuse x_0 to timesteps t (DDPM, arXiv 2006.11239, eq. 4)."""
    a_t = alpha_at(alphas, t)
    return a_t.sqrt() * x_0 + (1 - a_t).sqrt() * noise


def ddim_jump(x: Tensor, eps: Tensor, t: Tensor, s: Tensor, alphas: Tensor) -> Tensor:
    """Take one deterministic step from timesteps t to s (DDIM, arXiv 2010.02502, eq. 12 with sigma 0)."""
    a_t, a_s = alpha_at(alphas, t), alpha_at(alphas, s)
    x_0 = (x - (1 - a_t).sqrt() * eps) / a_t.sqrt()
    return a_s.sqrt() * x_0 + (1 - a_s).sqrt() * eps


def guided(eps_negative: Tensor, eps_positive: Tensor, w: Tensor) -> Tensor:
    """Combine two predictions by classifier-free guidance, e(c-) + w (e(c+) - e(c-)) (arXiv 2207.12598, eq. 6)."""
    return eps_negative + w.view(-1, 1, 1, 1) * (eps_positive - eps_negative)


def segment_end(t: Tensor, starts: Sequence[int]) -> Tensor:
    """Find the lower end of the segment that each t > -1 lies in, (rows,).

    It is the next sampling timestep below t, and CLEAN in the last segment. `starts` are the sampling timesteps that
    cut time into segments, in falling order (schedule.trailing_timesteps).
    """
    ends = torch.tensor([*starts[1:], CLEAN], device=t.device)  # descending
    below = ends < t.view(-1, 1)
    return ends[below.int().argmax(dim=1)]


def cfg_distillation_loss(eps: Tensor, eps_guided: Tensor) -> Tensor:
    """Compare the student's prediction with the teacher's guided one: their mean squared difference."""
    return (eps - eps_guided).square().mean()


def consistency_target(x_next: Tensor, eps_next: Tensor, t_next: Tensor, end: Tensor, alphas: Tensor) -> Tensor:
    """Find where x_t should land at its segment's end, seen from x_t', which the teacher's ODE step reached.

    The slow target, whose prediction at (x_t', t') is `eps_next`, jumps from there to the end (f of the weights theta-
    in arXiv 2303.01469, eq. 7). If t' is the end itself, x_t' stands: the boundary condition, by which the student is
    the identity there.
    """
    jumped = ddim_jump(x_next, eps_next, t_next, end, alphas)
    return torch.where((t_next == end).view(-1, 1, 1, 1), x_next, jumped)


def multi_step_consistency_loss(
    x: Tensor, eps: Tensor, t: Tensor, end: Tensor, target: Tensor, alphas: Tensor
) -> Tensor:
    """Compare the student's single jump from x_t to its segment's end with `consistency_target`.

    This is consistency distillation (arXiv 2303.01469, eq. 7) within each segment: MSC. Returns the mean squared
    difference of each row, (rows,).
    """
    return (ddim_jump(x, eps, t, end, alphas) - target).square().mean((1, 2, 3))
