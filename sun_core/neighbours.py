"""What other packs put on a MODEL beside SUN, as a run finds it in its options."""

import math
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .branches import SUN
from .capture import COMPILE_KEY
from .guidance import name_of

IDLE = "sun_idle"
"""The key of the wrapper of a node that does nothing."""

_EXTRAS = Path(comfy.samplers.__file__).resolve().parents[1] / "comfy_extras"
_AROUND_EVALUATIONS = (
    *("context_handler", "model_function_wrapper"),
    *("sampler_calc_cond_batch_function", "sampler_pre_cfg_function"),
)
"""Where model_options hold what can give an entry other words before it is evaluated."""


def contexts_can_change(guider: Any, model_options: dict[str, Any]) -> bool:
    """Say whether something in a run may give an entry another context from step to step.

    ComfyUI itself does so in context windows only; what other packs put around an evaluation is not known.
    """
    if not _is_of_comfyui(type(guider).__module__) or any(
        function.__module__ != "comfy.samplers"
        for function in (comfy.samplers.calc_cond_batch, comfy.samplers._calc_cond_batch)
    ):
        return True
    if _has_evaluation_of_its_own(guider.inner_model):
        return True
    wrappers = model_options["transformer_options"].get("wrappers", {})
    foreign = any(key not in (SUN, IDLE, COMPILE_KEY) for of_kind in wrappers.values() for key in of_kind)
    return foreign or any(key in model_options for key in _AROUND_EVALUATIONS)


def _has_evaluation_of_its_own(base_model: Any) -> bool:
    """Say whether another pack has put a function in the place of this BaseModel's evaluation."""
    own = {name: vars(base_model).get(name) for name in ("apply_model", "_apply_model")}
    return any(
        function is not None and getattr(function, "__func__", None) is not getattr(type(base_model), name)
        for name, function in own.items()
    )


@cache
def _is_of_comfyui(module: str) -> bool:
    """Say whether a module is ComfyUI's own; it loads that of its extra nodes by path, and names it by that."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return module.startswith("comfy.") or (file is not None and Path(file).resolve().parent == _EXTRAS)


def may_change_contexts(guider: Any, transformer_options: dict[str, Any]) -> bool:
    """Say whether patches on the MODEL, or hooks of a prompt, may give cross-attention other contexts."""
    hooks = any(cond.get("hooks") for conds in guider.conds.values() for cond in conds)
    return hooks or bool(transformer_options.get("patches", {}).get("attn2_patch"))


def has_negpip(transformer_options: dict[str, Any]) -> bool:
    """Say whether NegPip is on the MODEL: words may count negatively, by two tokens for each, one for K, one for V."""
    patches = transformer_options.get("patches", {}).get("attn2_patch", ())
    return any("negpip" in getattr(patch, "__name__", "") for patch in patches)


def with_ranges(conds: Sequence[dict[str, Any]], sigmas: Tensor) -> list[dict[str, Any]]:
    """Give entries that smZNodes lets count in a part of the steps only, such as [dog:cat:0.5], that range in sigmas.

    sigmas: (steps + 1,), of the whole sampling. A boundary lies between the sigmas of two steps.
    """
    if not any("init_steps" in cond for cond in conds):
        return list(conds)
    levels = sigmas.tolist()  # it waits for the device
    steps = len(levels) - 1

    def sigma_before(share: Any) -> float:
        step = math.ceil(share * steps)
        if step <= 0:
            return math.inf
        return (levels[step - 1] + levels[step]) / 2 if step < steps else 0.0

    def with_range(cond: dict[str, Any]) -> dict[str, Any]:
        start, end = sigma_before(cond["start_perc"]), sigma_before(cond["end_perc"])
        return {
            **cond,
            "timestep_start": min(start, cond.get("timestep_start", math.inf)),
            "timestep_end": max(end, cond.get("timestep_end", 0.0)),
        }

    return [with_range(cond) if "init_steps" in cond else cond for cond in conds]


def compile_check(unet: torch.nn.Module, model_options: dict[str, Any]) -> Callable[[], bool]:
    """Return what says whether torch.compile runs the U-Net or a part of it; it looks at all modules, once.

    It keeps nothing of `model_options`, which hold the run that asks.
    """
    wrappers = model_options["transformer_options"].get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {})
    is_wrapped = COMPILE_KEY in wrappers

    @cache
    def is_compiled() -> bool:
        return is_wrapped or any(
            "_orig_mod" in module._modules or module._compiled_call_impl is not None for module in unet.modules()
        )

    return is_compiled


def move_to_end(transformer_options: dict[str, Any], kind: str) -> None:
    """Put SUN's wrapper inside all others of its kind, below any cache; change the dict in place."""
    wrappers = transformer_options["wrappers"][kind]
    wrappers[SUN] = wrappers.pop(SUN)


def with_first_wrapper(model_options: dict[str, Any], kind: str, wrapper: Callable) -> dict[str, Any]:
    """Return `model_options` with `wrapper` around all others of its kind."""
    transformer_options = model_options["transformer_options"]
    wrappers = transformer_options.get("wrappers", {})
    changed = {**wrappers, kind: {SUN: [wrapper], **wrappers.get(kind, {})}}
    return {**model_options, "transformer_options": {**transformer_options, "wrappers": changed}}


def caches(model_options: dict[str, Any]) -> str:
    """Name what other packs put around the U-Net and may answer for it: wrappers, or a function of the old kind."""
    wrappers = model_options["transformer_options"].get("wrappers", {})
    kinds = (WrappersMP.PREDICT_NOISE, WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL)
    keys = {key: None for kind in kinds for key in wrappers.get(kind, {})}
    names = [str(key) for key in keys if key not in (None, SUN, IDLE, COMPILE_KEY)]
    if (function := model_options.get("model_function_wrapper")) is not None:
        names.append(name_of(function))
    return ", ".join(names)
