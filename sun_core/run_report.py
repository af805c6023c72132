"""What one sampling run did, in a line for the artist."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

ENOUGH_STEPS = 4
"""What SUN adapters are distilled for."""


@dataclass
class RunReport:
    steps: int
    changes: Sequence[str] = ()
    """What the automatic settings overrode, such as "CFG 7 -> 1"."""
    evaluations: int = 0
    """Forwards of the U-Net."""
    seconds: float = 0.0
    """Of sampling, once the models are loaded."""
    _started: float = field(default=0.0, repr=False)

    def start(self) -> None:
        self._started = time.perf_counter()

    def stop(self) -> None:
        self.seconds = time.perf_counter() - self._started

    def __str__(self) -> str:
        hint = f" ({ENOUGH_STEPS} are enough)" if self.steps > 2 * ENOUGH_STEPS else ""
        parts = [_count(self.steps, "step") + hint, _count(self.evaluations, "evaluation"), f"{self.seconds:.1f} s"]
        if self.changes:
            parts.append(f"automatic: {', '.join(self.changes)}")
        return " · ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
