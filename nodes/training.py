"""What Train SUN Adapter does between its inputs and its outputs. Needs accelerate, which a ComfyUI may lack."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import cycle, islice
from typing import Any

import comfy.utils
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from PIL import Image
from torch import Tensor

from ..sun_core.adapter import SunAdapter, save_adapter, unet_layout
from ..sun_core.errors import SunError
from ..sun_core.layers import cross_attention_layers
from ..sun_core.training.config import TrainingConfig, defaults_for
from ..sun_core.training.evaluation import Evaluation
from ..sun_core.training.latents import Example, draw_latents
from ..sun_core.training.loss_curve import loss_curve
from ..sun_core.training.result import described
from ..sun_core.training.setup import Teacher, new_evaluation, new_trainer
from ..sun_core.training.teacher import check_teacher
from ..sun_core.training.tensor_folder import Tensors
from ..sun_core.training.trainer import Trainer, new_accelerator
from .new_adapter_file import new_adapter_file

DRAWN_PICTURES = 64
"""How many pictures the MODEL draws to train on where none are connected and there are fewer prompts."""
PREVIEW_SIZE = 512


def train(inputs: dict[str, list], report: Callable[[str], None]) -> tuple[SunAdapter, Image.Image]:
    """Trains as Train SUN Adapter's inputs say, which are lists all of them; the adapter, and its loss as a picture.

    Must run outside of inference mode. Whatever ends the training early, as an interrupt does, goes on its way after
    what was learned is in a file. Raises SunError where the inputs do not go together or training has to stop.
    """
    one = {name: values[0] for name, values in inputs.items() if values}
    check_teacher(one["model"])
    config = _config(one, _lines(inputs["negatives"]))
    captions = _lines(inputs["prompts"])
    if not captions:
        raise SunError("There are no prompts to train on; write at least one, better some dozens, one a line.")
    store: dict[str, Tensors] = {}
    teacher = Teacher.of(one["model"], one["clip"], config, store, one.get("sun_adapter"))
    pictures = _latents(inputs, config, teacher)
    teacher.prompts.encode(["", *captions])
    with teacher.loaded():
        if pictures is None:
            rows = config.batch_size * config.accumulation * config.steps
            several = list(islice(cycle(captions), max(len(captions), min(DRAWN_PICTURES, rows // 16))))
            guidance = sum(config.guidance) / 2
            examples = draw_latents(
                several, teacher.sampler, teacher.prompts, guidance, config.seed, store, config.batch_size
            )
        else:
            examples = _examples(pictures, captions, store)
        accelerator = new_accelerator(config, on_cpu=one["model"].load_device.type == "cpu")
        trainer = new_trainer(teacher, examples, store, config, accelerator)
        evaluation = new_evaluation(teacher, examples, one["vae"], config) if one.get("vae") else None
        with _saved_if_ended_early(trainer, report):
            _run(trainer, evaluation)
            adapter = described(trainer, evaluation.figures(trainer.averaged_adapter()) if evaluation else {})
    report(f"Trained {trainer.done} steps on {len(examples)} pictures; the loss is {trainer.losses[-1]:.4g} now.")
    return adapter, loss_curve(trainer.losses)


def _run(trainer: Trainer, evaluation: Evaluation | None) -> None:
    """The steps, with progress and comparisons on the node."""
    config, bar = trainer.config, comfy.utils.ProgressBar(trainer.config.steps)
    with closing(trainer.steps()) as steps:
        for step in steps:
            preview = None
            if evaluation and config.sample_every and step.number % config.sample_every == 0:
                preview = ("JPEG", evaluation.grid(trainer.averaged_adapter()), PREVIEW_SIZE)
            bar.update_absolute(step.number, preview=preview)
            throw_exception_if_processing_interrupted()


@contextmanager
def _saved_if_ended_early(trainer: Trainer, report: Callable[[str], None]) -> Iterator[None]:
    """Within, an interrupt or an error leaves a file of what was learned, where there is something."""
    try:
        yield
    except BaseException:
        if trainer.done and all(weight.isfinite().all() for weight in trainer.ema.values()):
            path = new_adapter_file(f"unfinished_{trainer.done}_steps")
            save_adapter(described(trainer, {}), path, {})
            report(f"Ended after {trainer.done} steps; what was learned is in {path.name}.")
        raise


def _config(one: dict[str, Any], negatives: list[str]) -> TrainingConfig:
    model = one["model"]
    computes_in = model.model.manual_cast_dtype or model.model_dtype()
    precision = {torch.float16: "fp16", torch.bfloat16: "bf16"}.get(computes_in, "no")
    family = unet_layout(cross_attention_layers(model.model.diffusion_model)).family
    return defaults_for(family).with_values(
        {
            "steps": one["steps"],
            "batch_size": one["batch_size"],
            "accumulation": one["grad_accumulation_steps"],
            "learning_rate": one["learning_rate"],
            "warmup": min(TrainingConfig.warmup, one["steps"] // 10),
            "guidance": one["guidance"],
            "recipe": {"segments": int(one["segments"])},
            "width": one["width"],
            "height": one["height"],
            "gradient_checkpointing": one["gradient_checkpointing"],
            "sample_every": one["preview_every"],
            "seed": one["seed"],
            "negative_prompts": negatives,
            "precision": precision,
        }
    )


@torch.no_grad()
def _latents(inputs: dict[str, list], config: TrainingConfig, teacher: Teacher) -> list[Tensor] | None:
    """The training pictures that are connected, as the U-Net has them, each (channels, height, width)."""
    base = teacher.model.model
    if inputs.get("latents"):
        given = [latent for batch in inputs["latents"] for latent in batch["samples"].clone()]
    elif inputs.get("images"):
        if not inputs.get("vae"):
            raise SunError("Training on images needs the VAE; connect it, or connect latents in place of the images.")
        pictures = [picture for batch in inputs["images"] for picture in batch.clone()]
        given = [latent for p in pictures for latent in inputs["vae"][0].encode(_fitted(p, config)).clone()]
    else:
        return None
    size = (config.height // 8, config.width // 8)
    for latent in given:
        if latent.shape[1:] != size:
            height, width = latent.shape[1:]
            raise SunError(
                f"A latent is {width * 8}x{height * 8} pixels, and width and height say "
                f"{config.width}x{config.height}; set them to the latents' size, or connect images."
            )
    return [base.process_latent_in(latent.unsqueeze(0)).squeeze(0) for latent in given]


def _fitted(picture: Tensor, config: TrainingConfig) -> Tensor:
    """(height, width, channels) scaled and cropped to the training size: (1, height, width, 3)."""
    planes = picture[..., :3].movedim(-1, 0).unsqueeze(0)
    return comfy.utils.common_upscale(planes, config.width, config.height, "lanczos", "center").movedim(1, -1)


def _examples(latents: list[Tensor], captions: list[str], store: dict[str, Tensors]) -> list[Example]:
    """Each picture with its caption."""
    if len(captions) == 1:
        captions = captions * len(latents)
    if len(captions) != len(latents):
        raise SunError(
            f"There are {len(latents)} pictures and {len(captions)} prompts; write one line for each picture, in their "
            "order, or one line for all."
        )
    store |= {f"picture {i}": {"latent": latent.cpu()} for i, latent in enumerate(latents)}
    return [Example(f"picture {i}", caption) for i, caption in enumerate(captions)]


def _lines(texts: list[str]) -> list[str]:
    """The prompts of one or several multi-line texts."""
    return [line.strip() for text in texts for line in text.splitlines() if line.strip()]
