"""A training run in a folder: config.yaml, checkpoint.pt, logs, grids, the loss curve and the adapter.

Killed at any moment, it goes on from its last checkpoint when it is started again with the same settings.
"""

import glob
import time
from pathlib import Path
from typing import Any

import yaml
from accelerate.utils import is_tensorboard_available
from tqdm.auto import tqdm

from ..adapter import save_adapter
from ..errors import SunError
from ..whole_file import whole_file
from .checkpoint import read_checkpoint, write_checkpoint
from .config import TrainingConfig
from .evaluation import Evaluation
from .loss_curve import loss_curve
from .result import trained_adapter
from .trainer import Trainer
from .training_loop import Step

LOGS, GRIDS = "logs", "grids"


class RunFolder:
    """Keeps all that a run writes, each file whole at any moment."""

    def __init__(self, folder: Path, name: str = "sun_adapter"):
        self.folder = folder
        self.config, self.checkpoint = folder / "config.yaml", folder / "checkpoint.pt"
        self.loss_curve, self.adapter = folder / "loss.png", folder / f"{name}.safetensors"

    def claim(self, config: TrainingConfig) -> None:
        """Write the settings into a new run's folder.

        Raises SunError if the folder holds a run with other settings, or something that cannot be a run.
        """
        values = config.to_mapping()
        if self.config.exists():
            before = self._read_config()
            if different := [name for name in values if name in before and before[name] != values[name]]:
                name = different[0]
                raise SunError(
                    "{folder} holds a run with {name} = {before}, and {asked} was asked for; start it with its own "
                    "settings to go on, or choose another folder with --out.",
                    folder=self.folder,
                    name=name,
                    before=before[name],
                    asked=values[name],
                )
        try:
            with whole_file(self.config) as file:
                file.write(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode())
        except OSError as error:
            raise SunError(
                "The folder {folder} cannot be written to ({why}); choose another one with --out.",
                folder=self.folder,
                why=error.strerror,
            ) from error
        self._remove_leftovers()

    def _read_config(self) -> dict[str, Any]:
        try:
            values = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            values = " ".join(str(error).split())
        if not isinstance(values, dict):
            raise SunError(
                "{config} does not hold the settings of a run ({values}); restore it, or choose another folder with "
                "--out.",
                config=self.config,
                values=values,
            )
        return values

    def _remove_leftovers(self) -> None:
        """Remove what a killed process of this run left unfinished, and nothing else."""
        written = (self.config.name, self.checkpoint.name, self.loss_curve.name, self.adapter.name)
        names = (*map(glob.escape, written), f"{GRIDS}/step_*.png", "cache/??/*.safetensors")
        for name in names:
            for leftover in self.folder.glob(f"{name}.*.part"):
                if leftover.name.split(".")[-2].isdigit():  # the process, see whole_file
                    leftover.unlink()

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
        write_checkpoint(trainer.state_dict(), self.checkpoint)

    def resume(self, trainer: Trainer) -> None:
        """Bring `trainer` to where the checkpoint was written, if there is one; raises SunError if it is damaged."""
        if self.checkpoint.exists():
            trainer.load_state_dict(read_checkpoint(self.checkpoint))

    def write_grid(self, trainer: Trainer, evaluation: Evaluation) -> None:
        """Write the sample grid of the averaged adapter as it is now."""
        grid = evaluation.grid(trainer.averaged_adapter())
        with whole_file(self.folder / GRIDS / f"step_{trainer.done:07}.png") as file:
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
