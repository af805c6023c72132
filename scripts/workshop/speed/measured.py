"""Measured values by name, their medians with spread, and the table of them."""

import statistics
from typing import TypedDict


class Figure(TypedDict):
    """One line of the table."""

    median: float
    min: float
    max: float
    unit: str
    target: str


class Figures:
    """Every measured value by name, in the order of first measurement."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}
        self.units: dict[str, str] = {}
        self.targets: dict[str, str] = {}

    def add(self, name: str, value: float, unit: str, target: str = "") -> None:
        """Add one measurement; `target` says what it should be."""
        self.values.setdefault(name, []).append(value)
        self.units[name] = unit
        self.targets[name] = target

    def median(self, name: str) -> float:
        """Return the median of what was measured under a name."""
        return statistics.median(self.values[name])

    def summary(self) -> dict[str, Figure]:
        """Return all figures as data."""
        return {
            name: Figure(
                median=statistics.median(v), min=min(v), max=max(v), unit=self.units[name], target=self.targets[name]
            )
            for name, v in self.values.items()
        }


def table(figures: dict[str, Figure]) -> str:
    """Write the figures as a table, targets beside them."""
    lines = [f"{'':46}{'median':>10}{'min':>10}{'max':>10}"]
    for name, figure in figures.items():
        numbers = f"{figure['median']:>10.4g}{figure['min']:>10.4g}{figure['max']:>10.4g}"
        lines.append(f"{name:46}{numbers} {figure['unit']:4} {figure['target']}".rstrip())
    return "\n".join(lines)
