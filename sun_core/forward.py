"""One forward of the U-Net with SUN: which rows it works on, and what each layer adds there."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from .adapter import EXTRA_POSITIVE, NEGATIVE, SunAdapter
from .attention import add_offsets
from .conditioning import CachedContext, NegativeEntry, entry_shares, entry_weights, has_places
from .fused_offsets import add_offsets_fused, can_fuse

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of one layer: q (rows, tokens, channels), k and v (rows, context tokens, channels) -> as q."""

Project = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Makes K and V, each (rows, tokens, channels), of a context (rows, tokens, context_dim)."""

Pieces = Sequence[Tensor]
"""Keys or values of one branch, one piece for each chunk of rows: (1 or chunk_rows, tokens, channels)."""


@dataclass(frozen=True)
class LayerBranches:
    """The branches of one layer: what they attend to, and how they count. It does not change between steps."""

    keys: Sequence[Pieces]
    values: Sequence[Pieces]
    scales: Tensor
    """Signed strength * alpha of each branch: (branches, 1, 1, channels), fp32."""
    shift: Tensor
    """Sum of signed strength * beta: (channels,)."""
    chunk_rows: int
    project_text: Project | None = None
    """What makes K and V of the last branch, if that branch attends to the text."""

    def attend_with_text(self, q: Tensor, k: Tensor, v: Tensor, attend: Attend) -> Tensor:
        """Attend to the text and all branches: (rows, tokens, channels) -> (1 + branches, rows, tokens, channels).

        One call does it if all contexts have the same number of tokens.
        """
        rows = len(q)
        if any(pieces[0].shape[1] != k.shape[1] for pieces in self.keys):
            return self.attend_beside(attend(q, k, v), q, attend)
        count = (1 + len(self.keys)) * rows
        together = torch.cat([k, *self._pieces(self.keys), v, *self._pieces(self.values)])
        queries = q.expand(count, -1, -1) if rows == 1 else q.repeat(1 + len(self.keys), 1, 1)
        return attend(queries, together[:count], together[count:]).reshape(-1, *q.shape)

    def attend_beside(self, text: Tensor, q: Tensor, attend: Attend) -> Tensor:
        """Attend to the branches alone and put the text attention before them; shapes as in `attend_with_text`."""
        pairs = zip(self.keys, self.values, strict=True)
        return torch.stack([text, *(attend(q, self._joined(keys), self._joined(values)) for keys, values in pairs)])

    def tensors(self) -> list[Tensor]:
        """Return all tensors in the order that `with_tensors` takes."""
        pieces = [piece for of_branch in (*self.keys, *self.values) for piece in of_branch]
        return [*pieces, self.scales, self.shift]

    def with_tensors(self, tensors: Iterator[Tensor]) -> "LayerBranches":
        """Return the same branches on other tensors."""
        keys, values = (
            [[next(tensors) for _ in pieces] for pieces in of_branches] for of_branches in (self.keys, self.values)
        )
        return LayerBranches(keys, values, next(tensors), next(tensors), self.chunk_rows)

    def _pieces(self, of_branches: Sequence[Pieces]) -> list[Tensor]:
        rows = self.chunk_rows
        return [p if len(p) == rows else p.expand(rows, -1, -1) for pieces in of_branches for p in pieces]

    def _joined(self, pieces: Pieces) -> Tensor:
        if len(pieces) == 1:
            return pieces[0].expand(self.chunk_rows, -1, -1)
        return torch.cat([piece.expand(self.chunk_rows, -1, -1) for piece in pieces])


@dataclass
class SunForward:
    """What the layers need in one forward; rows come in chunks, one chunk per conditioning entry."""

    layers: Mapping[int, LayerBranches]
    row_count: int
    rows: Tensor | None = None
    """Indices of the rows to work on, None for all."""
    masked: Sequence[NegativeEntry] = ()
    """The negative entries, if any of them counts in places only."""
    latent_size: Sequence[int] = ()
    _weights: dict[tuple, Tensor] = field(default_factory=dict)

    def __call__(
        self, number: int, q: Tensor, k: Tensor, v: Tensor, attend: Attend, grid: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Return the plain text attention of layer `number`, and the layer's result with SUN, both before `to_out`.

        q: (rows, tokens, channels); grid: (height, width) of the layer.
        """
        layer = self.layers[number]
        if self.rows is None:
            attended = layer.attend_with_text(q, k, v, attend)
            return attended[0], self._combined(layer, attended, grid)
        text = attend(q, k, v)
        attended = layer.attend_beside(text[self.rows], q[self.rows], attend)
        return text, text.index_copy(0, self.rows, self._combined(layer, attended, grid))

    def tensors(self) -> list[Tensor]:
        """Return all tensors of the layers, in the order that `with_tensors` takes."""
        return [tensor for layer in self.layers.values() for tensor in layer.tensors()]

    def with_tensors(self, tensors: Iterator[Tensor]) -> "SunForward":
        """Return the same forward on other tensors."""
        layers = {number: layer.with_tensors(tensors) for number, layer in self.layers.items()}
        return replace(self, layers=layers, _weights={})

    def _combined(self, layer: LayerBranches, attended: Tensor, grid: Sequence[int]) -> Tensor:
        if not self.masked and can_fuse(attended, layer.scales):
            return add_offsets_fused(attended, layer.scales, layer.shift)
        weights = self._branch_weights(attended, grid) if self.masked else None
        return add_offsets(attended, layer.scales, layer.shift.to(attended.dtype), weights)

    def _branch_weights(self, attended: Tensor, grid: Sequence[int]) -> Tensor:
        """Where each branch counts: (branches, rows, tokens, 1); the extra positive counts everywhere."""
        key = (*grid, attended.shape[0], attended.shape[1], attended.dtype)
        if key not in self._weights:
            chunk_rows = next(iter(self.layers.values())).chunk_rows
            weights = entry_weights(self.masked, self.latent_size, grid, chunk_rows)
            weights = weights.repeat(1, attended.shape[1] // chunk_rows, 1, 1)
            others = attended.shape[0] - 1 - len(weights)
            self._weights[key] = torch.cat([weights, torch.ones_like(weights[:1]).repeat(others, 1, 1, 1)]).to(attended)
        return self._weights[key]


@dataclass(frozen=True)
class Strengths:
    """Factors of the two terms."""

    negative: float = 1.0
    positive: float = 1.0


def layers_of(
    adapter: SunAdapter,
    negatives: Sequence[NegativeEntry],
    positives: Sequence[CachedContext],
    strengths: Strengths,
    chunk_rows: int,
    latent_size: Sequence[int],
    like: Tensor,
) -> dict[int, LayerBranches]:
    """Make the branches of all layers of `adapter`, in the dtype and on the device of `like`.

    positives: c+ of each chunk of `chunk_rows` rows. Every negative entry is one branch, and the extra positive one.
    """
    shares = [1.0] * len(negatives) if has_places(negatives, latent_size) else entry_shares(negatives)
    scales, shift = _scales_and_shift(adapter, shares, strengths, like)
    sizes = [layer.hidden_dim for layer in adapter.values()]
    layers = {}
    for number, scale, beta in zip(adapter, scales.split(sizes, dim=-1), shift.split(sizes), strict=True):
        layer = adapter[number]
        branches = [
            [entry.keys_values(number, layer, NEGATIVE, like, chunk_rows)] * len(positives) for entry in negatives
        ]
        if adapter.layout.extra_positive:
            branches.append([c.keys_values(number, layer, EXTRA_POSITIVE, like, chunk_rows) for c in positives])
        keys = [[k for k, _ in pieces] for pieces in branches]
        values = [[v for _, v in pieces] for pieces in branches]
        project = partial(layer.keys_values, EXTRA_POSITIVE) if adapter.layout.extra_positive else None
        layers[int(number)] = LayerBranches(keys, values, scale, beta, chunk_rows, project)
    return layers


def _scales_and_shift(
    adapter: SunAdapter, shares: Sequence[float], strengths: Strengths, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the scales of all branches and the shift, of all layers side by side, in few operations.

    Returns: (branches, 1, 1, channels of all layers), fp32; (channels of all layers,), in the dtype of `like`.
    """

    def side_by_side(branch: str, which: str) -> Tensor:
        return torch.cat([adapter[number].per_channel(branch, which) for number in adapter]).to(
            like.device, torch.float
        )

    alpha, beta = (side_by_side(NEGATIVE, which) for which in ("alpha", "beta"))
    scales = [alpha * (-strengths.negative * share) for share in shares]
    shift = beta * -strengths.negative
    if adapter.layout.extra_positive:
        scales.append(side_by_side(EXTRA_POSITIVE, "alpha") * strengths.positive)
        shift = torch.add(shift, side_by_side(EXTRA_POSITIVE, "beta"), alpha=strengths.positive)
    return torch.stack(scales)[:, None, None], shift.to(like.dtype)
