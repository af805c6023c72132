"""The training loop: one generator that yields after each optimiser step; what happens in between is its caller's."""

import math
from collections.abc import Generator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from ..adapter import SunAdapter
from ..errors import SunError
from .config import TrainingConfig
from .data import TrainingData
from .distillation import Distillation
from .gradient_checkpointing import gradient_checkpointing
from .tensor_folder import content_hash


@dataclass(frozen=True)
class Step:
    """What became of an optimiser step."""

    number: int
    """Of the steps done, from 1."""
    loss: float
    learning_rate: float
    gradient_norm: float


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then a cosine to a fiftieth; `step` counts from 0."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def chosen_precision(precision: str, on_cpu: bool) -> str:
    """What "auto" stands for on this machine: bf16 on GPUs that have it, fp16 on others, none on a CPU."""
    if precision != "auto":
        return precision
    if on_cpu or not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def new_accelerator(config: TrainingConfig, on_cpu: bool = False, **kwargs: Any) -> Accelerator:
    """accelerate, which knows how the processes of this run were launched, in the run's precision.

    Raises SunError for fp16 on a CPU, where torch cannot train in it.
    """
    precision = chosen_precision(config.precision, on_cpu)
    if precision == "fp16" and on_cpu:
        raise SunError("Training in fp16 needs a GPU, and this is a CPU; set precision to no, or to bf16.")
    AcceleratorState._reset_state()  # a ComfyUI that trains a second time may do so in another precision
    return Accelerator(
        cpu=on_cpu,
        mixed_precision=precision,
        gradient_accumulation_steps=config.accumulation,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        **kwargs,
    )


def new_optimizer(parameters: list[nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW: 8-bit where asked for or where the machine has it, else fused where torch has that."""
    settings: dict[str, Any] = {
        "lr": config.learning_rate, "betas": (0.9, 0.99), "weight_decay": config.weight_decay,
    }  # fmt: skip
    device = parameters[0].device.type
    if config.optimizer == "adamw8bit" or (config.optimizer == "auto" and device == "cuda"):
        try:
            from bitsandbytes.optim import AdamW8bit

            return AdamW8bit(parameters, **settings)
        except ImportError:
            if config.optimizer == "adamw8bit":
                raise SunError(
                    "The optimizer adamw8bit needs the Python package bitsandbytes; install it with pip, or set "
                    "optimizer to adamw."
                ) from None
    return torch.optim.AdamW(parameters, fused=device in ("cuda", "cpu"), **settings)


class Trainer:
    """Distils an adapter on data, resumably: all that a run is made of is in `state_dict`."""

    def __init__(
        self, distillation: Distillation, data: TrainingData, config: TrainingConfig, accelerator: Accelerator
    ):
        """The U-Net of `distillation` stays where it is; adapter and target are brought to the accelerator's device."""
        self.distillation, self.data, self.config, self.accelerator = distillation, data, config, accelerator
        for part in (distillation.adapter, distillation.target):
            part.to(accelerator.device)
        distillation.alphas = distillation.alphas.to(accelerator.device)
        distillation.adapter.requires_grad_(True)
        self.parameters = list(distillation.adapter.parameters())
        optimizer = new_optimizer(self.parameters, config)
        self.model, self.optimizer = accelerator.prepare(distillation, optimizer, device_placement=[False, False])
        self.ema = {name: p.detach().clone() for name, p in distillation.adapter.named_parameters()}
        self.teacher = content_hash(distillation.unet)
        self.done = 0
        self.losses: list[float] = []

    def steps(self) -> Generator[Step, None, None]:
        """Trains from where the run stands to its end.

        Raises SunError, with the cause, where a loss or a gradient is no longer a number.
        """
        config = self.config
        with gradient_checkpointing(self.distillation.unet) if config.gradient_checkpointing else nullcontext():
            while self.done < config.steps:
                rate = learning_rate_at(self.done, config)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                loss, gradient_norm = self._optimise()
                self.distillation.update_target()
                self._update_average()
                self.done += 1
                self.losses.append(loss)
                yield Step(self.done, loss, rate, gradient_norm)

    def _optimise(self) -> tuple[float, float]:
        """One optimiser step: mean loss over all processes, norm of the gradient."""
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        losses = []
        gradient_norm = torch.zeros(())
        for i in range(self.config.accumulation):
            batch, generator = self.data.batch(self.done, i * processes + rank, self.config.accumulation * processes)
            with self.accelerator.accumulate(self.model):
                loss = self.model(batch.to(self.accelerator.device), generator)
                losses.append(loss.detach())
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    gradient_norm = self._clip()
                self.optimizer.step()
                self.optimizer.zero_grad()
        mean = self.accelerator.reduce(torch.stack(losses).mean(), "mean").item()
        if not math.isfinite(mean):
            raise SunError(self._cause("loss"))
        return mean, float(gradient_norm)

    def _clip(self) -> Tensor:
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.config.gradient_clip)
        # the scaler of fp16 leaves out a step that overflowed, and scales less from then on
        scaler = getattr(self.accelerator, "scaler", None)
        if not torch.isfinite(norm) and (scaler is None or scaler.get_scale() < 1):
            raise SunError(self._cause("gradient"))
        return norm

    def _cause(self, what: str) -> str:
        """Why a loss or a gradient is not finite, and what to do."""
        begun = f"Training stopped in step {self.done + 1}: the {what} is not a number any more"
        broken = [name for name, p in self.distillation.adapter.named_parameters() if not torch.isfinite(p).all()]
        if broken:
            return f"{begun}, because the adapter's weights are not ({broken[0]}); lower learning_rate."
        if not all(torch.isfinite(p).all() for p in self.distillation.unet.parameters()):
            return f"{begun}, because the MODEL itself has weights that are not; choose another checkpoint."
        of_step = self.config.accumulation * self.accelerator.num_processes
        if not all(self.data.batch(self.done, number, of_step)[0].is_finite() for number in range(of_step)):
            return f"{begun}, because the data has values that are not; delete the cached latents and texts."
        precision = {"no": "full"}.get(self.accelerator.mixed_precision, self.accelerator.mixed_precision)
        return (
            f"{begun}, though weights and data are: the U-Net overflows in {precision} precision; lower learning_rate, "
            "or set precision to bf16 or no."
        )

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema, (1 + self.done) / (10 + self.done))
        for name, parameter in self.distillation.adapter.named_parameters():
            self.ema[name].lerp_(parameter.detach(), 1 - decay)

    def end(self) -> None:
        """Closes the logs and leaves the other processes of the run; no step can follow.

        What wraps the model for several processes goes first: freed as the last owner of gloo's process group, it
        would wait for gloo's thread without letting go of Python's lock, for which that thread may be waiting
        (https://github.com/pytorch/pytorch/issues/56297).
        """
        self.model, self.optimizer = self.accelerator.free_memory(self.model, self.optimizer)
        self.accelerator.end_training()

    def averaged_adapter(self) -> SunAdapter:
        """The result: a frozen adapter, on the CPU, with the averaged weights."""
        adapter = SunAdapter(self.distillation.adapter.layout)
        adapter.load_state_dict(self.ema)
        return adapter.requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        """All that the run is made of; what is random follows from the seed and the number of steps done."""
        scaler = getattr(self.accelerator, "scaler", None)
        return {
            "done": self.done,
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "data": self.data.digest,
            "teacher": self.teacher,
            "adapter": self.distillation.adapter.state_dict(),
            "target": self.distillation.target.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state`; SunError where that was trained on other data or with another teacher."""
        if state["teacher"] != self.teacher:
            raise SunError(
                "This run was begun with another checkpoint as the teacher, or in another precision; start it with "
                "those again, or start anew in another folder."
            )
        if state["data"] != self.data.digest:
            raise SunError(
                "The training data has changed since this run's last checkpoint; put it back as it was, or start anew "
                "in another folder."
            )
        self.done, self.losses = state["done"], state["losses"].tolist()
        self.distillation.adapter.load_state_dict(state["adapter"])
        self.distillation.target.load_state_dict(state["target"])
        for name, average in self.ema.items():
            average.copy_(state["ema"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
