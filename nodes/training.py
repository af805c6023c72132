"""The work of Train SUN Adapter. Needs accelerate, which a ComfyUI may lack."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import comfy.utils
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.model_patcher import ModelPatcher
from PIL import Image
from torch import Tensor

from ..sun_core.adapter import SunAdapter, save_adapter
from ..sun_core.errors import SunError, Text
from ..sun_core.training.config import TrainingConfig
from ..sun_core.training.evaluation import Evaluation
from ..sun_core.training.loss_curve import loss_curve
from ..sun_core.training.processes import new_accelerator
from ..sun_core.training.result import trained_adapter
from ..sun_core.training.session import Session, defaults_for_model
from ..sun_core.training.trainer import Trainer
from .new_adapter_file import new_adapter_file

DRAWN_PICTURES = 64
"""Pictures that the MODEL draws to train on if none are connected and there are fewer prompts."""
PREVIEW_SIZE = 512


def train(inputs: dict[str, list], report: Callable[[str], None]) -> tuple[SunAdapter, Image.Image]:
    """Train as the inputs of Train SUN Adapter say, each of which is a list; returns the adapter and its loss curve.

    Must run outside of inference mode. If an interrupt or an error ends the training early, what was learned is saved
    to a file first. Raises SunError if the inputs do not go together or training has to stop.
    """
    one = {name: values[0] for name, values in inputs.items() if values}
    config = _config(one, _lines(inputs["negatives"]))
    captions = _lines(inputs["prompts"])
    if not captions:
        raise SunError("There are no prompts to train on; write at least one, better some dozens, one a line.")
    accelerator = new_accelerator(config, on_cpu=one["model"].load_device.type == "cpu")
    session = Session(one["model"], one["clip"], one.get("vae"), config, {}, accelerator, one.get("sun_adapter"))
    latents = _latents(inputs, config)
    if latents is None:
        rows = config.batch_size * config.accumulation * config.steps
        examples = session.draw(captions, min(DRAWN_PICTURES, rows // 16))
    else:
        examples = session.caption(latents, captions)
    with session.loaded():
        trainer, evaluation = session.trainer(examples), session.evaluation(examples)
        with _saved_if_ended_early(trainer, report):
            _run(trainer, evaluation)
            adapter = trained_adapter(trainer, evaluation)
    report(
        Text(
            "Trained {steps} steps on {pictures} pictures; the loss is {loss:.4g} now.",
            steps=trainer.done,
            pictures=len(examples),
            loss=trainer.losses[-1],
        )
    )
    return adapter, loss_curve(trainer.losses)


def _run(trainer: Trainer, evaluation: Evaluation | None) -> None:
    """Take all steps, and show progress and comparisons on the node."""
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
    """Write what was learned, if anything was, to a file when an interrupt or an error ends the training."""
    try:
        yield
    except BaseException:
        if trainer.done and trainer.is_average_finite():
            steps = trainer.done
            path = new_adapter_file(f"unfinished_{steps}_steps")
            try:
                save_adapter(trained_adapter(trainer, None), path, {})
                learned = Text("Ended after {steps} steps; what was learned is in {name}.", steps=steps, name=path.name)
                report(learned)
            except (OSError, SunError) as error:  # what ended the training is still to be told
                why = error.sentence if isinstance(error, SunError) else error.strerror
                lost = Text(
                    "Ended after {steps} steps; what was learned could not be saved ({why}).", steps=steps, why=why
                )
                report(lost)
        raise


def _config(one: dict[str, Any], negatives: list[str]) -> TrainingConfig:
    return defaults_for_model(one["model"]).with_values(
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
            "precision": _precision(one["model"]),
        }
    )


def _precision(model: ModelPatcher) -> str:
    """Name the precision that the MODEL computes in."""
    computes_in = model.model.manual_cast_dtype or model.model_dtype()
    return {torch.float16: "fp16", torch.bfloat16: "bf16"}.get(computes_in, "no")


@torch.no_grad()
def _latents(inputs: dict[str, list], config: TrainingConfig) -> list[Tensor] | None:
    """Collect the connected latents, or encode the connected images: each (channels, height, width)."""
    if inputs.get("latents"):
        return [latent for batch in inputs["latents"] for latent in batch["samples"].clone()]
    if not inputs.get("images"):
        return None
    if not inputs.get("vae"):
        raise SunError("Training on images needs the VAE; connect it, or connect latents in place of the images.")
    pictures = [picture for batch in inputs["images"] for picture in batch.clone()]
    return [latent for p in pictures for latent in inputs["vae"][0].encode(_fitted(p, config)).clone()]


def _fitted(picture: Tensor, config: TrainingConfig) -> Tensor:
    """Scale and crop (height, width, channels) to the training size, (1, height, width, 3)."""
    planes = picture[..., :3].movedim(-1, 0).unsqueeze(0)
    return comfy.utils.common_upscale(planes, config.width, config.height, "lanczos", "center").movedim(1, -1)


def _lines(texts: list[str]) -> list[str]:
    """Split multi-line texts into prompts."""
    return [line.strip() for text in texts for line in text.splitlines() if line.strip()]
