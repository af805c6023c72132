"""An estimate of what a run needs, measured on its first steps with random data: for --dry-run."""

import time
from contextlib import closing
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .batch import Batch
from .prompts import Prompt
from .session import Session
from .trainer import Trainer

WARM_UP, COMPILED_WARM_UP = 2, 10
"""Steps before the measurement: they allocate, and compile."""
FEWEST_STEPS, MOST_STEPS, SECONDS = 2, 12, 20.0
"""The measurement ends after so many seconds or steps, but not before it has a few."""
GIB = 2**30


class RandomData:
    """Gives noise in the shape of training data."""

    digest = "random"

    def __init__(self, session: Session):
        config, base, rows = session.config, session.model.model, session.config.batch_size
        context_dim, generator = session.distillation.adapter.layout.context_dim, torch.Generator().manual_seed(0)

        def noise(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        self._x0 = noise(rows, base.latent_format.latent_channels, config.height // 8, config.width // 8)
        y = noise(2 * rows, base.adm_channels) if base.adm_channels else None
        self._prompts = Prompt(noise(2 * rows, 77, context_dim), y)
        self._guidance = torch.full((rows,), config.guidance[0])

    def batch(self, step: int, number: int, per_step: int) -> tuple[Batch, torch.Generator]:
        """Make the same batch each time, and a generator as TrainingData.batch does."""
        return Batch.of(self._x0, self._prompts, self._guidance), torch.Generator().manual_seed(step)


@dataclass(frozen=True)
class Estimate:
    """Memory in bytes, time in seconds."""

    unet: int
    adapter: int
    training_state: int
    """Gradient, optimizer, slow target and average of the adapter."""
    peak: int | None
    """All of it with the activations, measured; None if the device is not a CUDA device."""
    step: float
    images: int
    """Rows per step, in all processes."""
    steps: int
    losses: list[float]
    """Of the first steps, those before the measuring included: the same for the same data, seed and weights."""

    def describe(self) -> str:
        """Write the figures as lines for people."""
        hours, minutes = divmod(round(self.step * self.steps / 60), 60)
        peak = "not measured on this device" if self.peak is None else in_words(self.peak)
        return "\n".join(
            [
                f"U-Net, once for teacher and student  {in_words(self.unet)}",
                f"adapter                              {in_words(self.adapter)}",
                f"gradient, optimizer, averages        {in_words(self.training_state)}",
                f"at most, with activations            {peak}",
                f"time per step                        {self.step:.2f} s, {self.images / self.step:.2f} images/s",
                f"time for {self.steps} steps".ljust(37) + f"{hours} h {minutes} min, without data and samples",
            ]
        )


def estimate(session: Session) -> Estimate:
    """Measure some steps on random data; the adapter of `session` is of no use afterwards."""
    config, device = session.config, session.accelerator.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    warm_up = COMPILED_WARM_UP if config.compile else WARM_UP
    short = replace(config, steps=warm_up + MOST_STEPS)
    with session.loaded():
        trainer = Trainer(session.distillation, RandomData(session), short, session.accelerator)  # type: ignore[arg-type]
        elapsed = _seconds_per_step(trainer, warm_up)
    adapter = size_of(session.distillation.adapter)
    state = trainer.loop.optimizer.state.values()
    optimizer = sum(t.nbytes for tensors in state for t in tensors.values() if isinstance(t, Tensor))
    return Estimate(
        unet=size_of(session.distillation.unet),
        adapter=adapter,
        training_state=3 * adapter + optimizer,
        peak=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        step=elapsed,
        images=config.batch_size * config.accumulation * session.accelerator.num_processes,
        steps=config.steps,
        losses=trainer.losses,
    )


def _seconds_per_step(trainer: Trainer, warm_up: int) -> float:
    with closing(trainer.steps()) as steps:
        for _ in range(warm_up):
            next(steps)
        started = time.monotonic()
        for measured, _ in enumerate(steps, start=1):
            elapsed = time.monotonic() - started
            if measured >= FEWEST_STEPS and elapsed > SECONDS:
                break
    return elapsed / measured


def in_words(size: int) -> str:
    """Write a number of bytes in MiB or GiB."""
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / 2**20:.1f} MiB"


def size_of(module: nn.Module) -> int:
    """Count the bytes of all weights."""
    return sum(tensor.nbytes for tensor in module.state_dict().values())
