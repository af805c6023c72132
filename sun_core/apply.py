"""Puts a SUN adapter on a ComfyUI MODEL: a MODEL in, a MODEL out."""

import logging
from collections.abc import Callable

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP

from .adapter import SunAdapter, check_fit
from .attention_patch import install, separate_attentions
from .hooks import Report, SunHooks, SunSettings
from .layers import cross_attention_layers
from .neighbours import SUN


def apply_sun(
    model: ModelPatcher,
    adapter: SunAdapter,
    settings: SunSettings,
    negative: list | None = None,
    report: Report = logging.info,
    may_capture: Callable[[], bool] = lambda: True,
) -> ModelPatcher:
    """Return a clone of `model` that samples with `adapter`; `model` itself stays as it is.

    `negative` (CONDITIONING) takes the place of the sampler's own. `report` is told what each run did;
    `may_capture` is asked at each run whether forwards may be captured as CUDA graphs.
    A MODEL that has a SUN adapter already gets this one in its place.
    Raises SunError if adapter and MODEL do not fit.
    """
    layers = cross_attention_layers(model.model.diffusion_model)
    check_fit(adapter, layers)
    patched = model.clone()
    patched.set_additional_models(SUN, [_adapter_patcher(adapter, model)])
    install(patched.model_options["transformer_options"], layers)
    hooks = SunHooks(settings, negative, report, may_capture)
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, hooks.outer_sample),
        (WrappersMP.SAMPLER_SAMPLE, hooks.sampler_sample),
        (WrappersMP.APPLY_MODEL, hooks.apply_model),
        (WrappersMP.DIFFUSION_MODEL, hooks.diffusion_model),
    ):
        patched.remove_wrappers_with_key(kind, SUN)
        patched.add_wrapper_with_key(kind, SUN, wrapper)
    for call, callback in ((CallbacksMP.ON_CLONE, _separate_clone), (CallbacksMP.ON_DETACH, hooks.detached)):
        patched.remove_callbacks_with_key(call, SUN)
        patched.add_callback_with_key(call, SUN, callback)
    return patched


def has_sun(model: ModelPatcher) -> bool:
    """Say whether `apply_sun` made this MODEL."""
    return bool(model.get_additional_models_with_key(SUN))


def _separate_clone(_: ModelPatcher, clone: ModelPatcher) -> None:
    separate_attentions(clone.model_options["transformer_options"])


def _adapter_patcher(adapter: SunAdapter, model: ModelPatcher) -> ModelPatcher:
    """Clone, for ComfyUI's model management beside `model`, the patcher that lives with the adapter.

    Without that one, ComfyUI would take the weights for leaked whenever a patched MODEL goes and the adapter stays.
    """
    if adapter.patcher is None:
        adapter.patcher = ModelPatcher(adapter, model.load_device, model.offload_device)
        adapter.patcher.cached_patcher_init = (_copied_adapter_patcher, (adapter.patcher,))
    patcher = adapter.patcher.clone()
    patcher.load_device, patcher.offload_device = model.load_device, model.offload_device
    return patcher


def _copied_adapter_patcher(patcher: ModelPatcher) -> ModelPatcher:
    """Copy the adapter for ComfyUI's multi-GPU, with weights of its own."""
    return ModelPatcher(patcher.model.copy().requires_grad_(False), patcher.load_device, patcher.offload_device)
