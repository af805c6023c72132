"""Whether a U-Net works as ComfyUI made it, or other packs have changed it."""

from typing import Any

import comfy.ldm.modules.attention
import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from .attention_patch import OVERRIDE_KEY, SunAttention

_CORE = (
    (openaimodel.UNetModel, "forward"),
    (openaimodel.UNetModel, "_forward"),
    (openaimodel.ResBlock, "forward"),
    (openaimodel.ResBlock, "_forward"),
    (openaimodel, "forward_timestep_embed"),
    (openaimodel, "apply_control"),
    (comfy.ldm.modules.attention.SpatialTransformer, "forward"),
    (comfy.ldm.modules.attention.BasicTransformerBlock, "forward"),
    (comfy.ldm.modules.attention.CrossAttention, "forward"),
    (torch.nn.GroupNorm, "forward"),
)
"""What a U-Net's forward is made of. Packs put functions of their own in these places, at any time."""
_AT_IMPORT = tuple(getattr(owner, name, None) for owner, name in _CORE)


def change_of(model: ModelPatcher) -> str | None:
    """Say what other packs changed about a MODEL's U-Net, in words for the report; None for nothing."""
    now = [getattr(owner, name, None) for owner, name in _CORE]
    if type(model.model.diffusion_model) is not openaimodel.UNetModel or any(
        function is not before or not function.__module__.startswith(("comfy.ldm.", "torch.nn."))
        for function, before in zip(now, _AT_IMPORT, strict=True)
    ):
        return "the U-Net is not ComfyUI's own"
    if any(key.startswith("diffusion_model") for key in (*model.object_patches, *model.object_patches_backup)):
        return "another node changes the U-Net's modules"
    if model.injections or model.hook_patches or model.forced_hooks:
        return "another node changes the model while it runs"
    return None


def reads_the_context_itself(options: dict[str, Any]) -> bool:
    """Say whether, by the options of an evaluation, the layers make their K and V of the context that the U-Net is
    given, and nothing of other packs gets hold of them.
    """
    if options.get("patches", {}).get("attn2_patch") or OVERRIDE_KEY in options:
        return False
    if len(wrappers_of_unet(options)) > 1:
        return False
    return only_sun_attends(options)


def only_sun_attends(options: dict[str, Any]) -> bool:
    """Say whether nothing of other packs stands in the cross-attention layers."""
    attentions = options.get("patches_replace", {}).get("attn2", {}).values()
    return all(isinstance(attention, SunAttention) and attention.is_alone for attention in attentions)


def wrappers_of_unet(options: dict[str, Any]) -> list[Any]:
    """Return what is put around the U-Net's forward, ours too."""
    of_keys = options.get("wrappers", {}).get(WrappersMP.DIFFUSION_MODEL, {}).values()
    return [wrapper for of_key in of_keys for wrapper in of_key]
