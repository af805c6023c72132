"""A sampler that may be sped up, and what is known about it."""

from dataclasses import dataclass

from .model_line import ModelLine
from .models import Choice, Model
from .samplers import Sampler


@dataclass(eq=False)
class Candidate:
    """A sampler, its model, and either an adapter or the reason why it stays as it is."""

    sampler: Sampler
    line: ModelLine
    model: Model
    choice: Choice | None = None
    refusal: str | None = None
