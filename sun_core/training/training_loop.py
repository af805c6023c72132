"""The training loop: one generator that yields after each optimizer step; its caller does what happens in between."""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from accelerate import Accelerator
from torch import Tensor, nn

from ..errors import Text
from .config import TrainingConfig
from .learning_rate import learning_rate_at
from .optimizer import new_optimizer

BatchLoss = Callable[[int, int], Tensor]
"""(step, number) -> the loss of a batch; the steps of a run count from 0, and so do the batches of a step."""


class NotFiniteError(Exception):
    """The loss or the gradient of a step is not a number."""

    def __init__(self, what: Text, broken: Sequence[str]):
        """Name what is not a number, and the parameters that were not finite before the step."""
        super().__init__(f"the {what} is not a number")
        self.what, self.broken = what, broken


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
        self.looks_ahead = accelerator.device.type == "cuda"
        """Whether the gradients of the next step are begun before the outcome of this one is read."""

    @property
    def batches_per_step(self) -> int:
        """Count the batches of a step in all processes."""
        return self.config.accumulation * self.accelerator.num_processes

    def steps(self, loss: BatchLoss, after_step: Callable[[], None] = lambda: None) -> Generator[Step, None, None]:
        """Train from where the run stands to its end; `after_step` is called when the parameters have changed.

        A GPU is given the work of the next step before the outcome of this one is read, so that it never waits for
        the host. Raises NotFiniteError if a loss or a gradient is not a number; the average is as it was before that
        step.
        """
        upcoming = None
        while self.done < self.config.steps:
            batch_losses = upcoming or self._compute_gradients(loss, self.done)
            rate = learning_rate_at(self.done, self.config.steps, self.config.learning_rate, self.config.warmup)
            outcome = self._change_parameters(batch_losses, rate)
            after_step()
            goes_on = self.done + 1 < self.config.steps
            upcoming = self._compute_gradients(loss, self.done + 1) if self.looks_ahead and goes_on else None
            mean_loss, gradient_norm, *weight_norms = outcome.read()
            self.check_finite(mean_loss, gradient_norm, weight_norms)
            self._update_average()
            self.done += 1
            self.losses.append(mean_loss)
            yield Step(self.done, mean_loss, rate, gradient_norm)

    def _compute_gradients(self, loss: BatchLoss, step: int) -> list[Tensor]:
        """Add up the gradients of this process's batches; returns their losses."""
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        losses = []
        for i in range(self.config.accumulation):
            batch_loss = loss(step, i * processes + rank)
            losses.append(batch_loss.detach())
            self.accelerator.backward(batch_loss / self.config.accumulation)
        return losses

    def _change_parameters(self, batch_losses: list[Tensor], rate: float) -> "_Arriving":
        """Take the optimizer's step.

        Returns the mean loss over all processes, the norm of the gradient, and the norm that each weight had before.
        """
        parameters = list(self.parameters.values())
        self._average_gradients()
        loss = self.accelerator.reduce(torch.stack(batch_losses).mean(), "mean")
        norm = self.accelerator.clip_grad_norm_(parameters, self.config.gradient_clip)
        weight_norms = torch._foreach_norm([parameter.detach() for parameter in parameters])
        outcome = _Arriving(torch.stack([loss, norm, *weight_norms]))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return outcome

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

    def check_finite(self, loss: float, gradient_norm: float, weight_norms: Sequence[float] = ()) -> None:
        """Raise NotFiniteError if the loss is not a number, or the gradient is not at any scale."""
        broken = [name for name, norm in zip(self.parameters, weight_norms, strict=False) if not math.isfinite(norm)]
        if not math.isfinite(loss):
            raise NotFiniteError(Text("loss"), broken)
        # the scaler of fp16 leaves out a step that overflowed, and scales less from then on
        scaler = self.accelerator.scaler
        if not math.isfinite(gradient_norm) and (scaler is None or scaler.get_scale() < 1):
            raise NotFiniteError(Text("gradient"), broken)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema, (1 + self.done) / (10 + self.done))
        torch._foreach_lerp_(list(self.average.values()), list(self.parameters.values()), 1 - decay)

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


class _Arriving:
    """Numbers on their way from the device to the host."""

    def __init__(self, numbers: Tensor):
        self._numbers = numbers.to("cpu", non_blocking=numbers.is_cuda)
        self._event = torch.cuda.Event() if numbers.is_cuda else None
        if self._event:
            self._event.record()

    def read(self) -> list[float]:
        """Wait for the numbers, but not for what the device was given after them."""
        if self._event:
            self._event.synchronize()
        return self._numbers.tolist()
