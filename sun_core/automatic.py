"""Automatic settings: what a SUN run needs, whatever the sampler node says."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.k_diffusion.sampling
import comfy.samplers
from torch import Tensor

from .errors import Text
from .schedule import is_part_of_trailing, trailing_between, trailing_sigmas

_DETERMINISTIC = ("sample_euler", "sample_dpmpp_2m")
"""One model evaluation per step and no noise of their own; ComfyUI's ddim is sample_euler.

They are known by name: a pack that reloads ComfyUI's module makes other functions of the same ones.
"""

_GUIDANCE_SCALES = ("cfg", "cfg1", "cfg2")
"""Attributes of ComfyUI's guiders: CFGGuider has the first, DualCFGGuider the others."""


@contextmanager
def automatic_settings(guider: Any, sampler: Any, sigmas: Tensor) -> Iterator[tuple[Any, Tensor, list[str]]]:
    """Set `guider` to CFG 1 for the time of a run; give the sampler and sigmas to run with, and what was changed.

    sigmas: (steps + 1,), of which first, last and number are kept.
    """
    model_sampling = guider.model_patcher.get_model_object("model_sampling")
    if _is_whole_ddim_uniform(sigmas, model_sampling):
        trailing = trailing_sigmas(model_sampling.sigmas, len(sigmas) - 1).to(sigmas)
    else:
        trailing = trailing_between(sigmas, model_sampling.sigmas)
    changes: list[str] = []
    if not _is_deterministic(sampler):
        changes.append(Text("sampler {name} -> euler", name=_name(sampler)))
        sampler = comfy.samplers.ksampler("euler")
    if not trailing.equal(sigmas):
        changes.append(Text("scheduler -> trailing"))
    with no_guidance(guider) as of_guidance:
        yield sampler, trailing, of_guidance + changes


@contextmanager
def no_guidance(guider: Any) -> Iterator[list[str]]:
    """Set `guider` to CFG 1 for the time of a run; give what was changed."""
    scales = {name: vars(guider)[name] for name in _GUIDANCE_SCALES if name in vars(guider)}
    vars(guider).update(dict.fromkeys(scales, 1.0))
    try:
        yield [f"CFG {scale:g} -> 1" for scale in sorted({*scales.values()} - {1.0})]
    finally:
        vars(guider).update(scales)


def findings_of_part(guider: Any, sigmas: Tensor) -> list[str]:
    """Return a sentence if a sampler's own `sigmas` end with noise left and are not part of a trailing schedule."""
    model_sampling = guider.model_patcher.get_model_object("model_sampling")
    if not float(sigmas[-1]) > 0 or is_part_of_trailing(sigmas, model_sampling.sigmas):
        return []
    return [
        Text(
            "This run ends before the picture is done, at a noise level that is not one of SUN's; for sharper "
            "pictures set the scheduler to simple in all samplers that share the steps."
        )
    ]


def _is_whole_ddim_uniform(sigmas: Tensor, model_sampling: Any) -> bool:
    """Whether this is all of ComfyUI's ddim_uniform, the one scheduler that begins a whole run below the highest sigma:
    at 4 steps a quarter below. Asked for n steps it gives n or more.
    """
    if not sigmas[0] < model_sampling.sigmas[-1]:  # most runs: making the schedules waits for the device at each value
        return False
    steps = len(sigmas) - 1
    schedules = (comfy.samplers.ddim_scheduler(model_sampling, asked) for asked in range(steps, 0, -1))
    return any(schedule.equal(sigmas.cpu()) for schedule in schedules if len(schedule) == len(sigmas))


def _is_deterministic(sampler: Any) -> bool:
    function = getattr(sampler, "sampler_function", None)
    is_known = _is_comfyuis(function) and getattr(function, "__name__", None) in _DETERMINISTIC
    return is_known and not getattr(sampler, "extra_options", {}).get("s_churn")


def _is_comfyuis(function: Any) -> bool:
    return getattr(function, "__module__", None) == comfy.k_diffusion.sampling.__name__


def _name(sampler: Any) -> str:
    function = getattr(sampler, "sampler_function", None)
    name = getattr(function, "__name__", type(sampler).__name__)
    if name in _DETERMINISTIC and not _is_comfyuis(function):  # another pack's, which "euler -> euler" would not tell
        return Text("{name} of another pack", name=name)
    return name.removeprefix("sample_")
