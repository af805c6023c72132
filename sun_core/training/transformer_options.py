"""SUN in a direct, differentiable call of a U-Net: what training needs in place of ComfyUI's sampling."""

from typing import Any

from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..adapter import SunAdapter
from ..attention_patch import FORWARD_KEY, install
from ..branches import SUN, Needed, Strengths, layers_of
from ..conditioning import CachedContext, NegativeEntry
from ..forward import SunForward
from ..layers import cross_attention_layers


def training_transformer_options(adapter: SunAdapter, negative: Tensor) -> dict[str, Any]:
    """Make transformer_options for a call `unet(x, t, context=c, transformer_options=...)` with SUN on all rows.

    `negative` is c- of each row of the batch, (rows, tokens, context_dim). Nothing is kept between calls.
    """

    def diffusion_model(
        executor: Any, x: Tensor, timesteps: Tensor, context: Tensor, y: Any, control: Any, transformer_options: dict
    ) -> Tensor:
        negatives = [NegativeEntry(negative.to(x))]  # cast once, not in every layer
        needed = Needed(negatives, [CachedContext(context)], 1, len(x), x.shape[2:], x)
        layers = layers_of(adapter, needed, Strengths())
        options = {**transformer_options, FORWARD_KEY: SunForward(layers, row_count=len(x)), "patches_replace": {}}
        install(options, cross_attention_layers(executor.class_obj))
        return executor(x, timesteps, context, y, control, options)

    return {"wrappers": {WrappersMP.DIFFUSION_MODEL: {SUN: [diffusion_model]}}}
