"""The training loop: one generator that yields after each optimizer step; its caller does what happens in between."""

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from accelerate import Accelerator
from torch import Tensor, nn

from .config import TrainingConfig
from .learning_rate import learning_rate_at
from .optimizer import new_optimizer

BatchLoss = Callable[[int, int], Tensor]
"""(step, number) -> the loss of a batch; the steps of a run count from 0, and so do the batches of a step."""


class NotFiniteError(Exception):
    """The loss or the gradient of a step is not a number."""

    def __init__(self, what: str):
        super().__init__(f"the {what} is not a number")
        self.what = what


@dataclass(frozen=True)
class Step:
    """The outcome of an optimizer step."""

    number: int
    """Optimizer steps so far, this one included."""
    loss: float
    learning_rate: float
    gradient_norm: float


class TrainingLoop:
    """Fits parameters to a loss: AdamW with warm-up, cosine and clipping, and an average of the weights.

    The processes of a distributed run each take a share of a step's batches, and average their gradients. Nothing
    here knows what is trained; `Trainer` trains a SUN adapter with it.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: TrainingConfig, accelerator: Accelerator):
        """Start at step 0; the parameters must be on the accelerator's device."""
        self.parameters, self.config, self.accelerator = dict(parameters), config, accelerator
        optimizer = new_optimizer(list(self.parameters.values()), config)
        self.optimizer = accelerator.prepare_optimizer(optimizer, device_placement=False)
        self.average = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.done = 0
        self.losses: list[float] = []

    @property
    def batches_per_step(self) -> int:
        """Count the batches of a step in all processes."""
        return self.config.accumulation * self.accelerator.num_processes

    def steps(self, loss: BatchLoss, after_step: Callable[[], None] = lambda: None) -> Generator[Step, None, None]:
        """Train from where the run stands to its end; `after_step` is called when the parameters have changed.

        Raises NotFiniteError if a loss or a gradient is not a number; the average is as it was before that step.
        """
        config = self.config
        while self.done < config.steps:
            rate = learning_rate_at(self.done, config.steps, config.learning_rate, config.warmup)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            mean_loss, gradient_norm = self._optimize(loss)
            after_step()
            self._update_average()
            self.done += 1
            self.losses.append(mean_loss)
            yield Step(self.done, mean_loss, rate, gradient_norm)

    def _optimize(self, loss: BatchLoss) -> tuple[float, float]:
        """Take one optimizer step; returns the mean loss over all processes and the norm of the gradient."""
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        losses = []
        for i in range(self.config.accumulation):
            batch_loss = loss(self.done, i * processes + rank)
            losses.append(batch_loss.detach())
            self.accelerator.backward(batch_loss / self.config.accumulation)
        self._average_gradients()
        mean = self.accelerator.reduce(torch.stack(losses).mean(), "mean").item()
        norm = self.accelerator.clip_grad_norm_(list(self.parameters.values()), self.config.gradient_clip)
        self.check_finite(mean, float(norm))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return mean, float(norm)

    def _average_gradients(self) -> None:
        """Average the gradients of all processes, in one flat tensor."""
        processes = self.accelerator.num_processes
        if processes == 1:
            return
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= processes
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def check_finite(self, loss: float, gradient_norm: float) -> None:
        """Raise NotFiniteError if the loss is not a number, or the gradient is not at any scale."""
        if not math.isfinite(loss):
            raise NotFiniteError("loss")
        # the scaler of fp16 leaves out a step that overflowed, and scales less from then on
        scaler = self.accelerator.scaler
        if not math.isfinite(gradient_norm) and (scaler is None or scaler.get_scale() < 1):
            raise NotFiniteError("gradient")

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema, (1 + self.done) / (10 + self.done))
        for name, parameter in self.parameters.items():
            self.average[name].lerp_(parameter.detach(), 1 - decay)

    def end(self) -> None:
        """Close the logs and leave the other processes of the run; no step can follow."""
        self.accelerator.end_training()

    def state_dict(self) -> dict[str, Any]:
        """Collect all of the run's state but for the parameters; random numbers follow from the seed and `done`."""
        scaler = self.accelerator.scaler
        return {
            "done": self.done,
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "ema": self.average,
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave; the caller loads the parameters."""
        self.done, self.losses = state["done"], state["losses"].tolist()
        for name, average in self.average.items():
            average.copy_(state["ema"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
