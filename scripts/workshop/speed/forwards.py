"""Single evaluations of the U-Net, with a node of SUN's and without, on the same inputs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from sun_core.layers import cross_attention_layers

from .device import synchronize, timed
from .measured import Figures
from .operations import Operations
from .random_models import Sampler

ORDERS = (("plain", "sun"), ("sun", "plain"))
EvaluateBoth = Callable[[Callable[[bool], Tensor], int], None]


@contextmanager
def replaced_evaluation(evaluate: Callable[..., Tensor]) -> Iterator[None]:
    """Within, call `evaluate(original, ...)` for each evaluation of a run, where `original(...)` is ComfyUI's.

    It stands in the class: SUN takes what stands on a model itself for another pack's, and keeps no text then.
    """
    original = BaseModel.apply_model

    def apply_model(base: BaseModel, *args: Any, **kwargs: Any) -> Tensor:
        return evaluate(partial(original, base), *args, **kwargs)

    BaseModel.apply_model = apply_model
    try:
        yield
    finally:
        BaseModel.apply_model = original


@contextmanager
def each_evaluation(measure: EvaluateBoth) -> Iterator[None]:
    """Within, call `measure(evaluate, index)` for each evaluation of a run; `evaluate(with_sun)` does it either way."""
    count = 0

    def apply_model(original: Callable[..., Tensor], x: Tensor, t: Tensor, **c: Any) -> Tensor:
        nonlocal count
        options = c.pop("transformer_options")
        plain = {key: value for key, value in options.items() if key not in ("wrappers", "patches_replace")}

        def evaluate(with_sun: bool) -> Tensor:
            return original(x, t, **c, transformer_options=dict(options if with_sun else plain))

        result = evaluate(True)  # makes keys and values in a run's first evaluation
        measure(evaluate, count)
        count += 1
        return result

    with replaced_evaluation(apply_model):
        yield


def measure_forwards(
    sampler: Sampler, patched: ModelPatcher, steps: int, figures: Figures, name: str, who: str, target: str
) -> None:
    """Measure one evaluation of the patched MODEL, called `who`, and a plain one, in a turning order: machines change
    their speed in seconds.
    """

    def measure(evaluate: Callable[[bool], Tensor], index: int) -> None:
        seconds = {which: timed(partial(evaluate, which == "sun"))[1] for which in ORDERS[index % 2]}
        figures.add(f"{name}, plain", seconds["plain"], "s")
        figures.add(f"{name}, {who}", seconds["sun"], "s")
        figures.add(f"{name}, {who} / plain", seconds["sun"] / seconds["plain"], "x", target)

    with each_evaluation(measure):
        sampler(patched, steps, 1.0)


def measure_host(sampler: Sampler, sun: ModelPatcher, steps: int, figures: Figures) -> None:
    """Measure what the host does for a layer, on a U-Net so small that nothing else counts."""
    layers = len(cross_attention_layers(sun.model.diffusion_model))

    def on_host(evaluate: Callable[[bool], Tensor], with_sun: bool) -> float:
        synchronize()
        started = time.perf_counter()
        evaluate(with_sun)
        return time.perf_counter() - started

    def measure(evaluate: Callable[[bool], Tensor], index: int) -> None:
        seconds = {which: on_host(evaluate, which == "sun") for which in ORDERS[index % 2]}
        figures.add("host time of a layer", (seconds["sun"] - seconds["plain"]) / layers * 1e6, "us")

    with each_evaluation(measure):
        sampler(sun, steps, 1.0)


def measure_operations(sampler: Sampler, patched: ModelPatcher, figures: Figures, name: str) -> None:
    """Count the operations that a layer adds after a run's first evaluation."""
    layers = len(cross_attention_layers(patched.model.diffusion_model))

    def measure(evaluate: Callable[[bool], Tensor], index: int) -> None:
        totals = []
        for with_sun in (False, True):
            with Operations() as operations:
                evaluate(with_sun)
            totals.append(operations.counts.total())
        figures.add(name, (totals[1] - totals[0]) / layers, "", "at most 10")

    with each_evaluation(measure):
        sampler(patched, 2, 1.0)
