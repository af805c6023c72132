"""How an adapter is distilled."""

from dataclasses import dataclass

from ..errors import SunError

SEGMENTS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Recipe:
    """The losses and their weights."""

    segments: int = 4
    """Sampling steps that the adapter is for: time is cut at their timesteps."""
    teacher_stride: int = 50
    """Timesteps from t to t', which one guided DDIM step of the teacher crosses."""
    rollout_share: float = 0.5
    """Share of a batch's rows that the student itself brings from pure noise to the start of a segment, as it does in
    sampling.
    """
    cfg_weight: float = 0.2
    """Weight of the CFG-distillation loss; MSC has weight 1."""
    target_ema: float = 0.95
    """Share of the slow target that stays at each optimizer step."""

    def __post_init__(self) -> None:
        if self.segments not in SEGMENTS:
            raise SunError(
                "An adapter cannot be trained for {steps} steps; choose 1, 2, 4 or 8 segments.", steps=self.segments
            )
