"""SUN in a direct, differentiable call of a U-Net: what training needs in place of ComfyUI's sampling."""

from collections.abc import Callable
from functools import partial
from typing import Any

import comfy.ldm.modules.attention
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..adapter import SunAdapter, SunLayer
from ..attention import combine, offset
from ..layers import cross_attention_layers


def training_transformer_options(adapter: SunAdapter, negative: Tensor) -> dict[str, Any]:
    """Make transformer_options for a call `unet(x, t, context=c, transformer_options=...)` with SUN on all rows.

    `negative` is c- of each row of the batch, (rows, tokens, context_dim). Nothing is kept between calls.
    """

    def diffusion_model(
        executor: Any, x: Tensor, timesteps: Tensor, context: Tensor, y: Any, control: Any, transformer_options: dict
    ) -> Tensor:
        positive = context if adapter.layout.extra_positive else None
        attn2 = {
            (*layer.block, layer.depth_index): _attention(adapter[str(layer.number)], positive, negative)
            for layer in cross_attention_layers(executor.class_obj)
        }
        options = {**transformer_options, "patches_replace": {"attn2": attn2}}
        return executor(x, timesteps, context, y, control, options)

    return {"wrappers": {WrappersMP.DIFFUSION_MODEL: {"sun": [diffusion_model]}}}


def _attention(layer: SunLayer, positive: Tensor | None, negative: Tensor) -> Callable[..., Tensor]:
    """Make the attn2 replacement of one layer; `positive` is None without the extra positive branch."""

    def attention(q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
        attend = partial(
            comfy.ldm.modules.attention.optimized_attention,
            heads=extra_options["n_heads"],
            attn_precision=extra_options["attn_precision"],
            transformer_options=extra_options,
        )
        text = attend(q, k, v)
        neg = attend(q, *layer.negative_kv(negative.to(q)))
        negative_offset = offset(neg, text, layer.to_k_neg_alpha, layer.to_k_neg_beta)
        positive_offset = None
        if positive is not None:
            pos = attend(q, *layer.positive_kv(positive.to(q)))
            positive_offset = offset(pos, text, layer.to_k_extra_pos_alpha, layer.to_k_extra_pos_beta)
        return combine(text, negative_offset, positive_offset).to(q.dtype)

    return attention
