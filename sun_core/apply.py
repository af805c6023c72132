"""Puts a SUN adapter, or a negative prompt without one, on a ComfyUI MODEL: a MODEL in, a MODEL out."""

import logging
from collections.abc import Callable

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP

from .adapter import SunAdapter, check_fit
from .attention_patch import install, separate_attentions
from .branches import SUN
from .errors import SunError, Text
from .hooks import IdleHook, Report, SunHooks
from .layers import cross_attention_layers
from .neighbours import IDLE
from .settings import NegativeSettings, SunSettings
from .transformer_patch import install_in_transformer, separate_transformer
from .transformers import FAMILIES, transformer_of


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
    A MODEL that has a SUN adapter already gets this one in its place, and so does one with `apply_negative`, which an
    adapter at strength 0 leaves alone.
    Raises SunError if adapter and MODEL do not fit.
    """
    layers = cross_attention_layers(model.model.diffusion_model)
    check_fit(adapter, layers)
    former = _hooks_on(model)
    has_negative = former is not None and isinstance(former.settings, NegativeSettings)
    if has_negative and settings.is_off:
        return model.clone()
    patched = _with_hooks(model, SunHooks(settings, layers, negative, report, may_capture, adapter.steps))
    patched.set_additional_models(SUN, [_adapter_patcher(adapter, model)])
    if former is not None and has_negative:
        _let_idle(patched, former.report)
    return patched


def apply_negative(
    model: ModelPatcher,
    settings: NegativeSettings,
    negative: list | None = None,
    report: Report = logging.info,
    may_capture: Callable[[], bool] = lambda: True,
) -> ModelPatcher:
    """Return a clone of `model` on which the negative prompt counts at CFG 1, by normalized attention guidance.

    Arguments as in `apply_sun`. It needs no adapter; on a MODEL that has one, the adapter reads the negative, and
    `report` is told so. Raises SunError on a MODEL without cross-attention that reads the text alone.
    """
    layers = cross_attention_layers(model.model.diffusion_model)
    transformer = transformer_of(model.model.diffusion_model)
    if not layers and transformer is None:
        family = type(getattr(model.model, "model_config", model.model)).__name__
        raise SunError(
            "This MODEL is {family}, which Negative Prompt at CFG 1 does not work on; connect a model of Stable "
            "Diffusion 1.x, 2.x or SDXL, {families}, or one based on them.",
            family=family,
            families=Text(FAMILIES),
        )
    former = _hooks_on(model)
    if has_sun(model) and former is not None and not former.settings.is_off:
        return _let_idle(model.clone(), report)
    patched = _with_hooks(model, SunHooks(settings, layers, negative, report, may_capture))
    patched.remove_additional_models(SUN)  # an adapter at strength 0
    if transformer is not None:
        install_in_transformer(patched, transformer)
    return patched


def _with_hooks(model: ModelPatcher, hooks: SunHooks) -> ModelPatcher:
    """Return a clone of `model` with these hooks in place of others of ours."""
    patched = model.clone()
    install(patched.model_options["transformer_options"], hooks.layers)
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, hooks.outer_sample),
        (WrappersMP.SAMPLER_SAMPLE, hooks.sampler_sample),
        (WrappersMP.APPLY_MODEL, hooks.apply_model),
        (WrappersMP.DIFFUSION_MODEL, hooks.diffusion_model if hooks.layers else hooks.transformer),
    ):
        patched.remove_wrappers_with_key(kind, SUN)
        patched.add_wrapper_with_key(kind, SUN, wrapper)
    for call, callback in ((CallbacksMP.ON_CLONE, _separate_clone), (CallbacksMP.ON_DETACH, hooks.detached)):
        patched.remove_callbacks_with_key(call, SUN)
        patched.add_callback_with_key(call, SUN, callback)
    return patched


def _hooks_on(model: ModelPatcher) -> SunHooks | None:
    """Return our hooks on `model`."""
    wrappers = model.get_wrappers(WrappersMP.OUTER_SAMPLE, SUN)
    return wrappers[0].__self__ if wrappers else None


def _let_idle(patched: ModelPatcher, report: Report) -> ModelPatcher:
    """Let `report` be told, in each run of `patched`, that the adapter reads the negative."""
    patched.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, IDLE)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, IDLE, IdleHook(report).outer_sample)
    return patched


def has_sun(model: ModelPatcher) -> bool:
    """Say whether `apply_sun` made this MODEL."""
    return bool(model.get_additional_models_with_key(SUN))


def _separate_clone(_: ModelPatcher, clone: ModelPatcher) -> None:
    separate_attentions(clone.model_options["transformer_options"])
    separate_transformer(clone)


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
