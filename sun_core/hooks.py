"""What runs around ComfyUI's sampling while SUN is on a MODEL: four wrappers, methods of one SunHooks.

`outer_sample` brings the automatic settings. `sampler_sample` reads the negative that the sampler holds (also at CFG 1,
where it takes no part in the batch) and puts the SunRun into the run's own options, so that nothing outlives it.
`apply_model` finds out which rows of a batch are conditioned. `diffusion_model` may let a CUDA graph do it.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from math import inf
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .attention_patch import FORWARD_KEY, install, record_contexts
from .branches import SUN, of_all_devices
from .capture import Replays
from .conditioning import negative_entries, window_of
from .errors import SunError
from .forward import SunForward
from .graphs import Captures, Evaluation, Inputs, free_graphs
from .guidance import Guidance
from .guider_conds import (
    give_negatives_own_uuids,
    names_of,
    node_of,
    processed_negative,
    turn_negative_areas_into_masks,
    unused_prompts,
)
from .kept_text import Texts
from .layers import CrossAttentionLayer
from .measures import RECORD_KEY, ForwardRecord, Measures
from .neighbours import (
    caches,
    compile_check,
    contexts_can_change,
    has_negpip,
    may_change_contexts,
    move_to_end,
    with_first_wrapper,
    with_ranges,
)
from .own_unet import change_of, reads_the_context_itself
from .run import RunReport, SunRun
from .settings import Settings
from .transformer_patch import options_for_layers

RUN_KEY, REPLAYS_KEY = "sun_run", "sun_replays"
"""Where transformer_options hold the run's SunRun and its Replays."""

ADAPTER_READS_THE_NEGATIVE = (
    "Negative Prompt at CFG 1 does nothing here: the SUN adapter on this MODEL reads the negative prompt already."
)

Report = Callable[[RunReport], None]


class SunHooks:
    """The wrappers of one patched MODEL; its clones share them."""

    def __init__(
        self,
        settings: Settings,
        layers: list[CrossAttentionLayer],
        negative: list | None,
        report: Report,
        may_capture: Callable[[], bool],
        enough_steps: int | None = None,
    ):
        """`layers` are those of the MODEL's U-Net, none for a transformer; `negative` (CONDITIONING) takes the place of
        the sampler's own; `report` is told what each run did; `may_capture` is asked at each run whether forwards may
        be captured as CUDA graphs; `enough_steps` is what the adapter is distilled for.
        """
        self.settings, self.layers, self.negative = settings, layers, negative
        self.report, self.may_capture, self.enough_steps = report, may_capture, enough_steps
        self.captures = Captures()
        self.was_eager = False
        """Whether the last run's layers were evaluated outside of torch.compile."""
        self.running: RunReport | None = None
        """The report of the run that is on."""

    def __deepcopy__(self, memo: dict) -> "SunHooks":
        """Stay the same in copies of a run's options: the running report is one."""
        return self

    def outer_sample(
        self, executor: Any, noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Sample with the automatic settings, or with the sampler's own, and report the run."""
        if self.settings.is_off:
            return executor(noise, latent, sampler, sigmas, *args, **kwargs)
        guider = executor.class_obj
        self._check_negative(guider)
        run = RunReport(len(sigmas) - 1, enough_steps=self.enough_steps)
        if not self.settings.automatic:
            return self._reported(run, executor, noise, latent, sampler, sigmas, *args, **kwargs)
        turn_negative_areas_into_masks(guider, noise)
        run.findings = self.settings.findings_of_part(guider, sigmas)
        with self.settings.automatic_settings(guider, sampler, sigmas) as (sampler, sigmas, run.changes):
            return self._reported(run, executor, noise, latent, sampler, sigmas, *args, **kwargs)

    def _reported(self, run: RunReport, executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        outer, self.running = self.running, run
        try:
            samples = executor(*args, **kwargs)
        finally:
            self.running = outer
        run.stop()  # here, where the samples have left the device: what it was asked for is done
        self.report(run)
        return samples

    def sampler_sample(
        self,
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
        """Sample with a SunRun in the options of the run."""
        rest = (guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, *args)
        if self.settings.is_off:
            return executor(*rest, **kwargs)
        if self.running is None:  # OUTER_SAMPLE runs around SAMPLER_SAMPLE, if it is still there
            raise SunError(
                "A node behind the SUN node on the MODEL line has removed a part of SUN, as BrushNet does; put the SUN "
                "node behind that node."
            )
        model_options = extra_args["model_options"]
        transformer_options = model_options["transformer_options"]
        install(transformer_options, self.layers)
        if self.layers and may_change_contexts(guider, transformer_options):
            record_contexts(transformer_options)
        if self.negative is not None:
            conds = processed_negative(guider.inner_model, self.negative, noise, latent_image, denoise_mask)
        else:
            conds = guider.conds["negative"]
        conds = with_ranges(conds, model_options.get("sigmas", sigmas))  # smZNodes puts all that are sampled there
        run = transformer_options[RUN_KEY] = self._new_run(guider, conds, noise, model_options)
        replays = transformer_options[REPLAYS_KEY] = Replays(self.captures, guider.model_patcher, self.may_capture())
        guidance = Guidance(run.measures, names_of(guider, "positive"), run.plain_names, self.settings.automatic)
        guidance.install(model_options, SUN, *(() if run.texts is None else (run.texts.calc_cond_batch,)))
        move_to_end(transformer_options, WrappersMP.DIFFUSION_MODEL)
        self.running.start()
        with ExitStack() as ends:
            ends.callback(run.forget)
            ends.callback(replays.end)
            try:
                with self._counted_predictions(guider, run.measures):
                    return executor(*rest, **kwargs)
            finally:
                self.was_eager = run.is_eager
                guidance.end()
                run.measures.unused_prompts = unused_prompts(guider, run.evaluated_names)
                run.measures.out_of_range = run.measures.out_of_range and run.reaches_range(sigmas)
                self._complete(self.running, run.measures, replays, caches(model_options))

    def _check_negative(self, guider: Any) -> None:
        """Raise SunError if there is no negative prompt."""
        if self.negative or (self.negative is None and guider.conds.get("negative")):
            return
        if self.negative is not None:
            raise SunError(
                "The negative conditioning that {node} got is an empty list; connect a CLIP Text Encode to its "
                "negative input, with an empty text if nothing is to be avoided.",
                node=self.settings.node,
            )
        if "negative" in guider.conds:
            raise SunError(
                "The negative conditioning that the sampler got is an empty list; connect a CLIP Text Encode to the "
                "sampler's negative input, with an empty text if nothing is to be avoided."
            )
        raise SunError(
            "SUN needs a negative prompt, which may be empty, and {guider} has none; use KSampler or CFGGuider, or "
            "connect one to the negative input of {node}.",
            guider=node_of(guider),
            node=self.settings.node,
        )

    def _complete(self, report: RunReport, measures: Measures, replays: Replays, cache_names: str) -> None:
        """Put into a run's report what was measured."""
        report.evaluations, report.rows = measures.evaluations, measures.rows
        if measures.sun_forwards:
            report.layers, report.acted = measures.layers, len(measures.acted)
        if self.layers and replays.model.load_device.type == "cuda":  # transformers are not captured
            report.replayed, report.why_eager = replays.count, replays.why_eager
        if measures.dropped and not any("CFG" in change for change in report.changes):
            report.changes = ["CFG -> 1", *report.changes]
        found = measures.findings(automatic=self.settings.automatic, caches=cache_names)
        report.findings = [*report.findings, *found]

    @contextmanager
    def _counted_predictions(self, guider: Any, measures: Measures) -> Iterator[None]:
        """Count the predictions that the sampler asks `guider` for, and those that no evaluation was made for."""

        def predict_noise(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
            before = measures.evaluations
            measures.layers_run.append([])
            prediction = executor(*args, **kwargs)
            measures.predictions += 1
            measures.skipped += measures.evaluations == before
            return prediction

        options = guider.model_options
        guider.model_options = with_first_wrapper(options, WrappersMP.PREDICT_NOISE, predict_noise)
        try:
            yield
        finally:
            guider.model_options = options

    def _new_run(self, guider: Any, negative_conds: list[dict], noise: Tensor, model_options: dict) -> SunRun:
        source = self.settings.source(guider.model_patcher)
        percent_to_sigma = guider.inner_model.model_sampling.percent_to_sigma
        can_change = contexts_can_change(guider, model_options)
        may_stay = self.layers and not can_change and change_of(guider.model_patcher) is None
        is_on_one_device = len(of_all_devices(guider.model_patcher)) == 1
        return SunRun(
            source,
            negative_entries(negative_conds, source.context_dim, noise.shape[2:]),
            plain_names=give_negatives_own_uuids(guider),
            sigma_start=percent_to_sigma(self.settings.start_percent) if self.settings.start_percent > 0 else inf,
            sigma_end=percent_to_sigma(self.settings.end_percent) if self.settings.end_percent < 1 else 0.0,
            images=len(noise),
            contexts_can_change=can_change,
            layers=self.layers,
            texts=Texts() if may_stay and is_on_one_device else None,
            is_eager=self.was_eager,
            in_pairs=has_negpip(model_options["transformer_options"]),
            is_compiled=compile_check(guider.model_patcher.model.diffusion_model, model_options),
            measures=Measures(layers=source.layer_count, is_idle=source.is_idle),
        )

    def apply_model(
        self,
        executor: Any,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Evaluate the model with a SunForward in the options of this forward."""
        transformer_options = dict(transformer_options or {})
        run: SunRun | None = transformer_options.get(RUN_KEY)
        if run is None or c_crossattn is None:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
        names = transformer_options.get("uuids", (None,))
        dtype, weights = _compute_dtype(executor.class_obj), _hooked_weights(executor.class_obj)
        window, reads_context = window_of(transformer_options), reads_the_context_itself(transformer_options)
        forward = run.forward(x, c_crossattn, names, t, dtype, window, weights, reads_context)
        record = ForwardRecord(entered=not run.source.has_wrappers)  # without wrappers, nothing tells
        transformer_options |= {FORWARD_KEY: forward, RECORD_KEY: record}
        with options_for_layers(transformer_options):
            prediction = executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
        run.count(record, names, len(x), forward)
        return prediction

    def diffusion_model(
        self,
        executor: Any,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Evaluate the U-Net, as a CUDA graph if that is safe."""
        options = transformer_options or {}
        if not torch.compiler.is_compiling() and RECORD_KEY in options:
            options[RECORD_KEY].entered = True
        sun: SunForward | None = options.get(FORWARD_KEY)
        if torch.compiler.is_compiling() or sun is None:
            return executor(x, timesteps, context, y, control, options, **kwargs)

        def unet(inputs: Inputs, options: dict[str, Any]) -> Tensor:
            with options[FORWARD_KEY].text_given_for(inputs["context"]):
                arguments = (inputs["x"], inputs["timesteps"], inputs["context"], inputs["y"], control, options)
                return executor(*arguments, **kwargs)

        inputs = {"x": x, "timesteps": timesteps, "context": context, "y": y}
        replays = options[REPLAYS_KEY]
        if control is not None or kwargs:
            replays.why_eager = "ControlNet or another node adds inputs"
            return unet(inputs, options)
        count = replays.count
        prediction = replays(Evaluation(unet, inputs, options, sun, FORWARD_KEY))
        if replays.count > count and RECORD_KEY in options:
            options[RECORD_KEY].add_replay(sun.layers)
        return prediction

    def transformer(self, executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Evaluate a transformer, whose arguments every family has others of."""
        options = kwargs.get("transformer_options") or next((a for a in args if isinstance(a, dict)), {})
        if not torch.compiler.is_compiling() and RECORD_KEY in options:
            options[RECORD_KEY].entered = True
        return executor(*args, **kwargs)

    def detached(self, model: ModelPatcher, unpatches_all: bool) -> None:
        """Free the CUDA graphs of a MODEL that leaves its device, those of its clones too."""
        if unpatches_all:
            free_graphs(model.model)


class IdleHook:
    """The wrapper of a Negative Prompt at CFG 1 on a MODEL with an adapter: it reports that it does nothing."""

    def __init__(self, report: Report):
        self.report = report

    def __deepcopy__(self, memo: dict) -> "IdleHook":
        """Stay the same in copies of a run's options."""
        return self

    def outer_sample(
        self, executor: Any, noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Sample, and report."""
        samples = executor(noise, latent, sampler, sigmas, *args, **kwargs)
        self.report(RunReport(len(sigmas) - 1, note=ADAPTER_READS_THE_NEGATIVE))
        return samples


def _compute_dtype(base_model: Any) -> torch.dtype:
    """Return what ComfyUI computes a U-Net in, as its BaseModel.apply_model decides."""
    return base_model.manual_cast_dtype or base_model.get_dtype()


def _hooked_weights(base_model: Any) -> Hashable:
    """Say which weights ComfyUI's hooks (LoRAs of a conditioning) have given a U-Net."""
    hooks = base_model.current_patcher.current_hooks
    return None if hooks is None else frozenset((hook.hook_ref, hook.strength) for hook in hooks.hooks)
