"""The training of one SUN adapter."""

from collections import deque
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..adapter import SunAdapter
from ..errors import SunError, Text
from .batch import Batch
from .compiled_blocks import compiled_blocks
from .config import TrainingConfig
from .distillation import Distillation, Goal
from .gradient_checkpointing import gradient_checkpointing
from .tensor_folder import content_hash
from .training_data import TrainingData
from .training_loop import NotFiniteError, Step, TrainingLoop

BATCHES_AT_ONCE = 4
"""Batches of a step whose goals are computed together."""


class Trainer:
    """Distils an adapter on data, resumably: `state_dict` holds the whole state of the run."""

    def __init__(
        self, distillation: Distillation, data: TrainingData, config: TrainingConfig, accelerator: Accelerator
    ):
        """Bring adapter and target to the accelerator's device; the U-Net stays where it is."""
        self.distillation, self.data, self.config, self.accelerator = distillation, data, config, accelerator
        for part in (distillation.adapter, distillation.target):
            part.to(accelerator.device)
        distillation.alphas = distillation.alphas.to(accelerator.device)
        distillation.adapter.requires_grad_(True)
        self.loop = TrainingLoop(dict(distillation.adapter.named_parameters()), config, accelerator)
        self.unet_hash = content_hash(distillation.unet)
        self._prepared: deque[tuple[Batch, Goal]] = deque()

    @property
    def done(self) -> int:
        """Count the optimizer steps so far."""
        return self.loop.done

    @property
    def losses(self) -> list[float]:
        """List the loss of each step so far."""
        return self.loop.losses

    def steps(self) -> Generator[Step, None, None]:
        """Train from where the run stands to its end.

        Raises SunError, with the cause, if a loss or a gradient is no longer a number.
        """
        config, unet = self.config, self.distillation.unet
        self._prepared.clear()
        with ExitStack() as ways:
            if config.compile:
                ways.enter_context(compiled_blocks(unet))
            if config.gradient_checkpointing:
                ways.enter_context(gradient_checkpointing(unet))
            try:
                yield from self.loop.steps(self._loss, self.distillation.update_target)
            except NotFiniteError as error:
                raise SunError(self._cause(error.what, error.broken)) from error

    def _loss(self, step: int, number: int) -> Tensor:
        if not self._prepared:
            self._prepared = self._prepare(step, number)
        batch, goal = self._prepared.popleft()
        return self.distillation.student_loss(batch, goal)

    def _prepare(self, step: int, number: int) -> deque[tuple[Batch, Goal]]:
        """Compute the goals of this process's next batches in the same evaluations.

        That needs less memory than the activations of one student batch, unless these are not kept either.
        """
        per_step, processes = self.loop.batches_per_step, self.accelerator.num_processes
        count = 1 if self.config.gradient_checkpointing else BATCHES_AT_ONCE
        numbers = range(number, per_step, processes)[:count]
        drawn = [self.data.batch(step, number, per_step) for number in numbers]
        batches = [batch.to(self.accelerator.device) for batch, _ in drawn]
        goals = self.distillation.goals(batches, [generator for _, generator in drawn])
        return deque(zip(batches, goals, strict=True))

    def _cause(self, what: Text, broken: Sequence[str]) -> Text:
        """Explain why a loss or a gradient is not finite, and what to do; `broken` names weights that are not."""
        begun = Text(
            "Training stopped in step {step}: the {what} is not a number any more", step=self.done + 1, what=what
        )
        if broken:
            return Text(
                "{begun}, because weights of the adapter are not numbers ({weight}); lower learning_rate.",
                begun=begun,
                weight=broken[0],
            )
        if not all(torch.isfinite(p).all() for p in self.distillation.unet.parameters()):
            return Text(
                "{begun}, because the MODEL has weights that are not numbers; choose another checkpoint.", begun=begun
            )
        of_step = self.loop.batches_per_step
        if not all(self.data.batch(self.done, number, of_step)[0].is_finite() for number in range(of_step)):
            return Text(
                "{begun}, because the data has values that are not numbers; connect other images, or delete the cached "
                "latents and texts.",
                begun=begun,
            )
        precision = {"no": "full"}.get(self.accelerator.mixed_precision, self.accelerator.mixed_precision)
        return Text(
            "{begun}, although weights and data are fine: the U-Net overflows in {precision} precision; lower "
            "learning_rate, or start ComfyUI with --bf16-unet or --fp32-unet (train.py: set precision to bf16 or no).",
            begun=begun,
            precision=precision,
        )

    def end(self) -> None:
        """Close the logs and leave the other processes of the run; no step can follow."""
        self.loop.end()

    def is_average_finite(self) -> bool:
        """Tell whether all averaged weights are numbers."""
        return all(bool(weight.isfinite().all()) for weight in self.loop.average.values())

    def averaged_adapter(self) -> SunAdapter:
        """Make the result: a frozen adapter on the CPU, with the averaged weights."""
        adapter = SunAdapter(self.distillation.adapter.layout)
        adapter.load_state_dict(self.loop.average)
        return adapter.requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        """Collect the whole state of the run."""
        return self.loop.state_dict() | {
            "data": self.data.digest,
            "teacher": self.unet_hash,
            "adapter": self.distillation.adapter.state_dict(),
            "target": self.distillation.target.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`; raises SunError if other data or another teacher was used there."""
        if state["teacher"] != self.unet_hash:
            raise SunError(
                "This run was begun with another checkpoint as the teacher, or in another precision; start it with "
                "those again, or start anew in another folder."
            )
        if state["data"] != self.data.digest:
            raise SunError(
                "The training data has changed since this run's last checkpoint; put it back as it was, or start anew "
                "in another folder."
            )
        self.distillation.adapter.load_state_dict(state["adapter"])
        self.distillation.target.load_state_dict(state["target"])
        self.loop.load_state_dict(state)
