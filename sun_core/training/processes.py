"""The processes and the precision of a run, through accelerate."""

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from ..errors import SunError
from .config import TrainingConfig


def chosen_precision(precision: str, on_cpu: bool) -> str:
    """Resolve the precision "auto": on CUDA devices bf16, or fp16 if they lack it; "no" elsewhere.

    Raises SunError for fp16 on a CPU, where torch cannot train in it.
    """
    if precision == "fp16" and on_cpu:
        raise SunError(
            "Training in fp16 needs a GPU, and this is a CPU; start ComfyUI without --force-fp16 and --fp16-unet, or "
            "set train.py's precision to no or bf16."
        )
    if precision != "auto":
        return precision
    if on_cpu or not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def new_accelerator(config: TrainingConfig, on_cpu: bool = False, **kwargs: Any) -> Accelerator:
    """Make the Accelerator, which knows how the processes of this run were launched, in the run's precision."""
    precision = chosen_precision(config.precision, on_cpu)
    AcceleratorState._reset_state()  # a second training in the same ComfyUI may use another precision
    return Accelerator(cpu=on_cpu, mixed_precision=precision, **kwargs)
