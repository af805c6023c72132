"""The ways of sampling that are compared, each through ComfyUI's own loaders and samplers.

What a peer leaves open (scheduler, CFG, strength) is in settings.json, where `evidence.py --tune` wrote what was best.
"""

import functools
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import comfy.sd
from comfy.model_patcher import ModelPatcher
from safetensors.torch import load_file

from sun_core.adapter import load_adapter
from sun_core.apply import apply_negative, apply_sun
from sun_core.nag import NagSettings
from sun_core.settings import NegativeSettings, SunSettings

from ..mini.family import CFG, Way
from ..mini.files import ADAPTER
from .report import SETTINGS
from .runs import RUNS, LcmLora, Run, weights_of

Settings = Mapping[str, float | str]


@dataclass(frozen=True)
class Method:
    """A way of sampling, and what it makes of the MODEL before."""

    title: str
    way: Way
    patch: Callable[[ModelPatcher], ModelPatcher] = lambda model: model
    weights: Path | None = None
    norm: bool = True
    """False for the adapter that was trained without norm."""
    settings: str = ""
    """What else the pictures depend on."""


def sampler(title: str, name: str, steps: int, settings: Settings) -> Method:
    cfg, scheduler = float(settings["cfg"]), str(settings["scheduler"])
    return Method(title, Way(title, steps, cfg, name, scheduler))


def sun(title: str, weights: Path, steps: int = 4, negative_strength: float = 1.0, norm: bool = True) -> Method:
    def patch(model: ModelPatcher) -> ModelPatcher:
        return apply_sun(model, load_adapter(weights), SunSettings(negative_strength=negative_strength))

    way = Way(title, steps, 1.0, "ddim", "simple")
    return Method(title, way, patch, weights, norm, f"{negative_strength:g}")


def nag(settings: Settings) -> Method:
    title = "NAG, 4 steps"
    chosen = NagSettings(**{key: float(value) for key, value in settings.items()})

    def patch(model: ModelPatcher) -> ModelPatcher:
        return apply_negative(model, NegativeSettings(chosen))

    return Method(title, Way(title, 4, 1.0, "ddim", "simple"), patch, settings=repr(chosen))


def lcm_lora(name: str, settings: Settings) -> Method:
    title, weights = RUNS[name].title + ", 4 steps", weights_of(name)

    def patch(model: ModelPatcher) -> ModelPatcher:
        from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

        lora = comfy.sd.load_lora_for_models(model, None, load_file(weights), float(settings["strength"]), 0.0)[0]
        return ModelSamplingDiscrete().patch(lora, "lcm", False)[0]

    return Method(title, Way(title, 4, 1.0, "lcm", str(settings["scheduler"])), patch, weights, settings=repr(settings))


PEERS: dict[str, Callable[[Settings], Method]] = {
    "dpmpp-4": lambda settings: sampler("DPM++ 2M, 4 steps, CFG", "dpmpp_2m", 4, settings),
    "dpmpp-8": lambda settings: sampler("DPM++ 2M, 8 steps, CFG", "dpmpp_2m", 8, settings),
    "unipc-4": lambda settings: sampler("UniPC, 4 steps, CFG", "uni_pc", 4, settings),
    "unipc-8": lambda settings: sampler("UniPC, 8 steps, CFG", "uni_pc", 8, settings),
    "nag": nag,
    **{name: functools.partial(lcm_lora, name) for name, run in RUNS.items() if isinstance(run, LcmLora)},
}
"""Those with settings of their own."""

SOLVER_SETTINGS: list[Settings] = [
    {"cfg": cfg, "scheduler": scheduler} for cfg in (1.5, 2.0, CFG) for scheduler in ("normal", "simple", "karras")
]
LCM_SETTINGS: list[Settings] = [
    {"scheduler": scheduler, "strength": strength}
    for scheduler, strength in itertools.product(("simple", "normal"), (0.5, 0.8, 1.0))
]
CANDIDATES: dict[str, Sequence[Settings]] = {
    **dict.fromkeys(("dpmpp-4", "dpmpp-8", "unipc-4", "unipc-8"), SOLVER_SETTINGS),
    "nag": [
        {"scale": scale, "tau": tau, "alpha": alpha}
        for scale, tau, alpha in itertools.product((2.0, 3.0, 5.0, 8.0), (1.5, 2.5, 5.0), (0.25, 0.5, 1.0))
    ],
    **dict.fromkeys((name for name, run in RUNS.items() if isinstance(run, LcmLora)), LCM_SETTINGS),
}


def has_weights(name: str) -> bool:
    """Tell whether what `name` needs was trained; a way without training needs nothing."""
    return name not in RUNS or weights_of(name).exists()


def tuned() -> dict[str, dict]:
    """Read settings.json: the best settings of each peer, and all that were tried."""
    return json.loads(SETTINGS.read_text(encoding="utf-8")) if SETTINGS.exists() else {}


FIXED: dict[str, Method] = {
    "teacher-25": sampler("teacher, 25 steps, CFG", "dpmpp_2m", 25, {"cfg": CFG, "scheduler": "normal"}),
    "teacher-4": sampler("teacher, 4 steps, CFG", "ddim", 4, {"cfg": CFG, "scheduler": "simple"}),
    "plain-4": sampler("plain, 4 steps, no CFG", "ddim", 4, {"cfg": 1.0, "scheduler": "simple"}),
    "sun-shipped": sun("SUN as shipped, 4 steps", ADAPTER),
    **{f"sun-shipped-{n}": sun(f"SUN as shipped, sampled in {n}", ADAPTER, n) for n in (1, 2, 8)},
    **{
        f"sun-strength-{s:g}": sun(f"SUN as shipped, negative strength {s:g}", ADAPTER, negative_strength=s)
        for s in (0.0, 0.5, 1.5)
    },
    **{
        name: sun(run.title, weights_of(name), run.recipe.segments, norm=run.norm)
        for name, run in RUNS.items()
        if isinstance(run, Run) and has_weights(name)
    },
}
"""Those without."""


def method(name: str, settings: Settings | None = None) -> Method:
    """Return the method of that name; a peer has its best settings unless others are given."""
    if name in FIXED:
        return FIXED[name]
    return PEERS[name](settings or tuned()[name]["best"])
