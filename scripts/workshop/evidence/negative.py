"""How surely a negative prompt counts without an adapter: with the LCM-LoRA in 4 steps, and in 25 steps without CFG.

Prompts that leave the colour open are drawn with an empty negative. The colour that came out becomes the negative: how
often does it come again from the same noise, and is the thing still the one that was asked for?
"""

import json
from collections.abc import Iterator
from typing import Any

import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from safetensors.torch import load_file

from sun_core.apply import apply_negative
from sun_core.nag import NagSettings
from sun_core.settings import NegativeSettings

from .. import REPOSITORY
from ..mini.family import CFG, TEACHER_25, Family, Way
from ..mini.files import LCM_LORA
from .frechet import wilson_interval
from .measuring import BATCH, SEEDS, decoded, judge, prompts

RESULTS = REPOSITORY / "benchmarks" / "negative.json"
COUNT = 200
SCALES = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0)
"""The curve; at scale 1 the negative does not count."""
SCALES_25 = (2.0, 3.0, 4.0, 5.0, 8.0)
"""The curve of 25 steps."""
LCM_4 = Way("LCM-LoRA, 4 steps", 4, 1.0, "lcm", "normal")
STEPS_25 = Way("25 steps, CFG 1", 25, 1.0, TEACHER_25.sampler, TEACHER_25.scheduler)

Row = dict[str, Any]


def with_lcm_lora(model: ModelPatcher) -> ModelPatcher:
    """Load the shipped LCM-LoRA, with the model sampling that it needs."""
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    lora, _ = comfy.sd.load_lora_for_models(model, None, load_file(LCM_LORA), 1.0, 0.0)
    return ModelSamplingDiscrete().patch(lora, "lcm", False)[0]


def guided(model: ModelPatcher, scale: float) -> ModelPatcher:
    """Let the negative count at CFG 1."""
    return apply_negative(model, NegativeSettings(NagSettings(scale=scale)))


def ways(model: ModelPatcher) -> Iterator[tuple[str, ModelPatcher, Way]]:
    """List what is measured: a name, the MODEL, and how it samples."""
    lcm = with_lcm_lora(model)
    for scale in SCALES:
        yield f"LCM-LoRA, 4 steps, CFG 1, scale {scale:g}", guided(lcm, scale), LCM_4
    yield f"25 steps, CFG {CFG:g}", model, TEACHER_25
    for scale in SCALES_25:
        yield f"25 steps, CFG 1, scale {scale:g}", guided(model, scale), STEPS_25


def measured(family: Family, model: ModelPatcher, way: Way, count: int) -> Row:
    """Measure one way of sampling on `count` prompts."""
    texts = prompts("open", count)
    assert texts.scenes is not None

    def seen(negatives: list[str]) -> list[Any]:
        latents = family.sample(model, way, texts.positives, negatives, SEEDS["open"])
        return judge().name(torch.cat([decoded(part) for part in latents.split(BATCH)]))

    before = seen([""] * count)
    after = seen([scene.colour for scene in before])
    pairs = list(zip(before, after, strict=True))
    return {
        "evaluations": way.evaluations,
        "colour_comes_again": share(sum(b.colour == a.colour for b, a in pairs), count),
        "thing_right": share(
            sum(asked.subject == a.subject for asked, a in zip(texts.scenes, after, strict=True)), count
        ),
        "thing_right_with_empty_negative": share(
            sum(asked.subject == b.subject for asked, b in zip(texts.scenes, before, strict=True)), count
        ),
    }


def share(hits: int, count: int) -> dict[str, float]:
    """Return a share and its 95 % interval, in per cent."""
    low, high = wilson_interval(hits, count)
    return {"value": 100 * hits / count, "low": round(100 * low, 2), "high": round(100 * high, 2)}


def write() -> None:
    """Measure everything and write negative.json."""
    family = Family.load()
    rows = {}
    for name, model, way in ways(family.model):
        rows[name] = measured(family, model, way, COUNT)
        print(name, json.dumps(rows[name]), flush=True)
    settings = {"tau": NagSettings().tau, "alpha": NagSettings().alpha}
    text = json.dumps({"prompts": COUNT, **settings, "unit": "%", "ways": rows}, indent=1)
    RESULTS.write_text(text + "\n", encoding="utf-8")
