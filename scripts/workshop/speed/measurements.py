"""All figures of the benchmark, in an order that lets it say first how long it takes."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from sun_core.adapter import SunAdapter, load_adapter, save_adapter
from sun_core.apply import apply_negative, apply_sun
from sun_core.branches import SUN
from sun_core.settings import NegativeSettings, SunSettings

from .device import device, graph_memory, machine, timed
from .forwards import measure_forwards, measure_host, measure_operations
from .measured import Figure, Figures
from .memory_management import start_dynamic_vram
from .random_models import TINY_UNET, Sampler, full_size_model, random_weights, tiny_model
from .sampling_runs import PLAIN_CFG, PLAIN_STEPS, SUN_STEPS, measure_busy, measure_fixed_costs, measure_runs

MOST_SECONDS = 225.0
"""What everything may take; repeats are chosen by it."""
OTHER_SECONDS = 15.0
"""What starting, capturing and profiling take of that."""
SHARE_OF_RUNS = 0.7
"""What whole runs may take of the rest; single forwards take what these leave."""
MOST_REPEATS = 6
FEWEST_TURNS, MOST_TURNS = 4, 8
"""Runs of 4 steps of each MODEL for one run of 25: they take little time, and a machine's speed wanders."""
FEWEST_FORWARDS, MOST_FORWARDS = 4, 40
EVALUATIONS_OF_A_FORWARD = 3
"""Evaluations for each measured forward of SUN, or of Negative Prompt at CFG 1: its own, and both that are timed."""
TINY_STEPS = 60
NAG = "NAG"
"""What Negative Prompt at CFG 1 is called in the table."""
CAPTURING_RUNS = 3
"""Runs after which a forward is captured, checked and trusted."""


class Plan(NamedTuple):
    """How often each batch size is measured."""

    repeats: int
    """Runs of 25 steps with CFG."""
    turns: int
    """Runs of 4 steps of each MODEL for one of these."""
    forwards: int
    """Single evaluations with a node of SUN's and without."""


Measured = tuple[dict[str, Figure], dict[str, str | int]]
"""All figures by name, and what they were measured on."""


@torch.inference_mode()
def measure(latent_size: int, batches: Sequence[int]) -> Iterator[Measured]:
    """Give all figures so far after each batch size."""
    started, figures = time.perf_counter(), Figures()
    print("Building U-Nets with random weights ...", flush=True)
    tiny, weights = tiny_model(), random_weights()
    dynamic_vram = start_dynamic_vram()
    plain = full_size_model(weights)
    adapter = loaded_adapter(plain, figures)
    models = {"plain": plain, "sun": apply_sun(plain, adapter, SunSettings(), may_capture=lambda: False)}
    if device().type == "cuda":
        models["captured"] = apply_sun(plain, adapter, SunSettings())
    negative = apply_negative(plain, NegativeSettings(), may_capture=lambda: False)
    measure_tiny(tiny, figures)
    samplers = {batch: Sampler(latent_size, batch) for batch in batches}
    planned = plan(samplers, models, MOST_SECONDS - OTHER_SECONDS, started)
    described = machine() | {
        "weights": str(plain.model.get_dtype()).removeprefix("torch."),
        "latent": f"{latent_size}x{latent_size}",
        "dynamic_vram": str(dynamic_vram),
        "repeats": planned.repeats,
        "turns": planned.turns,
    }
    for batch, sampler in samplers.items():
        name = f"batch {batch}"
        if "captured" in models:
            measure_capture(sampler, models["captured"], figures, name)
        for repeat in range(planned.repeats):
            print(f"Measuring {name}, {repeat + 1} of {planned.repeats} ...", flush=True)
            measure_runs(sampler, models, planned.turns, figures, name)
        limit = "at most 1.02" if device().type == "cpu" else "at most 1.15 at batch 1, 1.06 at batch 8"
        measure_forwards(sampler, models["sun"], planned.forwards, figures, f"{name}: forward", "SUN", limit)
        limit = "at most 1.03" if device().type == "cpu" else ""
        measure_forwards(sampler, negative, planned.forwards, figures, f"{name}: forward", NAG, limit)
        measure_busy(sampler, models, figures, name)
        yield figures.summary(), described


def loaded_adapter(plain: ModelPatcher, figures: Figures) -> SunAdapter:
    """Measure the way from an adapter file (in the system's file cache) to an adapter, and on to a patched MODEL."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "adapter.safetensors"
        save_adapter(SunAdapter.for_unet(plain.model.diffusion_model), file, {})
        adapter, seconds = timed(lambda: load_adapter(file))
    figures.add("loading an adapter", seconds, "s")
    _, seconds = timed(lambda: apply_sun(plain, adapter, SunSettings()))
    figures.add("patching a MODEL", seconds, "s")
    return adapter


def measure_tiny(tiny: ModelPatcher, figures: Figures) -> None:
    """Measure what the host does, on a U-Net so small that nothing else counts."""
    adapter = SunAdapter.for_unet(tiny.model.diffusion_model).requires_grad_(False)
    sun = apply_sun(tiny, adapter, SunSettings(), may_capture=lambda: False)
    sampler = Sampler(8, 1, TINY_UNET["context_dim"])
    for model in (tiny, sun):
        sampler(model, SUN_STEPS, 1.0)
    measure_operations(sampler, sun, figures, "operations that a layer adds")
    negative = apply_negative(tiny, NegativeSettings(), may_capture=lambda: False)
    measure_operations(sampler, negative, figures, f"operations that a layer adds, {NAG}")
    measure_host(sampler, sun, TINY_STEPS, figures)
    measure_fixed_costs(sampler, tiny, sun, figures)


def measure_capture(sampler: Sampler, captured: ModelPatcher, figures: Figures, name: str) -> None:
    """Let the forward of this batch size be captured and trusted, and measure the memory of all graphs then."""
    for _ in range(CAPTURING_RUNS):
        sampler(captured, SUN_STEPS, 1.0)
    captures = captured.get_wrappers(WrappersMP.OUTER_SAMPLE, SUN)[0].__self__.captures
    figures.add(f"{name}: memory of the CUDA graphs", (graph_memory() + captures.bytes) / 1e9, "GB")


def plan(samplers: dict[int, Sampler], models: dict[str, ModelPatcher], seconds: float, started: float) -> Plan:
    """Warm up, choose how often to measure what, and say how long it will take.

    All is to be done `seconds` after `started`, if one repeat and a few forwards can be.
    """
    with_cfg = turn = forward = 0.0
    for sampler in samplers.values():
        sampler(models["plain"], 1, PLAIN_CFG)
        sampler(models["sun"], 1, 1.0)
        with_cfg += PLAIN_STEPS * timed(partial(sampler, models["plain"], 1, PLAIN_CFG))[1]
        single = timed(partial(sampler, models["sun"], 1, 1.0))[1]
        turn += len(models) * SUN_STEPS * single
        forward += 2 * EVALUATIONS_OF_A_FORWARD * single
    left = seconds - (time.perf_counter() - started)
    planned = chosen_plan(left, with_cfg, turn, forward)
    taken = planned.repeats * (with_cfg + planned.turns * turn) + planned.forwards * forward
    print(f"Measuring takes about {(taken + OTHER_SECONDS) / 60:.1f} minutes more.", flush=True)
    return planned


def chosen_plan(seconds: float, with_cfg: float, turn: float, forward: float) -> Plan:
    """Choose how often to measure what in about `seconds`, by the seconds that each takes."""
    of_runs = SHARE_OF_RUNS * seconds
    repeats = _within(1, of_runs / (with_cfg + FEWEST_TURNS * turn), MOST_REPEATS)
    turns = _even(_within(FEWEST_TURNS, (of_runs / repeats - with_cfg) / turn, MOST_TURNS))
    left = seconds - repeats * (with_cfg + turns * turn)
    return Plan(repeats, turns, _even(_within(FEWEST_FORWARDS, left / forward, MOST_FORWARDS)))


def _within(least: int, value: float, most: int) -> int:
    return max(least, min(most, int(value)))


def _even(count: int) -> int:
    """Return a count in which each order comes as often as the other."""
    return count // 2 * 2
