"""Normalized attention guidance (arXiv 2505.21179) on ComfyUI's cross-attention at CFG 1; for comparison only.

What a negative prompt's attention differs by is added to the positive's, held to `tau` times its norm, and blended in.
ComfyUI's own NAGuidance node (0.33.0) needs both prompts in one batch, which is what 4 evaluations are to avoid.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.ldm.modules.attention
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from sun_core.layers import cross_attention_layers


@dataclass(frozen=True)
class NagSettings:
    scale: float = 5.0
    tau: float = 2.5
    alpha: float = 0.25


def normalized_attention_guidance(positive: Tensor, negative: Tensor, settings: NagSettings) -> Tensor:
    """Guide attention as in section 3 of the paper, by the L1 norm of each token; shapes (rows, tokens, channels).

    The paper's phi is `scale` - 1 here, as in ComfyUI's node: at 1, `positive` comes out.
    """
    extrapolated = positive + (settings.scale - 1) * (positive - negative)
    norm = positive.abs().sum(-1, keepdim=True)
    ratio = extrapolated.abs().sum(-1, keepdim=True) / norm.clamp(min=1e-6)
    held = extrapolated * (ratio.clamp(max=settings.tau) / ratio.clamp(min=1e-6))
    return settings.alpha * held + (1 - settings.alpha) * positive


def apply_nag(model: ModelPatcher, settings: NagSettings) -> ModelPatcher:
    """Clone `model` and let its cross-attention steer away from the sampler's negative, in rows like the positive's."""
    patched, negative = model.clone(), {}

    def keep_negative(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        negative["context"] = executor.class_obj.conds["negative"][0]["cross_attn"]
        return executor(*args, **kwargs)

    def replacement(attention: Any) -> Callable[[Tensor, Tensor, Tensor, dict], Tensor]:
        def attend(q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
            context, heads = negative["context"].to(q), extra_options["n_heads"]
            optimized_attention = comfy.ldm.modules.attention.optimized_attention
            of_positive = optimized_attention(q, k, v, heads)
            of_negative = optimized_attention(q, attention.to_k(context), attention.to_v(context), heads)
            return normalized_attention_guidance(of_positive, of_negative, settings)

        return attend

    for layer in cross_attention_layers(model.model.diffusion_model):
        patched.set_model_attn2_replace(replacement(layer.attention), *layer.block)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "nag", keep_negative)
    return patched
