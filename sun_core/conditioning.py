"""What a run's negative conditioning means to SUN.

ComfyUI predicts once per entry of a conditioning and averages the predictions; SUN attends once per entry and averages
the offsets, or without an adapter the attentions, with the same weights:

- combined entries all count, each with its own strength;
- a mask or an area weighs an entry at each place of the picture; if no entry reaches a place, all count there as if
  unmasked, and so they do if the positive has an area, for then the U-Net sees only a cut-out;
- an entry with a timestep range counts only in that range; if none is in range, all count;
- a long negative (n x 77 tokens) is attended to as a whole;
- ControlNets, hooks and pooled outputs of a negative say nothing about its words and play no part.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from .errors import SunError

KeysValues = tuple[Tensor, Tensor]
"""K and V, each (rows, tokens, hidden_dim)."""

Project = Callable[[Tensor], KeysValues]
"""Makes K and V of a context (rows, tokens, context_dim)."""

BESIDE_THE_CONTEXT = ("encoder_hidden_states_t5", "text_embedding_mask", "text_embedding_mask_t5")
"""Arguments, beside the context, that hold a prompt's words: those of Hunyuan-DiT."""


class CachedContext:
    """A context (rows, tokens, context_dim) and the keys and values that layers made of it so far."""

    def __init__(self, context: Tensor):
        self.context = context
        self._like: dict[tuple, Tensor] = {}
        self._kv: dict[tuple, KeysValues] = {}
        self._through: dict[tuple, CachedContext] = {}

    def keys_values(self, number: str, project: Project, like: Tensor, rows: int) -> KeysValues:
        """Return K and V of layer `number`, made by `project` at first use: (1 or rows, tokens, hidden_dim).

        They are in the dtype and on the device of `like`; a context of one row stays one row.
        """
        key = (number, like.device, like.dtype)
        if key not in self._kv:
            self._kv[key] = project(self._cast(like))
        k, v = self._kv[key]
        return (k, v) if k.shape[0] in (1, rows) else (repeat_rows(k, rows), repeat_rows(v, rows))

    def through(self, adapter: Callable[[Tensor], Tensor], like: Tensor) -> "CachedContext":
        """Return what the model's text adapter makes of the context at first use, in the dtype and on the device of
        `like`.
        """
        key = (like.device, like.dtype)
        if key not in self._through:
            self._through[key] = CachedContext(adapter(self._cast(like)))
        return self._through[key]

    def _cast(self, like: Tensor) -> Tensor:
        """Return the context in the dtype and on the device of `like`, cast once for all layers."""
        key = (like.device, like.dtype)
        if key not in self._like:
            self._like[key] = self.context.to(like)
        return self._like[key]

    def forget(self) -> None:
        """Free what was computed."""
        self._like.clear()
        self._kv.clear()
        self._through.clear()


class NegativeEntry(CachedContext):
    """One entry of the negative conditioning: its context, when it counts (sigmas), and where (weights)."""

    def __init__(
        self,
        context: Tensor,
        strength: float = 1.0,
        places: Tensor | None = None,
        sigma_start: float = float("inf"),
        sigma_end: float = 0.0,
        beside: Mapping[str, Tensor] | None = None,
    ):
        """`places`: (1 or rows, height, width) at the latent's size, None for everywhere; `beside`: what else of the
        words the model takes, (1 or rows, ...) each, by the names of its arguments.
        """
        super().__init__(context)
        self.strength, self.places, self.beside = strength, places, beside or {}
        self.sigma_start, self.sigma_end = sigma_start, sigma_end

    def is_in_range(self, sigma: float) -> bool:
        return self.sigma_end <= sigma <= self.sigma_start

    def in_window(self, window: Sequence[int], images: int) -> "NegativeEntry":
        """Return what the images in a context window have of this entry; itself if all `images` have the same."""

        def cut(tensor: Tensor) -> Tensor:
            return tensor if len(tensor) == 1 else repeat_rows(tensor, images)[list(window)]

        context, places = cut(self.context), None if self.places is None else cut(self.places)
        if context is self.context and places is self.places:
            return self
        beside = {name: cut(tensor) for name, tensor in self.beside.items()}
        return NegativeEntry(context, self.strength, places, self.sigma_start, self.sigma_end, beside)


def window_of(transformer_options: dict[str, Any]) -> Sequence[int] | None:
    """Return the images that a context window evaluates, None without one.

    ComfyUI passes the window itself, in 0.33 with an image before it that is evaluated and dropped;
    AnimateDiff-Evolved passes its indices.
    """
    window = transformer_options.get("context_window")
    if window is not None and getattr(window, "dim", None) == 0:
        anchor = getattr(window, "causal_anchor_index", None)
        anchors = () if anchor is None or anchor < 0 else (anchor,)
        return (*anchors, *window.index_list)
    indices = transformer_options.get("ad_params", {}).get("sub_idxs")
    return None if indices is None else tuple(indices)


def negative_entries(
    conds: Sequence[dict[str, Any]], context_dim: int, latent_size: Sequence[int]
) -> list[NegativeEntry]:
    """Make entries of conds as `comfy.samplers.process_conds` leaves them; SunError if their text width is another.

    ComfyUI adds copies of entries there, for the areas of the positive; a copy shares its model_conds and is left out.
    """
    own: dict[int, dict[str, Any]] = {}
    if any("c_crossattn" not in cond["model_conds"] for cond in conds):
        raise SunError(
            "The negative conditioning holds no text; connect a CLIP Text Encode to the negative input, with an empty "
            "text if nothing is to be avoided."
        )
    for cond in conds:
        own.setdefault(id(cond["model_conds"]["c_crossattn"]), cond)
    return [_negative_entry(cond, context_dim, latent_size) for cond in own.values()]


def _negative_entry(cond: dict[str, Any], context_dim: int, latent_size: Sequence[int]) -> NegativeEntry:
    context = _words(cond["model_conds"])
    if context.shape[-1] != context_dim:
        raise SunError(
            "The negative prompt was encoded {wide} wide, but this MODEL reads {context_dim}; encode it with the CLIP "
            "of the checkpoint that is connected.",
            wide=context.shape[-1],
            context_dim=context_dim,
        )
    return NegativeEntry(
        context,
        strength=cond.get("strength", 1.0),
        places=_places(cond, latent_size),
        sigma_start=cond.get("timestep_start", float("inf")),
        sigma_end=cond.get("timestep_end", 0.0),
        beside={name: cond["model_conds"][name].cond for name in BESIDE_THE_CONTEXT if name in cond["model_conds"]},
    )


def _words(model_conds: dict[str, Any]) -> Tensor:
    """Return the context without its padding, (rows, tokens, context_dim), if the model masks that.

    Attention without these tokens equals attention that masks them.
    """
    context = model_conds["c_crossattn"].cond
    if "attention_mask" not in model_conds:
        return context
    mask = model_conds["attention_mask"].cond.bool()
    if mask.shape[-1] != context.shape[1]:  # ComfyUI itself cannot evaluate it either
        raise SunError(
            "The negative prompt has {tokens} tokens but a mask for {masked}, as after Conditioning (Concat), and "
            "this MODEL cannot read that; encode the whole negative prompt in one node.",
            tokens=context.shape[1],
            masked=mask.shape[-1],
        )
    if not (mask == mask[:1]).all():
        raise SunError(
            "The images of this batch have negative prompts of different lengths, which this MODEL cannot read; use "
            "one negative prompt for all images."
        )
    return context[:, mask[0]]


def _places(cond: dict[str, Any], latent_size: Sequence[int]) -> Tensor | None:
    """Say where an entry counts, in each frame of a video; None for everywhere, and for latents of neither kind."""
    mask = area_as_mask(cond, latent_size).get("mask") if len(latent_size) in (2, 3) else None
    if mask is None:
        return None
    of_frames = mask.reshape(len(mask), -1, *mask.shape[-2:])  # ComfyUI gives a video's masks a dimension for frames
    return of_frames.float().mean(dim=1).cpu() * cond.get("mask_strength", 1.0)


def area_as_mask(cond: dict[str, Any], latent_size: Sequence[int]) -> dict[str, Any]:
    """Return `cond` with a mask (1 or rows, height, width) instead of its area, which may be one of a video.

    A negative with an area would make ComfyUI evaluate the positive once more, on a cut-out.
    """
    cond = {**cond, "set_area_to_bounds": False}
    area = cond.pop("area", None)
    if area is None:
        return cond
    size = tuple(latent_size[-2:])
    is_share = area[0] == "percentage"
    numbers = area[1:] if is_share else area
    dimensions = len(numbers) // 2
    places = [*numbers[:dimensions][-2:], *numbers[dimensions:][-2:]]
    height, width, top, left = (round(n * size[i % 2]) if is_share else n for i, n in enumerate(places))
    mask = cond.get("mask", torch.ones(1, *size))
    if mask.shape[-2:] != size:
        mask = mask.reshape(-1, 1, *mask.shape[-2:])
        mask = torch.nn.functional.interpolate(mask, size=size, mode="bilinear").squeeze(1)
    inside = torch.zeros_like(mask)
    inside[..., top : top + max(height, 1), left : left + max(width, 1)] = 1.0
    return {**cond, "mask": mask * inside}


def entry_shares(entries: Sequence[NegativeEntry]) -> list[float]:
    """Return each entry's share of the average by its strength: they sum to 1, or to 0 if several have no strength."""
    if len(entries) == 1:
        return [1.0]
    total = sum(entry.strength for entry in entries) or 1.0
    return [entry.strength / total for entry in entries]


def has_places(entries: Sequence[NegativeEntry], latent_size: Sequence[int]) -> bool:
    """Say whether an entry counts in places only; `latent_size` is the size that the U-Net sees."""
    return any(entry.places is not None and entry.places.shape[1:] == tuple(latent_size[-2:]) for entry in entries)


def entry_weights(
    entries: Sequence[NegativeEntry], latent_size: Sequence[int], grid: Sequence[int], rows: int
) -> Tensor:
    """Return each entry's share of the average at each token, summing to 1: (entries, rows, tokens, 1).

    `latent_size` is the size that the U-Net sees, `grid` the layer's own (height, width).
    """
    weights = torch.stack([entry.strength * _to_tokens(entry.places, latent_size, grid, rows) for entry in entries])
    everywhere = torch.tensor(entry_shares(entries)).to(weights).view(-1, 1, 1, 1)
    total_weight = weights.sum(dim=0)
    return torch.where(total_weight > 0, weights / total_weight.clamp_min(1e-9), everywhere)


def _to_tokens(places: Tensor | None, latent_size: Sequence[int], grid: Sequence[int], rows: int) -> Tensor:
    """Scale (1 or n, height, width) at the latent's size to (rows, tokens, 1) at the layer's."""
    if places is None or places.shape[1:] != tuple(latent_size[-2:]):
        return torch.ones(rows, grid[0] * grid[1], 1)
    scaled = torch.nn.functional.interpolate(places.unsqueeze(1), size=tuple(grid), mode="area")
    return repeat_rows(rearrange(scaled, "b 1 h w -> b (h w) 1"), rows)


def repeat_rows(tensor: Tensor, rows: int) -> Tensor:
    """Give `tensor` `rows` rows, as ComfyUI spreads conditionings over a batch: repeated from the start, or cut."""
    if tensor.shape[0] == 1:
        return tensor.expand(rows, *tensor.shape[1:])
    copies = -(-rows // tensor.shape[0])
    return tensor.repeat(copies, *[1] * (tensor.ndim - 1))[:rows]
