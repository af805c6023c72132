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
from .result import trained_adapter
from .trainer import Trainer
from .training_loop import Step

LOGS = "logs"


class RunFolder:
    """Keeps all that a run writes, each file whole at any moment."""

    def __init__(self, folder: Path, name: str = "sun_adapter"):
        self.folder = folder
        self.config, self.checkpoint = folder / "config.yaml", folder / "checkpoint.pt"
        self.loss_curve, self.adapter = folder / "loss.png", folder / f"{name}.safetensors"

    def claim(self, config: TrainingConfig) -> None:
        """Write the settings into a new run's folder; raises SunError if it holds a run with other settings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob("**/*.part"):
            leftover.unlink()
        values = config.to_mapping()
        if self.config.exists():
            before = yaml.safe_load(self.config.read_text(encoding="utf-8"))
            if different := [name for name in values if before.get(name) != values[name]]:
                name = different[0]
                raise SunError(
                    f"{self.folder} holds a run with {name} = {before.get(name)}, and {values[name]} was asked for; "
                    "start it with its own settings to go on, or choose another folder with --out."
                )
        with whole_file(self.config) as file:
            file.write(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode())

    def train(self, trainer: Trainer, evaluation: Evaluation | None) -> Path:
        """Train to the end, from the checkpoint if there is one; returns the path of the adapter's file.

        Each process of a distributed run calls this; the main one writes. Raises SunError if training has to stop.
        """
        config, main = trainer.config, trainer.accelerator.is_main_process
        self.resume(trainer)
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
                    self.save(trainer)
                if evaluation and config.sample_every and step.number % config.sample_every == 0:
                    self.write_grid(trainer, evaluation)
        trainer.accelerator.wait_for_everyone()
        if main:
            self._finish(trainer, evaluation)
        trainer.end()
        return self.adapter

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint."""
        with whole_file(self.checkpoint) as file:
            torch.save(trainer.state_dict(), file)

    def resume(self, trainer: Trainer) -> None:
        """Bring `trainer` to where the checkpoint was written, if there is one; raises SunError if it is damaged."""
        if not self.checkpoint.exists():
            return
        try:
            state: dict[str, Any] = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0].rstrip(". ")
            raise SunError(
                f"The checkpoint {self.checkpoint} cannot be read ({reason}); delete it to start this run anew."
            ) from error
        trainer.load_state_dict(state)

    def write_grid(self, trainer: Trainer, evaluation: Evaluation) -> None:
        """Write the sample grid of the averaged adapter as it is now."""
        grid = evaluation.grid(trainer.averaged_adapter())
        with whole_file(self.folder / "grids" / f"step_{trainer.done:07}.png") as file:
            grid.save(file, format="PNG")

    def _finish(self, trainer: Trainer, evaluation: Evaluation | None) -> None:
        if evaluation:
            self.write_grid(trainer, evaluation)
        adapter = trained_adapter(trainer, evaluation)
        with whole_file(self.loss_curve) as file:
            loss_curve(trainer.losses).save(file, format="PNG")
        save_adapter(adapter, self.adapter, {})


def _start_tracker(trainer: Trainer) -> bool:
    """Open the TensorBoard log, without what a killed run wrote after its last checkpoint."""
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
