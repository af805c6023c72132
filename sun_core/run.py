"""What the steps of one sampling run share, and what the run reports."""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from .branches import BranchSource, Needed
from .conditioning import CachedContext, NegativeEntry, has_places
from .forward import SunForward
from .kept_text import MOST_BYTES, KeptText, Texts
from .layers import CrossAttentionLayer
from .measures import ForwardRecord, Measures

BEFORE_THE_START = 1e8
"""A sigma above all that are sampled; ComfyUI gives 999999999.9 for the start of the sampling."""


@dataclass
class SunRun:
    """One sampling run: negatives, and what was computed for its forwards so far, which `forget` frees."""

    source: BranchSource
    """What makes the branches of the layers."""
    negatives: Sequence[NegativeEntry]
    plain_names: frozenset[Hashable] = frozenset()
    """Names of conditioning entries whose rows are left plain: the sampler's negatives."""
    sigma_start: float = float("inf")
    sigma_end: float = 0.0
    images: int = 1
    """Images of the run, of which a context window evaluates some."""
    contexts_can_change: bool = True
    """Whether an entry's context may change from step to step, as context windows let it: then each is compared."""
    layers: Sequence[CrossAttentionLayer] = ()
    """Layers of the U-Net that may keep what they make of the text."""
    texts: Texts | None = None
    """Says whether the text stays the same, None if that is not known."""
    is_eager: bool = False
    """Whether the layers are known to be evaluated outside of torch.compile, which what they keep would disturb."""
    in_pairs: bool = False
    """Whether contexts have two tokens for each word, one for the key and one for the value, as those of NegPip."""
    is_compiled: Callable[[], bool] = lambda: False
    """Says whether torch.compile runs the U-Net or a part of it, of which nothing is recorded then."""
    evaluated_names: set[Hashable] = field(default_factory=set)
    """Names of the entries that were evaluated."""
    measures: Measures = field(default_factory=Measures)
    """What was counted so far."""
    _weights: Hashable = None
    """Which weights the U-Net had in the last forward."""
    _positives: dict[Hashable, CachedContext] = field(default_factory=dict)
    _window: Sequence[int] | None = None
    _in_window: dict[int, NegativeEntry] = field(default_factory=dict)
    """What the images in `_window` have of each negative."""
    _forwards: dict[Hashable, SunForward] = field(default_factory=dict)

    @cached_property
    def has_ranges(self) -> bool:
        """Whether what SUN does depends on sigma."""
        ranges = [(self.sigma_start, self.sigma_end), *((n.sigma_start, n.sigma_end) for n in self.negatives)]
        return any(end > 0 or start < BEFORE_THE_START for start, end in ranges)

    def reaches_range(self, sigmas: Tensor) -> bool:
        """Say whether a sampling of `sigmas`, (steps + 1,), reaches into the range of SUN, or no sampling could."""
        if self.sigma_start < self.sigma_end:
            return True
        first, last, end = float(sigmas[0]), float(sigmas[-2:][0]), float(sigmas[-1])
        has_begun = end == 0 or last <= self.sigma_start  # what a run leaves as noise it does not evaluate
        return first >= self.sigma_end and (has_begun or end < self.sigma_end)

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        names: Sequence[Hashable],
        sigma: Tensor,
        dtype: torch.dtype,
        window: Sequence[int] | None = None,
        weights: Hashable = None,
        reads_context: bool = False,
    ) -> SunForward | None:
        """Return what the next forward needs, None if SUN has nothing to do in it.

        x: (rows, channels, height, width); context: (rows, tokens, context_dim), c+ of the rows that SUN works on;
        names: which conditioning entry each chunk of rows is of; sigma: (rows,); dtype: what the U-Net computes in;
        window: which images the rows of a chunk are, None for all; weights: another value if hooks gave the U-Net
        other weights; reads_context: whether the U-Net's layers make their K and V of `context` itself.
        """
        if self.source.follows_weights and weights != self._weights:
            self.forget()
            self._weights = weights
        negatives = self.negatives
        if self.has_ranges:  # reading sigma waits for the device
            level = float(sigma[0])
            if not self.sigma_end <= level <= self.sigma_start:
                self.measures.out_of_range = True
                return None
            negatives = [entry for entry in negatives if entry.is_in_range(level)] or negatives
        self.measures.in_range = True
        if window is not None:
            negatives = [self._windowed(entry, window) for entry in negatives]
        is_sun = tuple(name not in self.plain_names for name in names)
        if not any(is_sun):
            return None
        row_count = x.shape[0]
        if row_count % len(names) or context.shape[0] != row_count:
            self.measures.unplaced.add((len(names), row_count))
            return None
        positives = []
        if self.source.reads_positives:
            chunks = zip(names, context.split(row_count // len(names)), is_sun, strict=True)
            positives = [self._positive(name, rows) for name, rows, sun in chunks if sun]
        key = (is_sun, *map(id, positives), *map(id, negatives), x.shape, x.device, dtype)
        forward = self._forwards.get(key)
        if forward is None:
            forward = self._forwards[key] = self._new_forward(x, positives, negatives, is_sun, dtype)
        texts = self.texts if reads_context and weights is None and None not in names else None
        if texts is None or not texts.are_same:
            return forward
        is_one_text = row_count > 1 and len(positives) == 1 == len(names) and len(positives[0].context) == 1
        return self._with_text((key, *names), forward, context, dtype, is_one_text) if self.is_eager else forward

    def _with_text(
        self, key: Hashable, forward: SunForward, context: Tensor, dtype: torch.dtype, is_one_text: bool
    ) -> SunForward:
        """Return `forward` for a context that stays the same under `key`: the same object every time."""
        if key not in self._forwards:
            text = self._kept_text(context, dtype)
            self._forwards[key] = forward if text is None else replace(forward, is_one_text=is_one_text, text=text)
        return self._forwards[key]

    def _kept_text(self, context: Tensor, dtype: torch.dtype) -> KeptText | None:
        """Return what keeps the layers' K and V of a context, None if that would take too much memory."""
        channels = 2 * sum(layer.hidden_dim for layer in self.layers)
        size = channels * context.shape[0] * context.shape[1] * dtype.itemsize
        kept = sum(forward.text.size for forward in self._forwards.values() if forward.text is not None)
        return KeptText(self.layers, size) if kept + size <= MOST_BYTES else None

    def count(self, record: ForwardRecord, names: Sequence[Hashable], rows: int, forward: SunForward | None) -> None:
        """Count an evaluation of `rows` rows, if the U-Net was evaluated at all."""
        is_recorded = len(record.called) >= self.measures.layers or not self.is_compiled()
        if is_recorded and not (record.entered or record.called):
            return
        if forward is not None:
            self.is_eager = len(record.called) >= len(self.layers)
        chunk_rows = rows / len(names)
        self.evaluated_names.update(names)
        self.measures.evaluations += 1
        self.measures.rows += rows
        self.measures.negative_rows += round(chunk_rows * sum(name in self.plain_names for name in names))
        self.measures.add(record, is_sun=forward is not None and is_recorded)

    def _new_forward(
        self,
        x: Tensor,
        positives: Sequence[CachedContext],
        negatives: Sequence[NegativeEntry],
        is_sun: Sequence[bool],
        dtype: torch.dtype,
    ) -> SunForward:
        chunk_rows = len(x) // len(is_sun)
        like = torch.empty(0, dtype=dtype, device=x.device)
        needed = Needed(negatives, positives, sum(is_sun), chunk_rows, x.shape[2:], like, self.in_pairs)
        sun_rows = [row for row in range(len(x)) if is_sun[row // chunk_rows]]
        return SunForward(
            layers=self.source.layers(needed),
            row_count=len(x),
            rows=None if all(is_sun) else torch.tensor(sun_rows, device=x.device),
            masked=negatives if len(negatives) > 1 and has_places(negatives, x.shape[2:]) else (),
            latent_size=x.shape[2:],
        )

    def _windowed(self, entry: NegativeEntry, window: Sequence[int]) -> NegativeEntry:
        if window != self._window:
            if any(self._in_window[id(entry)] is not entry for entry in self.negatives if id(entry) in self._in_window):
                self._forwards.clear()  # they hold what other images have
            self._window, self._in_window = window, {}
        if id(entry) not in self._in_window:
            self._in_window[id(entry)] = entry.in_window(window, self.images)
        return self._in_window[id(entry)]

    def _positive(self, name: Hashable, rows: Tensor) -> CachedContext:
        """Return the cached context of a chunk, (1 or rows, tokens, context_dim); comparing waits for the device."""
        key = (name, rows.shape, rows.device)
        cached = self._positives.get(key)
        can_change = self.contexts_can_change or name is None  # entries without a name are not told apart
        can_change = can_change or (self.texts is not None and not self.texts.are_same)
        if cached is None or (can_change and not torch.equal(cached.context.expand_as(rows), rows)):
            if cached is not None:
                self._forwards.clear()  # they hold what the context was before
            is_one_repeated = len(rows) == 1 or torch.equal(rows[:1].expand_as(rows), rows)
            cached = self._positives[key] = CachedContext(rows[:1] if is_one_repeated else rows)
        return cached

    def __deepcopy__(self, memo: dict) -> "SunRun":
        """Stay the same in copies of a run's options: it holds the layers of the U-Net."""
        return self

    def forget(self) -> None:
        """Free what was computed."""
        self._forwards.clear()
        self._positives.clear()
        for entry in (*self.negatives, *self._in_window.values()):
            entry.forget()


@dataclass
class RunReport:
    steps: int
    changes: Sequence[str] = ()
    """What the automatic settings overrode, such as "CFG 7 -> 1"."""
    findings: Sequence[str] = ()
    """What makes the picture another one than the artist asked for: a sentence with its remedy each."""
    enough_steps: int | None = None
    """How many steps the adapter is distilled for; None without one."""
    evaluations: int = 0
    """Forwards of the U-Net."""
    rows: int = 0
    """Rows of all evaluations."""
    layers: int = 0
    """Layers that SUN is in; 0 if it was not recorded in which of them it acted."""
    acted: int = 0
    """Layers in which SUN acted."""
    replayed: int = 0
    """Forwards that a CUDA graph did."""
    why_eager: str | None = None
    """Why the last of the other forwards was not one."""
    seconds: float = 0.0
    """Of sampling, once the models are loaded."""
    note: str | None = None
    """Why the node of this report did nothing."""
    _started: float = field(default=0.0, repr=False)

    def start(self) -> None:
        self._started = time.perf_counter()

    def stop(self) -> None:
        self.seconds = time.perf_counter() - self._started

    @property
    def way(self) -> str:
        """Say how the forwards were done on a GPU; empty elsewhere."""
        if self.why_eager is None:
            return "replayed as a CUDA graph" if self.replayed else ""
        return f"{self.replayed} of {self.evaluations} replayed as a CUDA graph: {self.why_eager}"

    @property
    def facts(self) -> str:
        """Say what was counted, changed and found: equal words for equal runs, for whoever keeps them."""
        if self.note:
            return self.note
        parts = [_count(self.steps, "step"), _count(self.evaluations, "evaluation"), _count(self.rows, "row")]
        if self.layers:
            parts.append(f"SUN in {self.acted} of {_count(self.layers, 'layer')}")
        return " · ".join([*parts, *self._changes_and_findings])

    def __str__(self) -> str:
        if self.note:
            return self.note
        is_too_much = self.enough_steps is not None and self.steps > 2 * self.enough_steps
        hint = f" ({self.enough_steps} {'is' if self.enough_steps == 1 else 'are'} enough)" if is_too_much else ""
        parts = [_count(self.steps, "step") + hint, _count(self.evaluations, "evaluation"), f"{self.seconds:.1f} s"]
        return " · ".join([*parts, *self._changes_and_findings])

    @property
    def _changes_and_findings(self) -> list[str]:
        changes = [f"automatic: {', '.join(self.changes)}"] if self.changes else []
        return [*changes, *self.findings]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
