"""Stage 5: the SUN adapter of the mini family, distilled on the base model with the pack's own losses."""

import json
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import teacher
import torch
from dataset import training_scenes
from loop import Schedule, optimise, stage_seed
from models import MiniModel
from torch import Tensor
from world import COLOURS, KEYWORDS, PLACES, SUBJECTS, TEMPLATES, Scene, caption, complete

from sun_core.adapter import SunAdapter, save_adapter
from sun_core.training.distillation import Batch, Distillation, Recipe

BATCH = 16  # per process
SCHEDULE = Schedule(steps=500, lr=2e-3, warmup=100, ema=0.98, save_every=100)
RECIPE = Recipe()
GUIDANCE = 3.0


def draw_pair(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """A positive prompt for the scene, with attributes left open at times, and a negative from the mix below.

    40 % empty, 25 % one attribute of any kind, 20 % an attribute that the picture has and the positive leaves open
    (the hard case: the negative alone decides), 15 % another caption.
    """
    subject = scene.subject if rng.random() > 0.1 else None
    colour = scene.colour if rng.random() > 0.3 else None
    place = scene.place if rng.random() > 0.3 else None
    positive = caption(Scene(subject, colour, place), rng.choice((KEYWORDS, *TEMPLATES))) if rng.random() > 0.05 else ""
    kind = rng.random()
    if kind < 0.4:
        return positive, ""
    if kind < 0.65:
        return positive, rng.choice((*SUBJECTS, *COLOURS, *PLACES))
    if kind < 0.85:
        left_open = [
            word for word, kept in ((scene.colour, colour), (scene.place, place), (scene.subject, subject)) if not kept
        ]
        return positive, rng.choice(left_open or [rng.choice(tuple(COLOURS))])
    return positive, caption(complete(Scene(None, None, None), rng), rng.choice((KEYWORDS, *TEMPLATES)))


def batches(model: MiniModel, latents: Tensor) -> Callable[[int], Batch]:
    """Training batches by step: the same step gives the same batch."""
    scenes = training_scenes()

    def batch(step: int) -> Batch:
        seed = stage_seed(step, salt=5)
        torch.manual_seed(seed)
        rng = random.Random(seed)
        picks = [(rng.randrange(latents.shape[0]), rng.randrange(latents.shape[1])) for _ in range(BATCH)]
        positives, negatives = zip(*(draw_pair(scenes[s], rng) for s, _ in picks), strict=True)
        with torch.no_grad():
            return Batch(
                torch.stack([latents[s, i] for s, i in picks]).float(),
                model.encode(list(positives)), model.encode(list(negatives)), torch.full((BATCH,), GUIDANCE),
            )  # fmt: skip

    return batch


def train(latents_file: Path, base: Path, checkpoint: Path) -> None:
    torch.manual_seed(0)
    model = teacher.load(base).requires_grad_(False)
    distillation = Distillation(model.unet, SunAdapter.for_unet(model.unet), teacher.alphas_cumprod(), RECIPE)
    draw = batches(model, torch.load(latents_file, weights_only=True))
    optimise(
        distillation, lambda step: distillation.loss(draw(step)), SCHEDULE, checkpoint,
        after_step=lambda step: distillation.update_target(), after_resume=distillation.reset_target,
    )  # fmt: skip


def export(base: Path, checkpoint: Path, out: Path) -> None:
    """The averaged adapter as a file in the official key scheme."""
    adapter = SunAdapter.for_unet(teacher.load(base).unet)
    saved = torch.load(checkpoint, weights_only=True)
    adapter.load_state_dict(
        {k.removeprefix("adapter."): v for k, v in saved["ema"].items() if k.startswith("adapter.")}
    )
    recipe = asdict(RECIPE) | {"guidance": GUIDANCE, "optimiser_steps": saved["step"]}
    save_adapter(adapter, out, {"family": "mini", "steps": str(RECIPE.segments), "recipe": json.dumps(recipe)})
