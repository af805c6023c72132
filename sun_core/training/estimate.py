"""What a run will need, from its first steps on random data: for --dry-run."""

import time
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from .config import TrainingConfig
from .distillation import Batch
from .setup import Teacher
from .text import Prompt
from .trainer import Trainer

MEASURED_STEPS = 2
GIB = 2**30


class RandomData:
    """Noise in the shape of training data."""

    digest = "random"

    def __init__(self, teacher: Teacher, config: TrainingConfig):
        base, rows = teacher.model.model, config.batch_size
        self._x0 = torch.randn(rows, base.latent_format.latent_channels, config.height // 8, config.width // 8)
        context = torch.randn(2 * rows, 77, teacher.distillation.adapter.layout.context_dim)
        self._prompts = Prompt(context, torch.randn(2 * rows, base.adm_channels) if base.adm_channels else None)
        self._guidance = torch.full((rows,), config.guidance[0])

    def batch(self, step: int, number: int, per_step: int) -> tuple[Batch, torch.Generator]:
        return Batch.of(self._x0, self._prompts, self._guidance), torch.Generator().manual_seed(step)


@dataclass(frozen=True)
class Estimate:
    """Memory in bytes, time in seconds."""

    unet: int
    adapter: int
    training_state: int
    """Gradient, optimizer, slow target and average of the adapter."""
    peak: int | None
    """All of it with the activations, as measured on a CUDA device."""
    step: float
    images: int
    """Rows per step, in all processes."""
    steps: int

    def describe(self) -> str:
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


def estimate(teacher: Teacher, config: TrainingConfig, accelerator: Accelerator) -> Estimate:
    """Measures some steps on random data; the adapter of `teacher` is of no use afterwards."""
    device = accelerator.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    data = RandomData(teacher, config)
    short = replace(config, steps=MEASURED_STEPS + 1)
    with teacher.loaded():
        trainer = Trainer(teacher.distillation, data, short, accelerator)  # type: ignore[arg-type]
        steps = trainer.steps()
        next(steps)  # the first one allocates
        started = time.monotonic()
        for _ in steps:
            pass
        elapsed = (time.monotonic() - started) / MEASURED_STEPS
    adapter = size_of(teacher.distillation.adapter)
    optimizer = sum(t.nbytes for state in trainer.optimizer.state.values() for t in state.values() if _is_tensor(t))
    return Estimate(
        unet=size_of(teacher.distillation.unet),
        adapter=adapter,
        training_state=3 * adapter + optimizer,
        peak=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        step=elapsed,
        images=config.batch_size * config.accumulation * accelerator.num_processes,
        steps=config.steps,
    )


def in_words(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / 2**20:.1f} MiB"


def size_of(module: nn.Module) -> int:
    """Bytes of all weights."""
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)
