"""What a run measures of itself where it happens, and what it finds: one sentence and its remedy for each.

A finding is whatever makes the picture another one than the artist asked for. It is found anew in every run.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce

from .errors import Text

RECORD_KEY = "sun_record"
"""Where transformer_options hold the ForwardRecord of the forward that is on."""


@dataclass
class ForwardRecord:
    """What happened in one forward, unless torch.compile ran it: compiled code records nothing."""

    entered: bool = False
    """Whether the U-Net itself was evaluated, and no cache answered for it."""
    called: set[int] = field(default_factory=set)
    """Layers whose SunAttention ran."""
    acted: set[int] = field(default_factory=set)
    """Layers that got what SUN adds."""
    unplaced: tuple[int, int] | None = None
    """Rows of the forward and of a layer's queries, if SUN could not tell which of these belong to which."""
    foreign_keys: bool = False
    """Whether a layer had more rows of keys than of queries."""

    def add_replay(self, layers: Iterable[int]) -> None:
        """Record that `layers` were replayed: they act as in the forward that was captured."""
        self.called.update(layers)
        self.acted.update(self.called)


@dataclass
class Measures:
    """What a run counted so far."""

    layers: int = 0
    """Layers that the adapter is in."""
    predictions: int = 0
    """Predictions that the sampler asked for."""
    skipped: int = 0
    """Predictions for which the U-Net was not evaluated."""
    evaluations: int = 0
    """Forwards of the U-Net."""
    rows: int = 0
    """Rows of all evaluations."""
    negative_rows: int = 0
    """Rows of the sampler's negative among them: a CFG pass."""
    dropped: int = 0
    """CFG passes that the automatic settings prevented."""
    scales: set[float] = field(default_factory=set)
    """CFG scales other than 1 that predictions were combined with."""
    wants_uncond: bool = False
    """Whether a node on the MODEL asks for the negative's prediction at CFG 1 too."""
    uncond_readers: list[str] = field(default_factory=list)
    """Functions on the MODEL that read the prediction for the negative and changed nothing with it."""
    evaluations_in_vain: int = 0
    """Forwards of the U-Net that these functions asked for."""
    discarded: dict[str, int] = field(default_factory=dict)
    """Functions on the MODEL that left nothing of what the U-Net predicted, and of how many predictions."""
    unused_prompts: list[str] = field(default_factory=list)
    """Prompts of the guider, apart from positive and negative, that were never evaluated."""
    unplaced: set[tuple[int, int]] = field(default_factory=set)
    """Rows that were expected and rows that were there, where SUN could not act."""
    foreign_keys: bool = False
    in_range: bool = False
    """Whether an evaluation was at a sigma at which SUN is to act."""
    out_of_range: bool = False
    """Whether one was at another sigma, in a run that reaches into the range all the same."""
    is_idle: bool = False
    """Whether the strengths let nothing of the adapter count."""
    sun_forwards: int = 0
    """Evaluations in which SUN was to act and which were recorded."""
    acted: set[int] = field(default_factory=set)
    """Layers in which SUN acted."""
    layers_run: list[list[int]] = field(default_factory=lambda: [[]])
    """How many layers each of these evaluations ran, prediction by prediction."""

    def add(self, record: ForwardRecord, is_sun: bool) -> None:
        """Count what happened in an evaluation; `is_sun` says whether SUN was to act in it."""
        self.acted |= record.acted
        self.foreign_keys |= record.foreign_keys
        if record.unplaced:
            self.unplaced.add(record.unplaced)
        if is_sun and record.entered:
            self.sun_forwards += 1
            self.layers_run[-1].append(len(record.called))

    def findings(self, *, automatic: bool, caches: str = "") -> list[str]:
        """Return the sentences for the artist; `caches` names what may have answered for the U-Net."""
        found = (
            self._unplaced(),
            self._foreign_keys(),
            self._layers(),
            self._range() or self._idle(),
            self._guidance() if automatic else None,
            self._uncond_readers(automatic),
            *map(self._discarded, self.discarded),
            self._unused_prompts(),
            self._bypassed(caches) or self._skipped(caches) or self._partly_run(caches),
        )
        return [sentence for sentence in found if sentence]

    def _unplaced(self) -> str | None:
        if not self.unplaced:
            return None
        expected, there = max(self.unplaced)
        return Text(
            "Another node changes the batch ({expected} -> {there} rows) in a way that SUN cannot follow, and SUN had "
            "no effect there; remove that node from the MODEL line.",
            expected=expected,
            there=there,
        )

    def _foreign_keys(self) -> str | None:
        if not self.foreign_keys:
            return None
        return Text(
            "This sampler applies the negative prompt in a way of its own, as KSamplerWithNAG does; SUN, which reads "
            "it already, left that out; use KSampler."
        )

    def _layers(self) -> str | None:
        if self.unplaced or not self.sun_forwards or len(self.acted) >= self.layers:
            return None
        return Text(
            "SUN acted in {acted} of {layers} layers, because another node replaces the others while sampling; remove "
            "that node from the MODEL line.",
            acted=len(self.acted),
            layers=self.layers,
        )

    def _range(self) -> str | None:
        if self.in_range or not self.out_of_range:
            return None
        return Text(
            'SUN had no effect, because no step of this run lies between its "start_percent" and its "end_percent"; '
            "lower the one or raise the other."
        )

    def _idle(self) -> str | None:
        if not self.is_idle:
            return None
        return Text(
            'SUN had no effect, because "negative_strength" is 0 and this adapter has no part for the positive prompt; '
            "raise it, or bypass the node."
        )

    def _guidance(self) -> str | None:
        if not self.negative_rows or (self.wants_uncond and not self.scales):
            return None
        return Text(
            "The sampler evaluated the negative prompt too{scale}, in {negative} of {rows} rows, where SUN needs CFG "
            "1; set CFG to 1 in the sampler and in every node on the MODEL line that sets it.",
            scale=Text(" with CFG {scale}", scale=f"{max(self.scales):g}") if self.scales else "",
            negative=self.negative_rows,
            rows=self.rows,
        )

    def _uncond_readers(self, automatic: bool) -> str | None:
        if not self.uncond_readers or self.negative_rows:
            return None
        names = _listed(self.uncond_readers)
        how = Text('set "settings" of the SUN node to "from sampler" and CFG above 1')
        how = how if automatic else Text("set CFG above 1")
        count, evaluations = self.evaluations_in_vain, self.evaluations
        wasted = Text(", wasting {count} of {evaluations} evaluations", count=count, evaluations=evaluations)
        if len(self.uncond_readers) > 1:
            return Text(
                "{names} have no effect at CFG 1{cost}, because they change what CFG does; remove them, or {how}.",
                names=names,
                cost=wasted if count else "",
                how=how,
            )
        return Text(
            "{names} has no effect at CFG 1{cost}, because it changes what CFG does; remove it, or {how}.",
            names=names,
            cost=wasted if count else "",
            how=how,
        )

    def _discarded(self, name: str) -> str:
        return Text(
            "{name} discards what the model predicts in {count} of {steps} steps, so that noise stays in the picture; "
            "remove it.",
            name=name,
            count=self.discarded[name],
            steps=self.predictions,
        )

    def _unused_prompts(self) -> str | None:
        if not self.unused_prompts:
            return None
        names = _listed(f'"{name}"' for name in self.unused_prompts)
        if len(self.unused_prompts) > 1:
            return Text(
                "The sampler's prompts {names} have no effect, because they would count by CFG alone; join them to the "
                "positive with Conditioning (Combine) or Conditioning (Concat).",
                names=names,
            )
        return Text(
            "The sampler's prompt {names} has no effect, because it would count by CFG alone; join it to the positive "
            "with Conditioning (Combine) or Conditioning (Concat).",
            names=names,
        )

    def _bypassed(self, caches: str) -> str | None:
        if not self.skipped or self.evaluations:
            return None
        return Text(
            "SUN had no effect, because another node{names} evaluates the model in a way of its own; remove that node "
            "from the MODEL line.",
            names=Text(" ({names})", names=caches) if caches else "",
        )

    def _partly_run(self, caches: str) -> str | None:
        # skip-layer guidance leaves layers out too, in a second evaluation beside a whole one
        most_of_each = [max(counts, default=0) for counts in self.layers_run]
        parts = sum(
            len(counts) for counts, most in zip(self.layers_run, most_of_each, strict=True) if most < max(most_of_each)
        )
        if not parts:
            return None
        return Text(
            "A cache on the MODEL{cache} answered for a part of the model in {count} of {evaluations} evaluations; "
            "remove it, because so few steps leave none to skip.",
            count=parts,
            evaluations=self.sun_forwards,
            cache=Text(" ({names})", names=caches) if caches else "",
        )

    def _skipped(self, caches: str) -> str | None:
        if not self.skipped:
            return None
        cache = Text(" ({names})", names=caches) if caches else ""
        if self.skipped == 1:
            return Text(
                "A cache on the MODEL{cache} skipped 1 step; remove it, because so few steps leave none to skip.",
                cache=cache,
            )
        return Text(
            "A cache on the MODEL{cache} skipped {count} steps; remove it, because so few steps leave none to skip.",
            count=self.skipped,
            cache=cache,
        )


def _listed(names: Iterable[str]) -> str:
    return reduce(lambda listed, name: Text("{one} and {other}", one=listed, other=name), names)
