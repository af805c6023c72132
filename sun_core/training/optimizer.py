"""The optimizer of a run."""

from typing import Any

import torch
from torch import nn

from ..errors import SunError
from .config import TrainingConfig


def new_optimizer(parameters: list[nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
    """Make an AdamW: 8-bit if asked for, or if this is a CUDA device and bitsandbytes is installed; else fused.

    Raises SunError if the 8-bit one is asked for and bitsandbytes is missing.
    """
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
