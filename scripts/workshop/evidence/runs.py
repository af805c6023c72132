"""The trained peers and ablations: one loop, one data stream, one batch size and as many seconds for each.

A run is known by its name, which is its weights' file name too.
"""

import json
import unittest.mock
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import comfy.sd
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor

import sun_core.attention
from sun_core.adapter import SunAdapter, save_adapter
from sun_core.training.batch import Batch
from sun_core.training.config import TrainingConfig
from sun_core.training.distillation import Distillation
from sun_core.training.losses import cfg_distillation_loss
from sun_core.training.recipe import Recipe

from .. import REPOSITORY
from ..mini import adapter, base, dataset, loop
from ..mini.files import BASE, LCM_LORA
from ..mini.networks import MiniModel
from ..mini.stages import PICTURES_PER_SCENE

WORK = REPOSITORY / "build" / "evidence"
WEIGHTS = WORK / "weights"
LATENTS = WORK / "latents.pt"
BUDGET = 300
"""Seconds of two processors that each run may take; `seconds_per_step` turns them into steps."""


class CfgDistillation(Distillation):
    """CFG distillation alone, on noised pictures: what MSC is added to in the paper."""

    def loss(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """Compute the loss on noised pictures."""
        x, t = self.noised(batch, generator)
        with torch.no_grad():
            eps_guided = self.teacher(batch)(x, t)
        return cfg_distillation_loss(self.student(batch, self.adapter)(x, t), eps_guided)


@contextmanager
def without_norm() -> Iterator[None]:
    """Let SUN add its offsets as they are, without bringing them to the norm of the text attention."""

    def ones(attended: Tensor) -> Tensor:
        return torch.ones(len(attended) - 1, attended.shape[1], 1, 1, device=attended.device)

    with unittest.mock.patch.object(sun_core.attention, "norm_ratios", ones):
        yield


@dataclass(frozen=True)
class Budgeted:
    """What is trained for as long as the others."""

    title: str
    seconds_per_step: float
    """Of a step of 32 rows in two processes on an AMD EPYC (AVX2): processor time of each, measured over 4 steps."""
    learning_rate: float = field(default=adapter.SCHEDULE.learning_rate, kw_only=True)

    @property
    def steps(self) -> int:
        """Optimizer steps within the budget."""
        return round(BUDGET / self.seconds_per_step)


@dataclass(frozen=True)
class Run(Budgeted):
    """A SUN adapter that is trained for this benchmark."""

    recipe: Recipe = field(default_factory=Recipe)
    extra_positive: bool = True
    norm: bool = True
    losses: type[Distillation] = Distillation

    def train(self, schedule: TrainingConfig, checkpoint: Path) -> None:
        """Train from the start, or from `checkpoint`."""
        model = base_model()
        start = SunAdapter.for_unet(model.unet, self.extra_positive)
        distillation = self.losses(model.unet, start, base.alphas_cumprod(), self.recipe)
        draw = adapter.batches(model, torch.load(LATENTS, weights_only=True))
        with nullcontext() if self.norm else without_norm():
            loop.optimize(
                distillation, lambda step: distillation.loss(draw(step)), schedule, checkpoint,
                after_step=distillation.update_target, after_resume=distillation.reset_target,
            )  # fmt: skip

    def export(self, checkpoint: Path, out: Path) -> None:
        """Write the averaged adapter."""
        trained = SunAdapter.for_unet(base_model().unet, self.extra_positive)
        trained.load_state_dict(loop.averaged(checkpoint, "adapter."))
        recipe = asdict(self.recipe) | {"norm": self.norm, "guidance": adapter.GUIDANCE}
        recipe |= {"losses": self.losses.__name__, "optimiser_steps": torch.load(checkpoint, weights_only=True)["done"]}
        save_adapter(trained, out, {"family": "mini", "steps": str(self.recipe.segments), "recipe": json.dumps(recipe)})


@dataclass(frozen=True)
class LcmLora(Budgeted):
    """LCM-LoRA: latent consistency distillation into a LoRA of as many parameters (lcm.py)."""

    def train(self, schedule: TrainingConfig, checkpoint: Path) -> None:
        """Train from the start, or from `checkpoint`."""
        from . import lcm  # needs peft, which measuring does not

        model = base_model()
        draw = adapter.batches(model, torch.load(LATENTS, weights_only=True))
        with torch.no_grad():
            empty = model.encode([""])
        lora = lcm.inject(model.unet)
        alphas = base.alphas_cumprod()

        def loss(step: int) -> Tensor:
            batch = draw(step)
            return lcm.loss(lora, batch.x0, batch.positive, empty, batch.guidance, alphas)

        loop.optimize(lora, loss, schedule, checkpoint)

    def export(self, checkpoint: Path, out: Path) -> None:
        """Write the averaged LoRA."""
        from . import lcm

        lcm.save(loop.averaged(checkpoint), out)


LCM_LEARNING_RATES = ("2e-3", "5e-4", "1e-4")
"""From that of the SUN runs to that of diffusers' script."""
BEST_LCM_LORA = "lcm-lora-1e-4"
"""By the Fréchet distance."""
RUNS: dict[str, Run | LcmLora] = {
    "sun": Run("SUN within the budget", 1.3),
    **{
        f"lcm-lora-{lr}": LcmLora(f"LCM-LoRA, learning rate {lr}", 1.3, learning_rate=float(lr))
        for lr in LCM_LEARNING_RATES
    },
    "cfg-only": Run("CFG distillation alone", 0.85, Recipe(rollout_share=0.0, cfg_weight=1.0), losses=CfgDistillation),
    "no-rollouts": Run("SUN without rollouts", 1.15, Recipe(rollout_share=0.0)),
    "no-cfg-term": Run("SUN without the CFG term", 1.3, Recipe(cfg_weight=0.0)),
    "no-norm": Run("SUN without norm", 1.3, norm=False),
    "no-extra-positive": Run("SUN without extra positive", 1.25, extra_positive=False),
    "sun-1-step": Run("SUN for 1 step", 1.15, Recipe(segments=1)),
    "sun-2-steps": Run("SUN for 2 steps", 1.2, Recipe(segments=2)),
    "sun-8-steps": Run("SUN for 8 steps", 1.55, Recipe(segments=8)),
}


def weights_of(name: str) -> Path:
    """Return the file of a run's weights; the best LCM-LoRA is part of the mini family."""
    return LCM_LORA if name == BEST_LCM_LORA else WEIGHTS / f"{name}.safetensors"


def base_model() -> MiniModel:
    """Load the shipped base as the training code knows it: U-Net and text encoder, frozen."""
    model = MiniModel()
    weights = load_file(BASE)
    for part, prefix in ((model.unet, "model.diffusion_model."), (model.text, "cond_stage_model.transformer.")):
        part.load_state_dict({k.removeprefix(prefix): v.float() for k, v in weights.items() if k.startswith(prefix)})
    return model.eval().requires_grad_(False)


def make_latents() -> None:
    """Draw and encode the pictures that the shipped adapter learnt on, once; this takes some minutes."""
    if not LATENTS.exists():
        vae = comfy.sd.load_checkpoint_guess_config(str(BASE), output_clip=False, output_model=False)[2]
        WORK.mkdir(parents=True, exist_ok=True)
        dataset.make_latents(vae.first_stage_model.float(), "storybook", PICTURES_PER_SCENE, LATENTS)


def train(name: str) -> None:
    """Train one run or resume it, and write its weights: what each process does."""
    torch.manual_seed(0)
    run, checkpoint = RUNS[name], WORK / f"{name}.pt"
    schedule = replace(
        adapter.SCHEDULE, steps=run.steps, learning_rate=run.learning_rate, warmup=run.steps // 5, save_every=25
    )
    if dist.get_rank() == 0:
        print(f"== {name}, {run.steps} steps", flush=True)
    run.train(schedule, checkpoint)
    if dist.get_rank() == 0:
        export(name)


def export(name: str) -> None:
    """Write what a run has learnt, as a file that ComfyUI's own loaders or ours read."""
    WEIGHTS.mkdir(exist_ok=True)
    RUNS[name].export(WORK / f"{name}.pt", weights_of(name))
