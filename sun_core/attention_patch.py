"""What stands in a U-Net's cross-attention blocks while SUN is on its MODEL."""

from collections.abc import Callable, Sequence
from typing import Any

import comfy.ldm.modules.attention
import torch
from torch import Tensor

from .errors import SunError
from .forward import SunForward
from .layers import CrossAttentionLayer
from .measures import RECORD_KEY, ForwardRecord
from .widened import CONTEXT_KEY, record_context, widened

FORWARD_KEY = "sun_forward"
"""Where transformer_options hold the SunForward of the forward that is on."""
OVERRIDE_KEY = "optimized_attention_override"
"""Where they hold what computes attention, if ComfyUI's own does not."""


class SunAttention:
    """The attn2 replacement of one layer: plain attention, the SUN offset, and what neighbours add.

    It wraps the replacement that it finds, and offers the `add` of IP-Adapter packs to those that come later.
    """

    def __init__(self, number: int, neighbour: Callable | None = None, callbacks: Sequence[tuple[Callable, dict]] = ()):
        self.number, self.neighbour, self.callbacks = number, neighbour, list(callbacks)

    @property
    def is_alone(self) -> bool:
        """Whether nothing of other packs acts in this layer."""
        return self.neighbour is None and not self.callbacks

    def add(self, callback: Callable, **kwargs: Any) -> None:
        """Add `callback(out, q, k, v, extra_options, **kwargs)`: a delta while sigma_end <= sigma <= sigma_start."""
        self.callbacks.append((callback, kwargs))

    def set_new_condition(self, *args: Any, **kwargs: Any) -> None:
        """Refuse what IP-Adapter of 2023 adds to its own patch: it would hand over weights and no callback."""
        raise SunError(
            "This IP-Adapter node cannot follow SUN, because it expects its own kind on the MODEL line; put it before "
            "the SUN node, or use ComfyUI_IPAdapter_plus, which works in either order."
        )

    def copy(self) -> "SunAttention":
        return SunAttention(self.number, self.neighbour, self.callbacks)

    def __deepcopy__(self, memo: dict) -> "SunAttention":
        """Share the weights that neighbours hold: ComfyUI 0.3.75 deep-copies patches with the MODEL."""
        return self.copy()

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
        """Return the layer's result before `to_out`; q, k, v: (rows, tokens, channels).

        A fast GPU waits for these lines: what the ordinary layer does not need, it does not do.
        """
        rows = q.shape[0]
        forward: SunForward | None = extra_options.get(FORWARD_KEY)
        record: ForwardRecord | None = None if torch.compiler.is_compiling() else extra_options.get(RECORD_KEY)
        if record is not None:
            record.called.add(self.number)
        if k.shape[0] > rows:  # another sampler has put the rows of its negative behind the positive's
            k, v = k[:rows], v[:rows]
            if record is not None:
                record.foreign_keys = True

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return comfy.ldm.modules.attention.optimized_attention(
                q,
                k,
                v,
                extra_options["n_heads"],
                attn_precision=extra_options.get("attn_precision"),
                transformer_options=extra_options,
            )

        if forward is not None and forward.row_count != rows:
            expected = forward.row_count
            forward = widened(forward, self.number, rows, extra_options.get(CONTEXT_KEY))
            if forward is None and record is not None:
                record.unplaced = (expected, rows)
        if forward is not None:
            one_call = OVERRIDE_KEY not in extra_options  # which may know rows by cond_or_uncond
            attended, out = forward(self.number, q, k, v, attend, extra_options["activations_shape"][2:], one_call)
            if record is not None:
                record.acted.add(self.number)
        else:
            out = attend(q, k, v)
            attended = (out,)
        if not self.is_alone:
            out = self._with_neighbours(out, attended[0], q, k, v, extra_options)
        return out if out.dtype == q.dtype else out.to(q.dtype)

    def _with_neighbours(
        self, out: Tensor, text: Tensor, q: Tensor, k: Tensor, v: Tensor, extra_options: dict
    ) -> Tensor:
        """Add what neighbours add to `text`, the plain attention, to `out`."""
        if self.neighbour is not None:
            out = out + (self._neighbour_alone(q, k, v, extra_options) - text)
        if self.callbacks:
            sigma = float(extra_options["sigmas"][0])
            for callback, kwargs in self.callbacks:
                if kwargs["sigma_end"] <= sigma <= kwargs["sigma_start"]:
                    out = out + callback(out, q, k, v, extra_options, **kwargs)
        return out

    def _neighbour_alone(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
        """Call the neighbour without SUN: it may have wrapped a SunAttention that it found, which gives text then."""
        assert self.neighbour is not None
        forward = extra_options.get(FORWARD_KEY)
        extra_options[FORWARD_KEY] = None
        try:
            return self.neighbour(q, k, v, extra_options)
        finally:
            extra_options[FORWARD_KEY] = forward


def install(transformer_options: dict, layers: list[CrossAttentionLayer]) -> None:
    """Put a SunAttention into every layer, around whatever replacement is there; change the dicts in place.

    The U-Net looks for (block, id, index) first, then for (block, id). IP-Adapter packs use the short key where a block
    has one transformer, so SUN does too, and takes what has the long one with it: there it would switch them off.
    """
    replace = transformer_options.setdefault("patches_replace", {}).setdefault("attn2", {})
    for layer in layers:
        short, long = layer.block, (*layer.block, layer.depth_index)
        found = [patch for patch in (replace.get(long), replace.get(short)) if patch is not None]
        ours = next((patch for patch in found if isinstance(patch, SunAttention)), SunAttention(layer.number))
        neighbour = next((patch for patch in found if not isinstance(patch, SunAttention)), ours.neighbour)
        if layer.depth == 1:
            replace.pop(long, None)
        replace[short if layer.depth == 1 else long] = SunAttention(layer.number, neighbour, ours.callbacks)


def record_contexts(transformer_options: dict) -> None:
    """Let SUN see the contexts that other packs' attn2 patches give to a block; change the dict in place."""
    patches = transformer_options.get("patches", {})
    last = [*patches.get("attn2_patch", ()), record_context]
    transformer_options["patches"] = {**patches, "attn2_patch": last}


def separate_attentions(transformer_options: dict) -> None:
    """Replace SunAttentions by copies of their own: what neighbours add to a clone must not reach its original."""
    replace = transformer_options.get("patches_replace", {}).get("attn2", {})
    for key, patch in replace.items():
        if isinstance(patch, SunAttention):
            replace[key] = patch.copy()
