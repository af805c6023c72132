"""What the steps of one sampling run share, what one forward of the U-Net needs of it, and what the run reports."""

import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from .adapter import SunAdapter, SunLayer
from .attention import combine, offset
from .conditioning import CachedContext, NegativeEntry, entry_weights, repeat_rows

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass
class SunForward:
    """One forward of the U-Net: which rows SUN works on, and with which contexts.

    Rows come in chunks of `chunk_rows`, one chunk per conditioning entry that the sampler evaluates at once.
    """

    adapter: SunAdapter
    rows: Tensor | None
    """Indices of the rows to work on, None for all."""
    row_count: int
    chunk_rows: int
    positives: Sequence[CachedContext]
    """c+ of each chunk that SUN works on."""
    negatives: Sequence[NegativeEntry]
    latent_size: Sequence[int]
    negative_strength: float = 1.0
    positive_strength: float = 1.0

    def __call__(self, number: int, q: Tensor, text: Tensor, attend: Attend, grid: Sequence[int]) -> Tensor:
        """The result of layer `number` before to_out. q, text: (rows, tokens, channels); grid: (height, width)."""
        if self.rows is None:
            return self._sun_rows(number, q, text, attend, grid)
        return text.index_copy(0, self.rows, self._sun_rows(number, q[self.rows], text[self.rows], attend, grid))

    def _sun_rows(self, number: int, q: Tensor, text: Tensor, attend: Attend, grid: Sequence[int]) -> Tensor:
        layer = self.adapter[str(number)]
        negative = self._negative_offset(number, layer, q, text, attend, grid)
        positive = None
        if self.adapter.layout.extra_positive:
            pairs = [context.kv(number, layer.positive_kv, q) for context in self.positives]
            k, v = (torch.cat([repeat_rows(kv, self.chunk_rows) for kv in kvs]) for kvs in zip(*pairs, strict=True))
            positive = offset(attend(q, k, v), text, layer.to_k_extra_pos_alpha, layer.to_k_extra_pos_beta)
        return combine(text, negative, positive, self.negative_strength, self.positive_strength)

    def _negative_offset(
        self, number: int, layer: SunLayer, q: Tensor, text: Tensor, attend: Attend, grid: Sequence[int]
    ) -> Tensor:
        """The average of the entries' offsets, weighted as ComfyUI weighs predictions (see conditioning.py)."""
        chunks = len(q) // self.chunk_rows
        offsets = []
        for entry in self.negatives:
            k, v = (
                repeat_rows(kv, self.chunk_rows).repeat(chunks, 1, 1) for kv in entry.kv(number, layer.negative_kv, q)
            )
            offsets.append(offset(attend(q, k, v), text, layer.to_k_neg_alpha, layer.to_k_neg_beta))
        if len(offsets) == 1:
            return offsets[0]
        weights = entry_weights(self.negatives, self.latent_size, grid, self.chunk_rows)
        weights = [w.to(q).repeat(chunks, 1, 1) if isinstance(w, Tensor) else w for w in weights]
        return sum((w * o for w, o in zip(weights, offsets, strict=True)), start=torch.zeros_like(text))


@cache
def _warn_of_unknown_rows(names: int, rows: int) -> None:
    """Once for each case, thanks to the cache."""
    logging.warning(
        f"Another node evaluates the model on {rows} rows in a run that has {names} conditionings: SUN leaves it plain."
    )


@dataclass
class SunRun:
    """One sampling run: adapters, negatives, and the keys and values made so far, which `forget` frees."""

    adapters: Mapping[torch.device, SunAdapter]
    """The adapter on each device that the run uses."""
    negatives: Sequence[NegativeEntry]
    plain_names: frozenset[Hashable] = frozenset()
    """Names of conditioning entries whose rows are left plain: the sampler's negatives."""
    negative_strength: float = 1.0
    positive_strength: float = 1.0
    sigma_start: float = float("inf")
    sigma_end: float = 0.0
    evaluations: int = 0
    """Forwards of the U-Net so far."""
    _positives: dict[Hashable, CachedContext] = field(default_factory=dict)

    def forward(self, x: Tensor, context: Tensor, names: Sequence[Hashable], sigma: float) -> SunForward | None:
        """What the next forward needs, None where SUN has nothing to do in it.

        x: (rows, channels, height, width); context: (rows, tokens, context_dim), c+ of the rows that SUN works on;
        names: which conditioning entry each chunk of rows is of.
        """
        is_sun = [name not in self.plain_names for name in names]
        has_strength = self.negative_strength != 0 or self.positive_strength != 0
        if not (has_strength and self.sigma_end <= sigma <= self.sigma_start and any(is_sun)):
            return None
        if len(x) % len(names) or len(context) != len(x):
            _warn_of_unknown_rows(len(names), len(x))
            return None
        chunk_rows = len(x) // len(names)
        of_chunk = context.split(chunk_rows)
        rows = torch.arange(len(x), device=x.device).view(len(names), chunk_rows)
        return SunForward(
            adapter=self.adapters[x.device] if len(self.adapters) > 1 else next(iter(self.adapters.values())),
            rows=None if all(is_sun) else rows[torch.tensor(is_sun, device=x.device)].flatten(),
            row_count=len(x),
            chunk_rows=chunk_rows,
            positives=[
                self._positive(name, part) for name, part, sun in zip(names, of_chunk, is_sun, strict=True) if sun
            ],
            negatives=[entry for entry in self.negatives if entry.is_in_range(sigma)] or self.negatives,
            latent_size=x.shape[2:],
            negative_strength=self.negative_strength,
            positive_strength=self.positive_strength,
        )

    def _positive(self, name: Hashable, rows: Tensor) -> CachedContext:
        """The cached context of a chunk. Context windows change an entry's rows within a run, hence the comparison."""
        key = (name, rows.shape, rows.device)
        cached = self._positives.get(key)
        if cached is None or not torch.equal(cached.context.expand_as(rows), rows):
            is_one_repeated = torch.equal(rows[:1].expand_as(rows), rows)
            cached = self._positives[key] = CachedContext(rows[:1] if is_one_repeated else rows)
        return cached

    def forget(self) -> None:
        """Frees what was computed."""
        self._positives.clear()
        for entry in self.negatives:
            entry.forget()


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
