"""Whole runs, as a KSampler node does them."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .device import PeakMemory, busy_seconds, device, synchronize, timed
from .forwards import ORDERS, replaced_evaluation
from .measured import Figures
from .random_models import Sampler

PLAIN_STEPS, PLAIN_CFG, SUN_STEPS = 25, 7.0, 4
FOUR_STEPS = (("plain, 4 steps", "plain"), ("SUN, 4 steps", "sun"), ("SUN, 4 steps, captured", "captured"))
"""What the runs of 4 steps are called, and the MODEL of each."""
TINY_RUNS = 40


def measure_runs(sampler: Sampler, models: dict[str, ModelPatcher], turns: int, figures: Figures, name: str) -> None:
    """Measure `turns` runs of 4 steps without and with SUN each, in a turning order, and one of 25 steps with CFG in
    the middle of them.
    """

    def measured(kind: str, model: str, steps: int, cfg: float) -> float:
        memory = PeakMemory()
        _, seconds = timed(partial(sampler, models[model], steps, cfg))
        figures.add(f"{name}: {kind}", seconds, "s")
        if (peak := memory.gigabytes()) is not None:
            figures.add(f"{name}: peak memory, {kind}", peak, "GB")
        return seconds

    kinds = [(kind, model) for kind, model in FOUR_STEPS if model in models]
    few_steps: list[dict[str, float]] = []
    for turn in range(turns):
        if turn == turns // 2:
            with_cfg = measured("plain, 25 steps, CFG", "plain", PLAIN_STEPS, PLAIN_CFG)
        few_steps.append({model: measured(kind, model, SUN_STEPS, 1.0) for kind, model in kinds[:: (-1) ** turn]})
    for seconds in few_steps:
        limit = "at most 12.5" if device().type != "cpu" else "at least 10"
        figures.add(f"{name}: speed-up, eager", with_cfg / seconds["sun"], "x", limit)
        if "captured" in models:
            figures.add(f"{name}: speed-up, captured", with_cfg / seconds["captured"], "x", "at least 10 at batch 1")
        limit = "at most 1.03" if device().type == "cpu" else "at most 1.10 at batch 1, 1.05 at batch 8"
        figures.add(f"{name}: SUN, 4 steps / plain, 4 steps", seconds["sun"] / seconds["plain"], "x", limit)


def measure_busy(sampler: Sampler, models: dict[str, ModelPatcher], figures: Figures, name: str) -> None:
    """Measure the share of a run's time that a CUDA device works."""
    for kind in ("plain", "sun", "captured"):
        if kind in models:
            run = partial(sampler, models[kind], SUN_STEPS, 1.0)
            work = busy_seconds(run)
            if work is not None:
                _, wall = timed(run)
                figures.add(f"{name}: device works, {kind}, 4 steps", 100 * work / wall, "%")


def measure_fixed_costs(sampler: Sampler, plain: ModelPatcher, sun: ModelPatcher, figures: Figures) -> None:
    """Measure what a run costs apart from its steps, on a tiny U-Net, with SUN and without in a turning order."""
    models = {"plain": plain, "sun": sun}
    for run in range(TINY_RUNS):
        fixed = {name: fixed_seconds(sampler, models[name]) * 1e3 for name in ORDERS[run % 2]}
        for name in models:
            figures.add(f"fixed cost of a run, {name}", fixed[name], "ms")
        figures.add("fixed cost of a run, SUN more than plain", fixed["sun"] - fixed["plain"], "ms", "at most 3")


def fixed_seconds(sampler: Sampler, model: ModelPatcher) -> float:
    """Return the seconds of a run less those of its evaluations of the model, each taken as one of the later ones.

    The first evaluation makes keys and values before the U-Net's blocks begin: what it takes there beyond the others is
    counted. Everything is timed in the run itself, because machines change their speed in seconds.
    """
    seconds, before_blocks = [], []
    unet = model.model.diffusion_model

    def evaluate(original: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        synchronize()
        before_blocks.append(-time.perf_counter())
        result, taken = timed(partial(original, *args, **kwargs))
        seconds.append(taken)
        return result

    def blocks(original: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        synchronize()
        before_blocks[-1] += time.perf_counter()
        return original(*args, **kwargs)

    unet._forward = partial(blocks, unet._forward)
    try:
        with replaced_evaluation(evaluate):
            _, whole = timed(partial(sampler, model, SUN_STEPS, 1.0))
    finally:
        del unet._forward
    first, *others = before_blocks
    return whole - sum(seconds) + first - sum(others) / len(others)
