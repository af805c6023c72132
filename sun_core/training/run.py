"""A training run in a folder: config.yaml, checkpoint.pt, logs, grids, the loss curve and the adapter.

Killed at any moment, it goes on from its last checkpoint when it is started again with the same settings.
"""

import pickle
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate.utils import is_tensorboard_available
from tqdm.auto import tqdm

from ..adapter import save_adapter
from ..errors import SunError
from ..whole_file import whole_file
from .config import TrainingConfig
from .evaluation import Evaluation
from .loss_curve import loss_curve
from .result import described
from .trainer import Step, Trainer

CONFIG, CHECKPOINT, LOGS, LOSS_CURVE = "config.yaml", "checkpoint.pt", "logs", "loss.png"


def claim_folder(folder: Path, config: TrainingConfig) -> None:
    """Writes the settings into a new run's folder; SunError where a run with other settings is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("**/*.part"):
        leftover.unlink()
    file, values = folder / CONFIG, config.to_mapping()
    if file.exists():
        before = yaml.safe_load(file.read_text(encoding="utf-8"))
        if different := [name for name in values if before.get(name) != values[name]]:
            name = different[0]
            raise SunError(
                f"{folder} holds a run with {name} = {before.get(name)}, and {values[name]} was asked for; start it "
                "with its own settings to go on, or choose another folder with --out."
            )
    with whole_file(file) as written:
        written.write(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode())


def train_in_folder(trainer: Trainer, folder: Path, name: str, evaluation: Evaluation | None) -> Path:
    """Trains to the end, from the folder's checkpoint where there is one; the path of the adapter's file.

    Each process of a distributed run calls this; the main one writes. Raises SunError where training has to stop.
    """
    config, main = trainer.config, trainer.accelerator.is_main_process
    resume(trainer, folder / CHECKPOINT)
    tracked = _start_tracker(trainer) if main else False
    rows = config.batch_size * config.accumulation * trainer.accelerator.num_processes
    bar = tqdm(total=config.steps, initial=trainer.done, unit="step", disable=not main, smoothing=0.05)
    started, first = time.monotonic(), trainer.done
    with bar:
        for step in trainer.steps():
            if not main:
                continue
            images_per_second = rows * (step.number - first) / (time.monotonic() - started)
            bar.update()
            bar.set_postfix_str(f"loss {step.loss:.4g}, {images_per_second:.3g} images/s")
            if tracked:
                trainer.accelerator.log(_scalars(step, images_per_second), step=step.number)
            if step.number % config.save_every == 0 or step.number == config.steps:
                save(trainer, folder / CHECKPOINT)
            if evaluation and config.sample_every and step.number % config.sample_every == 0:
                write_grid(trainer, evaluation, folder)
    trainer.accelerator.wait_for_everyone()
    out = folder / f"{name}.safetensors"
    if main:
        _finish(trainer, folder, out, evaluation)
    trainer.end()
    return out


def save(trainer: Trainer, checkpoint: Path) -> None:
    with whole_file(checkpoint) as file:
        torch.save(trainer.state_dict(), file)


def resume(trainer: Trainer, checkpoint: Path) -> None:
    """Brings `trainer` to where the checkpoint was written, if there is one."""
    if not checkpoint.exists():
        return
    try:
        state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0].rstrip(". ")
        raise SunError(
            f"The checkpoint {checkpoint} cannot be read ({reason}); delete it to start this run anew."
        ) from error
    trainer.load_state_dict(state)


def write_grid(trainer: Trainer, evaluation: Evaluation, folder: Path) -> None:
    """The sample grid of the averaged adapter as it is now."""
    grid = evaluation.grid(trainer.averaged_adapter())
    with whole_file(folder / "grids" / f"step_{trainer.done:07}.png") as file:
        grid.save(file, format="PNG")


def _finish(trainer: Trainer, folder: Path, out: Path, evaluation: Evaluation | None) -> None:
    figures: dict[str, float] = {}
    if evaluation:
        write_grid(trainer, evaluation, folder)
        figures = evaluation.figures(trainer.averaged_adapter())
    with whole_file(folder / LOSS_CURVE) as file:
        loss_curve(trainer.losses).save(file, format="PNG")
    save_adapter(described(trainer, figures), out, {})


def _start_tracker(trainer: Trainer) -> bool:
    """Opens the TensorBoard log, without what a killed run wrote after its last checkpoint."""
    if not is_tensorboard_available():
        return False
    trainer.accelerator.init_trackers(LOGS, init_kwargs={"tensorboard": {"purge_step": trainer.done + 1}})
    return True


def _scalars(step: Step, images_per_second: float) -> dict[str, float]:
    return {
        "loss": step.loss,
        "learning_rate": step.learning_rate,
        "gradient_norm": step.gradient_norm,
        "images_per_second": images_per_second,
    }
