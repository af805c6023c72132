"""Puts a SUN adapter on a ComfyUI MODEL; the one file that touches transformer_options.

Three wrappers on the ModelPatcher do it. OUTER_SAMPLE brings the automatic settings. SAMPLER_SAMPLE reads the negative
that the sampler holds (also at CFG 1, where it takes no part in the batch) and keeps what a run shares in the run's own
options, so that nothing outlives it. APPLY_MODEL finds out which rows of a batch are conditioned. What is left in the
cross-attention blocks themselves is a SunAttention, which holds no weights.
"""

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import comfy.ldm.modules.attention
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch import Tensor

from .adapter import SunAdapter, check_fit
from .automatic import automatic_settings
from .conditioning import area_as_mask, negative_entries
from .errors import SunError
from .layers import CrossAttentionLayer, cross_attention_layers
from .run import SunForward, SunRun
from .run_report import RunReport

SUN = "sun"
"""Our key among a ModelPatcher's wrappers, callbacks and additional models."""
RUN_KEY, FORWARD_KEY = "sun_run", "sun_forward"
"""Where transformer_options hold the run's SunRun and the forward's SunForward."""

Report = Callable[[RunReport], None]


@dataclass(frozen=True)
class SunSettings:
    """How an adapter works on a MODEL. Percents are of the sampling schedule, as everywhere in ComfyUI."""

    negative_strength: float = 1.0
    positive_strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    automatic: bool = True
    """CFG 1, trailing sigmas and a deterministic sampler, whatever the sampler says."""

    @property
    def is_off(self) -> bool:
        """At strength 0 the MODEL samples as if SUN were not there."""
        return self.negative_strength == 0 and self.positive_strength == 0


def apply_sun(
    model: ModelPatcher,
    adapter: SunAdapter,
    settings: SunSettings,
    negative: list | None = None,
    report: Report = logging.info,
) -> ModelPatcher:
    """A clone of `model` that samples with `adapter`; `model` itself stays as it is.

    `negative` (CONDITIONING) takes the place of the sampler's own. `report` is told what each run did.
    A MODEL that has a SUN adapter already gets this one in its place.
    Raises SunError where adapter and MODEL do not fit.
    """
    layers = cross_attention_layers(model.model.diffusion_model)
    check_fit(adapter, layers)
    patched = model.clone()
    patched.set_additional_models(SUN, [_adapter_patcher(adapter, model)])
    install(patched.model_options["transformer_options"], layers)
    running: list[RunReport] = []
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, _outer_sample_wrapper(settings, negative, report, running)),
        (WrappersMP.SAMPLER_SAMPLE, _sampler_sample_wrapper(settings, negative, running)),
        (WrappersMP.APPLY_MODEL, _apply_model_wrapper),
    ):
        patched.remove_wrappers_with_key(kind, SUN)
        patched.add_wrapper_with_key(kind, SUN, wrapper)
    patched.remove_callbacks_with_key(CallbacksMP.ON_CLONE, SUN)
    patched.add_callback_with_key(CallbacksMP.ON_CLONE, SUN, _separate_clone)
    return patched


def has_sun(model: ModelPatcher) -> bool:
    """Whether `apply_sun` made this MODEL."""
    return bool(model.get_additional_models_with_key(SUN))


def _adapter_patcher(adapter: SunAdapter, model: ModelPatcher) -> ModelPatcher:
    """What ComfyUI's model management loads and offloads beside `model`: a clone of one that lives with the adapter.

    Without that one, ComfyUI would take the weights for leaked whenever a patched MODEL goes and the adapter stays.
    """
    if adapter.patcher is None:
        adapter.patcher = ModelPatcher(adapter, model.load_device, model.offload_device)
        adapter.patcher.cached_patcher_init = (_copied_adapter_patcher, (adapter.patcher,))
    patcher = adapter.patcher.clone()
    patcher.load_device, patcher.offload_device = model.load_device, model.offload_device
    return patcher


def _copied_adapter_patcher(patcher: ModelPatcher) -> ModelPatcher:
    """For ComfyUI's multi-GPU: the adapter anew, with weights of its own."""
    copy = SunAdapter(patcher.model.layout, patcher.model.dtype)
    copy.load_state_dict(patcher.model.state_dict())
    return ModelPatcher(copy.requires_grad_(False), patcher.load_device, patcher.offload_device)


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
        attend = partial(
            comfy.ldm.modules.attention.optimized_attention,
            heads=extra_options["n_heads"],
            attn_precision=extra_options.get("attn_precision"),
            transformer_options=extra_options,
        )
        text = attend(q, k, v)
        out = text
        forward: SunForward | None = extra_options.get(FORWARD_KEY)
        if forward is not None and _knows_rows(forward.row_count, len(q)):
            out = forward(self.number, q, text, attend, extra_options["activations_shape"][2:])
        if self.neighbour is not None:
            out = out + (self.neighbour(q, k, v, extra_options) - text)
        if self.callbacks:
            sigma = float(extra_options["sigmas"][0])
            for callback, kwargs in self.callbacks:
                if kwargs["sigma_end"] <= sigma <= kwargs["sigma_start"]:
                    out = out + callback(out, q, k, v, extra_options, **kwargs)
        return out.to(q.dtype)


@cache
def _knows_rows(expected: int, found: int) -> bool:
    """Whether rows are where the batch has them; if not, says so (once, thanks to the cache)."""
    if expected != found:
        logging.warning(
            f"Another node changes the batch inside cross-attention ({expected} -> {found} rows): SUN leaves it plain."
        )
    return expected == found


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


def _separate_clone(_: ModelPatcher, clone: ModelPatcher) -> None:
    """Gives a clone its own SunAttentions: what neighbours add to it must not reach the MODEL that it came from."""
    replace = clone.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    for key, patch in replace.items():
        if isinstance(patch, SunAttention):
            replace[key] = patch.copy()


def _outer_sample_wrapper(
    settings: SunSettings, negative: list | None, report: Report, running: list[RunReport]
) -> Callable:
    """`running` holds the report of the run that is on while it is on, for the sampler's wrapper to fill in."""

    def sampled(run: RunReport, executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        running.append(run)
        try:
            samples = executor(*args, **kwargs)
        finally:
            running.pop()
        run.stop()  # here, where the samples have left the device: what it was asked for is done
        report(run)
        return samples

    def outer_sample(
        executor: Any, noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        if settings.is_off:
            return executor(noise, latent, sampler, sigmas, *args, **kwargs)
        guider = executor.class_obj
        if not negative and not guider.conds.get("negative"):
            raise SunError(
                f"SUN needs a negative prompt, which may be empty, and {_node_of(guider)} has none; use KSampler "
                "or CFGGuider, or connect one to the negative input of Apply SUN Adapter."
            )
        steps = len(sigmas) - 1
        if not settings.automatic:
            return sampled(RunReport(steps), executor, noise, latent, sampler, sigmas, *args, **kwargs)
        if conds := guider.conds.get("negative"):
            guider.conds["negative"] = [area_as_mask(cond, noise.shape[2:]) for cond in conds]
        with automatic_settings(guider, sampler, sigmas) as (sampler, sigmas, changes):
            return sampled(RunReport(steps, changes), executor, noise, latent, sampler, sigmas, *args, **kwargs)

    return outer_sample


def _node_of(guider: Any) -> str:
    """The node that made a guider, as an artist knows it."""
    return {"Guider_Basic": "BasicGuider"}.get(type(guider).__name__, type(guider).__name__)


def _sampler_sample_wrapper(settings: SunSettings, negative: list | None, running: list[RunReport]) -> Callable:
    def sampler_sample(
        executor: Any,
        guider: Any,
        sigmas: Tensor,
        extra_args: dict,
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        rest = (guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, *args)
        if settings.is_off:
            return executor(*rest, **kwargs)
        transformer_options = extra_args["model_options"]["transformer_options"]
        install(transformer_options, cross_attention_layers(guider.model_patcher.model.diffusion_model))
        if negative:
            conds = _processed(guider.inner_model, negative, noise, latent_image, denoise_mask)
        else:
            conds = guider.conds["negative"]
        run = transformer_options[RUN_KEY] = _new_run(guider, settings, conds, noise)
        report = running[-1]
        report.start()
        try:
            return executor(*rest, **kwargs)
        finally:
            report.evaluations = run.evaluations
            run.forget()

    return sampler_sample


def _new_run(guider: Any, settings: SunSettings, negative_conds: list[dict], noise: Tensor) -> SunRun:
    adapters = _adapters_by_device(guider.model_patcher)
    context_dim = next(iter(adapters.values())).layout.context_dim
    percent_to_sigma = guider.inner_model.model_sampling.percent_to_sigma
    return SunRun(
        adapters,
        negative_entries(negative_conds, context_dim, noise.shape[2:]),
        plain_names=_negative_uuids(guider),
        negative_strength=settings.negative_strength,
        positive_strength=settings.positive_strength,
        sigma_start=percent_to_sigma(settings.start_percent),
        sigma_end=percent_to_sigma(settings.end_percent),
    )


def _adapters_by_device(model: ModelPatcher) -> dict[torch.device, SunAdapter]:
    """The adapter on the MODEL's device and on those of its multi-GPU clones (ComfyUI 0.33), each with its own copy."""
    patchers = [model, *model.get_additional_models_with_key("multigpu")]
    return {patcher.load_device: patcher.get_additional_models_with_key(SUN)[0].model for patcher in patchers}


def _processed(
    base_model: Any, conditioning: list, noise: Tensor, latent_image: Tensor | None, denoise_mask: Tensor | None
) -> list[dict]:
    """A CONDITIONING as ComfyUI's sampling would make it for its own, apart from what acts outside of the words."""
    conds = [area_as_mask(cond, noise.shape[2:]) for cond in comfy.sampler_helpers.convert_cond(conditioning)]
    for cond in conds:
        for outside in ("control", "gligen", "hooks"):
            cond.pop(outside, None)
    processed = comfy.samplers.process_conds(
        base_model, noise, {"negative": conds}, noise.device, latent_image, denoise_mask
    )
    return processed["negative"]


def _negative_uuids(guider: Any) -> frozenset:
    """The uuids of the guider's negatives, made theirs alone.

    Where the positive has an area, ComfyUI adds a negative entry for it that carries the positive's uuid.
    """
    uuids = set()
    for name, conds in guider.conds.items():
        if "negative" in name:
            guider.conds[name] = [{**cond, "uuid": uuid.uuid4()} for cond in conds]
            uuids |= {cond["uuid"] for cond in guider.conds[name]}
    return frozenset(uuids)


def _apply_model_wrapper(
    executor: Any,
    x: Tensor,
    t: Tensor,
    c_concat: Tensor | None = None,
    c_crossattn: Tensor | None = None,
    control: Any = None,
    transformer_options: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Tensor:
    transformer_options = dict(transformer_options or {})
    run: SunRun | None = transformer_options.get(RUN_KEY)
    if run is not None and c_crossattn is not None:
        names = transformer_options.get("uuids", (None,))
        run.evaluations += 1
        transformer_options[FORWARD_KEY] = run.forward(x, c_crossattn, names, sigma=float(t[0]))
    return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
