"""What stands in a U-Net's cross-attention blocks while SUN is on its MODEL."""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import comfy.ldm.modules.attention
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .adapter import SunAdapter
from .conditioning import CachedContext, NegativeEntry
from .forward import Strengths, SunForward, layers_of
from .layers import CrossAttentionLayer, cross_attention_layers

FORWARD_KEY = "sun_forward"
"""Where transformer_options hold the SunForward of the forward that is on."""


class SunAttention:
    """The attn2 replacement of one layer: plain attention, the SUN offset, and what neighbours add.

    It wraps the replacement that it finds, and offers the `add` of IP-Adapter packs to those that come later.
    """

    def __init__(self, number: int, neighbour: Callable | None = None, callbacks: Sequence[tuple[Callable, dict]] = ()):
        self.number, self.neighbour, self.callbacks = number, neighbour, list(callbacks)

    def add(self, callback: Callable, **kwargs: Any) -> None:
        """`callback(out, q, k, v, extra_options, **kwargs)` gives a delta while sigma_end <= sigma <= sigma_start."""
        self.callbacks.append((callback, kwargs))

    def copy(self) -> "SunAttention":
        return SunAttention(self.number, self.neighbour, self.callbacks)

    def __deepcopy__(self, memo: dict) -> "SunAttention":
        """ComfyUI 0.3.75 deep-copies patches with the MODEL; weights that neighbours hold are to be shared."""
        return self.copy()

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
        """Return the layer's result before `to_out`; q, k, v: (rows, tokens, channels)."""
        forward: SunForward | None = extra_options.get(FORWARD_KEY)

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return comfy.ldm.modules.attention.optimized_attention(
                q,
                k,
                v,
                extra_options["n_heads"],
                attn_precision=extra_options.get("attn_precision"),
                transformer_options=extra_options,
            )

        if forward is not None and (forward.row_count == len(q) or _warn_of_rows(forward.row_count, len(q))):
            text, out = forward(self.number, q, k, v, attend, extra_options["activations_shape"][2:])
        else:
            text = out = attend(q, k, v)
        if self.neighbour is not None:
            out = out + (self.neighbour(q, k, v, extra_options) - text)
        if self.callbacks:
            sigma = float(extra_options["sigmas"][0])
            for callback, kwargs in self.callbacks:
                if kwargs["sigma_end"] <= sigma <= kwargs["sigma_start"]:
                    out = out + callback(out, q, k, v, extra_options, **kwargs)
        return out.to(q.dtype)


@cache
def _warn_of_rows(expected: int, found: int) -> bool:
    """Warn once for each case, thanks to the cache, that SUN leaves a layer plain."""
    logging.warning(
        f"Another node changes the batch inside cross-attention ({expected} -> {found} rows): SUN leaves it plain."
    )
    return False


def install(transformer_options: dict, layers: list[CrossAttentionLayer]) -> None:
    """Puts a SunAttention into every layer, around whatever replacement is there. Changes the dicts in place.

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


def separate_attentions(transformer_options: dict) -> None:
    """Replace SunAttentions by copies of their own: what neighbours add to a clone must not reach its original."""
    replace = transformer_options.get("patches_replace", {}).get("attn2", {})
    for key, patch in replace.items():
        if isinstance(patch, SunAttention):
            replace[key] = patch.copy()


def training_transformer_options(adapter: SunAdapter, negative_context: Tensor) -> dict[str, Any]:
    """transformer_options for a direct, differentiable call `unet(x, t, context=c, transformer_options=...)` with SUN.

    negative_context: (rows, tokens, context_dim), a negative for each row of the batch; nothing is kept between calls.
    """

    def diffusion_model(
        executor: Any, x: Tensor, timesteps: Tensor, context: Tensor, y: Any, control: Any, transformer_options: dict
    ) -> Tensor:
        install(transformer_options, cross_attention_layers(executor.class_obj))
        layers = layers_of(
            adapter,
            negatives=[NegativeEntry(negative_context)],
            positives=[CachedContext(context)],
            strengths=Strengths(),
            chunk_rows=len(x),
            latent_size=x.shape[2:],
            like=torch.empty(0, dtype=context.dtype, device=x.device),
        )
        transformer_options[FORWARD_KEY] = SunForward(layers, row_count=len(x))
        return executor(x, timesteps, context, y, control, transformer_options)

    return {"wrappers": {WrappersMP.DIFFUSION_MODEL: {"sun": [diffusion_model]}}}
