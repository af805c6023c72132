"""SUN in a direct, differentiable call of a U-Net: what training needs in place of ComfyUI's sampling."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import comfy.ldm.modules.attention
from comfy.patcher_extension import WrappersMP
from torch import Tensor
from torch.nn.functional import linear

from ..adapter import SunAdapter, SunLayer
from ..attention import combine, offset
from ..layers import cross_attention_layers

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(q, k, v) -> attention, each (rows, tokens, channels)."""


def training_transformer_options(adapter: SunAdapter, negative: Tensor) -> dict[str, Any]:
    """Make transformer_options for a call `unet(x, t, context=c, transformer_options=...)` with SUN on all rows.

    `negative` is c- of each row of the batch, (rows, tokens, context_dim). Nothing is kept between calls.
    """

    def diffusion_model(
        executor: Any, x: Tensor, timesteps: Tensor, context: Tensor, y: Any, control: Any, transformer_options: dict
    ) -> Tensor:
        positive = context if adapter.layout.extra_positive else None
        attn2 = {
            (*layer.block, layer.depth_index): StudentAttention(adapter[str(layer.number)], positive, negative.to(x))
            for layer in cross_attention_layers(executor.class_obj)
        }
        options = {**transformer_options, "patches_replace": {"attn2": attn2}}
        return executor(x, timesteps, context, y, control, options)

    return {"wrappers": {WrappersMP.DIFFUSION_MODEL: {"sun": [diffusion_model]}}}


@dataclass(frozen=True)
class StudentAttention:
    """The attn2 replacement of one layer in one evaluation."""

    layer: SunLayer
    positive: Tensor | None
    """c+, (rows, tokens, context_dim); None without the extra positive branch."""
    negative: Tensor
    """c-, (rows, tokens, context_dim)."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
        """Attend with SUN; q, k and v are the frozen layer's own."""
        attend = partial(
            comfy.ldm.modules.attention.optimized_attention,
            heads=extra_options["n_heads"],
            attn_precision=extra_options["attn_precision"],
            transformer_options=extra_options,
        )
        return student_attention(self.layer, q, attend(q, k, v), self.positive, self.negative, attend)


def student_attention(
    layer: SunLayer, q: Tensor, text: Tensor, positive: Tensor | None, negative: Tensor, attend: Attend
) -> Tensor:
    """Add the offsets of both branches to the text attention, differentiably (arXiv 2312.08887, sec. 3.2)."""
    neg = attend(q, _project(negative, layer.to_k_neg), _project(negative, layer.to_v_neg))
    negative_offset = offset(neg, text, layer.to_k_neg_alpha, layer.to_k_neg_beta)
    positive_offset = None
    if positive is not None:
        pos = attend(q, _project(positive, layer.to_k_extra_pos), _project(positive, layer.to_v_extra_pos))
        positive_offset = offset(pos, text, layer.to_k_extra_pos_alpha, layer.to_k_extra_pos_beta)
    return combine(text, negative_offset, positive_offset).to(q.dtype)


def _project(context: Tensor, projection: Any) -> Tensor:
    """Apply an fp32 projection in the context's dtype; the adapter's own call is for sampling, where weights move."""
    return linear(context, projection.weight.to(context.dtype))
