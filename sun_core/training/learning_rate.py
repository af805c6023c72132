"""The learning-rate schedule."""

import math


def learning_rate_at(step: int, steps: int, learning_rate: float, warmup: int) -> float:
    """Compute the rate of a step, counted from 0: a linear warm-up to `learning_rate`, then a cosine to a fiftieth."""
    if step < warmup:
        return learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
