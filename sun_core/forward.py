"""One forward of the U-Net with SUN: which rows it works on, and what each layer makes of its branches there."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from .attention import add_offsets
from .conditioning import NegativeEntry, Project, entry_weights
from .fused_offsets import add_offsets_fused, can_fuse
from .kept_text import KeptText

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of one layer: q (rows, tokens, channels), k and v (rows, context tokens, channels) -> as q."""

LARGE = 2**16
"""Numbers in a layer's queries above which memory costs a CPU more than operations do: one call of the attention for
all branches copies their queries, keys and values, and one tensor for all copies what they attended to.
"""

Pieces = Sequence[Tensor]
"""Keys or values of one branch, one piece for each chunk of rows: (1 or chunk_rows, tokens, channels)."""


Attended = Tensor | Sequence[Tensor]
"""What text and branches attended to, text first: (rows, tokens, channels) each, in one tensor or one by one."""


class Combine(Protocol):
    """Makes the layer's result, before `to_out`, of what the text and all branches attended to."""

    def __call__(self, attended: Attended, weights: Tensor | None) -> Tensor:
        """(1 + branches, rows, tokens, channels), text first -> (rows, tokens, channels).

        weights: where each branch counts, (branches, rows, tokens, 1) in the dtype of `attended`; None for everywhere.
        """
        ...

    @property
    def constants(self) -> Hashable:
        """What else the result depends on, which a captured forward keeps as it was."""
        ...

    def tensors(self) -> list[Tensor]:
        """Return all tensors in the order that `with_tensors` takes."""
        ...

    def with_tensors(self, tensors: Iterator[Tensor]) -> "Combine":
        """Return the same with other tensors."""
        ...


@dataclass(frozen=True)
class Offsets:
    """Adds the offsets of all branches to the text: how an adapter counts."""

    scales: Tensor
    """Signed strength * alpha of each branch: (branches, 1, 1, channels), fp32."""
    shift: Tensor
    """Sum of signed strength * beta: (channels,)."""
    constants = None

    def __call__(self, attended: Attended, weights: Tensor | None) -> Tensor:
        """Combine as `attention.add_offsets` does; shapes as in Combine."""
        if weights is None and isinstance(attended, Tensor) and can_fuse(attended, self.scales):
            return add_offsets_fused(attended, self.scales, self.shift)
        dtype = (attended if isinstance(attended, Tensor) else attended[0]).dtype
        return add_offsets(attended, self.scales, self.shift.to(dtype), weights)

    def tensors(self) -> list[Tensor]:
        """Return all tensors in the order that `with_tensors` takes."""
        return [self.scales, self.shift]

    def with_tensors(self, tensors: Iterator[Tensor]) -> "Offsets":
        """Return the same with other tensors."""
        return Offsets(next(tensors), next(tensors))


@dataclass
class LayerBranches:
    """The branches of one layer: what they attend to, and how they count. It does not change between steps."""

    keys: Sequence[Pieces]
    values: Sequence[Pieces]
    combine: Combine
    chunk_rows: int
    project_text: Project | None = None
    """What makes K and V of the last branch, if that branch attends to the text."""
    _keys: list[Tensor] = field(init=False, repr=False)
    """Keys of all branches, spread over their rows without taking memory: (chunk_rows, tokens, channels) each."""
    _values: list[Tensor] = field(init=False, repr=False)
    _tokens: int | None = field(init=False, repr=False)
    """How many tokens each branch has, None if they differ."""
    _single: bool = field(init=False, repr=False)
    """Whether each branch has the same keys and values for all rows."""

    def __post_init__(self) -> None:
        """Prepare what every step needs."""
        self._keys, self._values = self._spread(self.keys), self._spread(self.values)
        lengths = {pieces[0].shape[1] for pieces in self.keys}
        self._tokens = lengths.pop() if len(lengths) == 1 else None
        self._single = all(len(pieces) == 1 and pieces[0].shape[0] == 1 for pieces in self.keys)

    def attend_with_text(self, q: Tensor, k: Tensor, v: Tensor, attend: Attend, is_one_text: bool = False) -> Attended:
        """Attend to the text and all branches: (rows, tokens, channels) -> (1 + branches, rows, tokens, channels).

        One call does it if all contexts have the same number of tokens and it takes no longer; on a CPU, bits are the
        same. If all rows have one text (`is_one_text`) and the same branches, their tokens attend as those of one row
        on other devices, and nothing is copied for each row.
        """
        if k.shape[1] != self._tokens or _is_large(q):
            return self.attend_beside(attend(q, k, v), q, attend)
        shape, copies = q.shape, 1 + len(self.keys)
        if self._single and (shape[0] == 1 or (is_one_text and _may_join_rows(q))):
            queries = q.reshape(1, -1, shape[2]).expand(copies, -1, -1)
            of_branches = [[pieces[0] for pieces in branches] for branches in (self.keys, self.values)]
            k, v = (k, v) if shape[0] == 1 else (k[:1], v[:1])
        else:
            queries, of_branches = q.repeat(copies, 1, 1), [self._keys, self._values]
        keys, values = torch.cat([k, *of_branches[0], v, *of_branches[1]]).chunk(2)
        return attend(queries, keys, values).reshape(copies, *shape)

    def attend_beside(self, text: Tensor, q: Tensor, attend: Attend) -> Attended:
        """Attend to the branches alone and put the text attention before them; shapes as in `attend_with_text`."""
        pairs = zip(self.keys, self.values, strict=True)
        attended = [text, *(attend(q, self._joined(keys), self._joined(values)) for keys, values in pairs)]
        return attended if _is_large(text) else torch.stack(attended)

    def tensors(self) -> list[Tensor]:
        """Return all tensors in the order that `with_tensors` takes."""
        pieces = [piece for of_branch in (*self.keys, *self.values) for piece in of_branch]
        return [*pieces, *self.combine.tensors()]

    def with_tensors(self, tensors: Iterator[Tensor]) -> "LayerBranches":
        """Return the same branches on other tensors."""
        keys, values = (
            [[next(tensors) for _ in pieces] for pieces in of_branches] for of_branches in (self.keys, self.values)
        )
        return replace(self, keys=keys, values=values, combine=self.combine.with_tensors(tensors))

    def _spread(self, of_branches: Sequence[Pieces]) -> list[Tensor]:
        return [self._over_rows(piece) for pieces in of_branches for piece in pieces]

    def _joined(self, pieces: Pieces) -> Tensor:
        if len(pieces) == 1:
            return self._over_rows(pieces[0])
        return torch.cat([self._over_rows(piece) for piece in pieces])

    def _over_rows(self, piece: Tensor) -> Tensor:
        return piece if piece.shape[0] == self.chunk_rows else piece.expand(self.chunk_rows, -1, -1)


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
    is_one_text: bool = False
    """Whether several rows are known to have the same text. Without an adapter nothing reads it: it is not known.

    A layer's K and V may still be of other words. `text` knows whether they are. A captured forward has no `text`, and
    is captured only where nothing changes the words.
    """
    text: KeptText | None = None
    """What the layers made of the text, if that stays the same in the run."""
    _weights: dict[tuple, Tensor] = field(default_factory=dict)

    def __call__(
        self, number: int, q: Tensor, k: Tensor, v: Tensor, attend: Attend, grid: Sequence[int], one_call: bool = True
    ) -> tuple[Attended, Tensor]:
        """Return what layer `number` attended to, the text first, and its result with SUN, both before `to_out`.

        q: (rows, tokens, channels); grid: (height, width) of the layer; one_call: whether `attend` may be given text
        and branches as more rows than q has.
        """
        if self.rows is None and one_call:
            layer = self.layers[number]
            is_one_text = self.is_one_text and (self.text is None or self.text.has(number, k, v))
            attended = layer.attend_with_text(q, k, v, attend, is_one_text)
            return attended, self._combined(layer, attended, grid)
        text = attend(q, k, v)
        return (text,), self.beside(number, text, q, attend, grid)

    def beside(self, number: int, text: Tensor, q: Tensor, attend: Attend, grid: Sequence[int]) -> Tensor:
        """Return the result of layer `number` with SUN, before `to_out`, if the text attention is there already.

        text, q: (rows, tokens, channels); grid: (height, width) of the layer.
        """
        layer = self.layers[number]
        if self.rows is None:
            return self._combined(layer, layer.attend_beside(text, q, attend), grid)
        attended = layer.attend_beside(text[self.rows], q[self.rows], attend)
        return text.index_copy(0, self.rows, self._combined(layer, attended, grid))

    def __deepcopy__(self, memo: dict) -> "SunForward":
        """Stay the same in copies of an evaluation's options: it holds layers of the U-Net and of the adapter."""
        return self

    def text_given_for(self, context: Tensor | None) -> AbstractContextManager[None]:
        """Within, the U-Net's layers give what they kept of the text if they are called with `context` itself."""
        return nullcontext() if self.text is None else self.text.given_for(context)

    def tensors(self) -> list[Tensor]:
        """Return all tensors of the layers, in the order that `with_tensors` takes."""
        return [tensor for layer in self.layers.values() for tensor in layer.tensors()]

    def constants(self) -> list[Hashable]:
        """Return what else each layer's result depends on."""
        return [layer.combine.constants for layer in self.layers.values()]

    def with_tensors(self, tensors: Iterator[Tensor]) -> "SunForward":
        """Return the same forward on other tensors."""
        layers = {number: layer.with_tensors(tensors) for number, layer in self.layers.items()}
        return replace(self, layers=layers, text=None, _weights={})

    def _combined(self, layer: LayerBranches, attended: Attended, grid: Sequence[int]) -> Tensor:
        return layer.combine(attended, self._branch_weights(attended, grid) if self.masked else None)

    def _branch_weights(self, attended: Attended, grid: Sequence[int]) -> Tensor | None:
        """Where each branch counts: (branches, rows, tokens, 1); the extra positive counts everywhere.

        The tokens of a video are those of its frames, one after the other; None for everywhere, if there are others.
        """
        text = attended[0]
        frames, rest = divmod(text.shape[1], grid[0] * grid[1])
        if rest:
            return None
        key = (*grid, len(attended), *text.shape[:2], text.dtype)
        if key not in self._weights:
            chunk_rows = next(iter(self.layers.values())).chunk_rows
            weights = entry_weights(self.masked, self.latent_size, grid, chunk_rows)
            weights = weights.repeat(1, len(text) // chunk_rows, frames, 1)
            others = len(attended) - 1 - len(weights)
            self._weights[key] = torch.cat([weights, torch.ones_like(weights[:1]).repeat(others, 1, 1, 1)]).to(text)
        return self._weights[key]


def _may_join_rows(q: Tensor) -> bool:
    """Say whether tokens of all rows may attend as those of one: on a CPU that would change a picture's last bits."""
    return not q.is_cpu


def _is_large(q: Tensor) -> bool:
    return q.is_cpu and q.numel() > LARGE
