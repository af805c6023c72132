"""Trailing timesteps and their sigmas (arXiv 2305.08891, sec. 3.3; what SUN adapters are distilled for). Torch only.

A noise level is given by its place in the model's table of sigmas (1000 rising values for Stable Diffusion).
"""

import torch
from torch import Tensor


def trailing_timesteps(steps: int, start: int = 1000, end: int = 0) -> list[int]:
    """Return the noisy ends of `steps` equal parts of (end, start]: 999, 749, 499, 249 for 4 of 1000."""
    return [round(start - i * (start - end) / steps) - 1 for i in range(steps)]


def trailing_sigmas(sigma_table: Tensor, steps: int, denoise: float = 1.0) -> Tensor:
    """Return (steps + 1,) falling sigmas that end in 0; below `denoise` 1 the last ones of a longer schedule."""
    if denoise <= 0.0:
        return torch.zeros(0)
    whole_steps = min(int(steps / denoise), len(sigma_table))
    whole = trailing_timesteps(whole_steps, start=len(sigma_table))
    return torch.cat([sigma_table[whole[-steps:]].float().cpu(), torch.zeros(1)])


def trailing_between(sigmas: Tensor, sigma_table: Tensor) -> Tensor:
    """Space `sigmas` anew like trailing, with the same first, last and number of sigmas.

    A run that has more steps than timesteps to put them on keeps its own spacing, and so does one that is trailing
    but for the rounding to whole timesteps, as the end of a longer trailing schedule is.
    """
    steps = len(sigmas) - 1
    below = _timesteps_below(sigmas, sigma_table)
    start, end = below[0], below[-1]
    if steps > start - end:
        return sigmas
    timesteps = trailing_timesteps(steps, start, end)
    is_near = all(abs(own - 1 - trailing) <= 1 for own, trailing in zip(below, timesteps, strict=False))
    if is_near and sigma_table[[own - 1 for own in below[:-1]]].equal(sigmas[:-1].to(sigma_table)):
        return sigmas
    spaced = torch.cat([sigma_table[timesteps].to(sigmas), sigmas[-1:]])
    if (spaced[0] - sigmas[0]).abs() > 1e-5 * sigmas[0]:  # karras and others miss the table's own value by a rounding
        spaced[0] = sigmas[0]
    return spaced


def is_part_of_trailing(sigmas: Tensor, sigma_table: Tensor) -> bool:
    """Say whether falling `sigmas` are neighbours in a trailing schedule of any number of steps.

    Each may be one timestep off, as ComfyUI's simple and sgm_uniform schedulers round in other ways.
    """
    levels = _timesteps_below(sigmas, sigma_table)
    steps, span, total = len(levels) - 1, levels[0] - levels[-1], len(sigma_table)
    if span <= 2:  # within the rounding, or rising
        return True
    fewest, most = int(steps * total / (span + 2)), int(steps * total / (span - 2)) + 1
    for whole_steps in range(max(fewest, steps), most + 1):
        first = round((total - levels[0]) * whole_steps / total)
        part = [*(t + 1 for t in trailing_timesteps(whole_steps, total)), 0][first : first + steps + 1]
        if len(part) == len(levels) and all(abs(a - b) <= 1 for a, b in zip(part, levels, strict=True)):
            return True
    return False


def _timesteps_below(sigmas: Tensor, sigma_table: Tensor) -> list[int]:
    """Count the timesteps at or below each noise level: 0 for sigma 0, 1000 for the highest."""
    distances = (sigma_table.log() - sigmas.to(sigma_table).log()[:, None]).abs()
    return torch.where(sigmas > 0, 1 + distances.argmin(dim=-1).to(sigmas.device), 0).tolist()
