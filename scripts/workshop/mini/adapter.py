"""The SUN adapter of the mini family, distilled on the base model with the pack's own losses."""

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sun_core.adapter import SunAdapter, save_adapter
from sun_core.training.batch import Batch
from sun_core.training.distillation import Distillation
from sun_core.training.losses import ddim_jump, segment_end
from sun_core.training.recipe import Recipe

from . import base
from .dataset import training_scenes
from .loop import averaged, optimize, schedule, stage_seed
from .networks import MiniModel
from .world import COLOURS, KEYWORDS, PLACES, SUBJECTS, TEMPLATES, Scene, caption, complete

BATCH = 16  # per process
TRAJECTORY_ROWS = 12
SCHEDULE = schedule(steps=500, learning_rate=2e-3, warmup=100, ema=0.98, save_every=100)
FOLLOW_SCHEDULE = schedule(steps=900, learning_rate=1.5e-3, warmup=50, ema=0.98, save_every=50)
RECIPE = Recipe()
GUIDANCE = 3.0


def draw_pair(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """Draw a positive prompt for the scene, sometimes with open attributes, and a negative from the mix below.

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
        attributes = ((scene.colour, colour), (scene.place, place), (scene.subject, subject))
        left_open = [word for word, kept in attributes if word and not kept]
        return positive, rng.choice(left_open or [rng.choice(tuple(COLOURS))])
    return positive, caption(complete(Scene(None, None, None), rng), rng.choice((KEYWORDS, *TEMPLATES)))


def batches(model: MiniModel, latents: Tensor) -> Callable[[int], Batch]:
    """Make training batches by step: the same step gives the same batch."""
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


@dataclass(frozen=True)
class Trajectories:
    """The teacher's ways from noise to picture (trajectories.py), in DDPM's variance-preserving scale."""

    states: Tensor  # (n, segments + 1, channels, height, width): at the segments' starts, then the picture
    eps: Tensor  # (n, segments, channels, height, width): the guided prediction at the starts
    positives: list[str]
    negatives: list[str]

    @classmethod
    def load(cls, file: Path) -> "Trajectories":
        return cls(**torch.load(file, weights_only=True))


def trajectory_loss(distillation: Distillation, model: MiniModel, ways: Trajectories) -> Tensor:
    """Compare the student's jump from a segment's start with where the teacher's own way leads from the same noise.

    This is MSC over whole segments: t' is the segment's end, where the student is the identity. Half of the rows start
    on the teacher's way. The others start where the student itself has arrived from the same noise, as in sampling: it
    learns to come back. The first half has the CFG-distillation loss too.
    """
    rows = torch.randint(0, len(ways.states), (TRAJECTORY_ROWS,)).tolist()
    segment = torch.randint(0, RECIPE.segments, (TRAJECTORY_ROWS,))
    each, half = torch.arange(TRAJECTORY_ROWS), TRAJECTORY_ROWS // 2
    states = ways.states[rows].float()
    starts = torch.tensor(distillation.starts)
    with torch.no_grad():
        batch = Batch(
            states[:, -1], model.encode([ways.positives[i] for i in rows]),
            model.encode([ways.negatives[i] for i in rows]), torch.full((TRAJECTORY_ROWS,), GUIDANCE),
        )  # fmt: skip
        x = states[each, segment]
        own = states[half:, 0]
        for i in range(RECIPE.segments - 1):
            on = (segment[half:] > i).nonzero().flatten()
            if len(on) == 0:
                break
            t, s = starts[i].expand(len(on)), starts[i + 1].expand(len(on))
            there = Batch(own[on], batch.positive[half:][on], batch.negative[half:][on], batch.guidance[half:][on])
            own[on] = ddim_jump(own[on], distillation.student(there, distillation.target)(own[on], t), t, s,
                                distillation.alphas)  # fmt: skip
        x[half:] = own
    t = starts[segment]
    eps = distillation.student(batch, distillation.adapter)(x, t)
    landed = ddim_jump(x, eps, t, segment_end(t, distillation.starts), distillation.alphas)
    consistency = (landed - states[each, segment + 1]).square().mean()
    guided_eps = ways.eps[rows, segment].float()
    return consistency + RECIPE.cfg_weight * (eps - guided_eps)[:half].square().mean()


def train(latents_file: Path, teacher: Path, checkpoint: Path) -> None:
    """Learn by MSC and CFG distillation from random timesteps and the student's own rollouts."""
    torch.manual_seed(0)
    model = base.load(teacher).requires_grad_(False)
    distillation = Distillation(model.unet, SunAdapter.for_unet(model.unet), base.alphas_cumprod(), RECIPE)
    draw = batches(model, torch.load(latents_file, weights_only=True))
    optimize(
        distillation, lambda step: distillation.loss(draw(step)), SCHEDULE, checkpoint,
        after_step=distillation.update_target, after_resume=distillation.reset_target,
    )  # fmt: skip


def follow(latents_file: Path, trajectories_file: Path, teacher: Path, start: Path, checkpoint: Path) -> None:
    """Train `start` further: a quarter of each batch as before, the rest follows the teacher's trajectories."""
    torch.manual_seed(0)
    model = base.load(teacher).requires_grad_(False)
    recipe = replace(RECIPE, rollout_share=0.0)  # the trajectories bring rollouts of their own
    distillation = Distillation(model.unet, load(model, start), base.alphas_cumprod(), recipe)
    draw = batches(model, torch.load(latents_file, weights_only=True))
    ways = Trajectories.load(trajectories_file)

    def loss(step: int) -> Tensor:
        random_timesteps = distillation.loss(draw(step).rows(slice(0, BATCH - TRAJECTORY_ROWS)))
        share = TRAJECTORY_ROWS / BATCH
        return (1 - share) * random_timesteps + share * trajectory_loss(distillation, model, ways)

    optimize(
        distillation, loss, FOLLOW_SCHEDULE, checkpoint,
        after_step=distillation.update_target, after_resume=distillation.reset_target,
    )  # fmt: skip


def load(model: MiniModel, checkpoint: Path) -> SunAdapter:
    """Load the averaged adapter of a stage."""
    adapter = SunAdapter.for_unet(model.unet)
    adapter.load_state_dict(averaged(checkpoint, "adapter."))
    return adapter


def export(teacher: Path, checkpoint: Path, out: Path) -> None:
    """Write the averaged adapter as a file in the official key scheme."""
    recipe = asdict(RECIPE) | {
        "guidance": GUIDANCE, "optimiser_steps": SCHEDULE.steps, "trajectory_steps": FOLLOW_SCHEDULE.steps,
    }  # fmt: skip
    metadata = {"family": "mini", "steps": str(RECIPE.segments), "recipe": json.dumps(recipe)}
    save_adapter(load(base.load(teacher), checkpoint), out, metadata)
