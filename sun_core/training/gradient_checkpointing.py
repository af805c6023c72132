"""Gradient checkpointing: activations are computed again in the backward pass instead of being kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.utils.checkpoint
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import nn


@contextmanager
def gradient_checkpointing(unet: nn.Module) -> Iterator[None]:
    """Let the residual and transformer blocks of `unet` keep only their inputs for the backward pass."""
    blocks = [module for module in unet.modules() if isinstance(module, (ResBlock, BasicTransformerBlock))]
    before = [vars(block).get("forward") for block in blocks]
    for block in blocks:
        block.forward = _checkpointed(block.forward)
    try:
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            del block.forward  # the class's own is seen again
            if forward is not None:
                block.forward = forward


def _checkpointed(forward: Callable) -> Callable:
    def checkpointed(*args: Any, transformer_options: dict | None = None, **kwargs: Any) -> Any:
        if transformer_options is None:
            return torch.utils.checkpoint.checkpoint(forward, *args, use_reentrant=False, **kwargs)
        # ComfyUI notes the present block in these options, and has moved on by the time of the backward pass
        options = dict(transformer_options)

        def run(*args: Any, **kwargs: Any) -> Any:
            return forward(*args, transformer_options=dict(options), **kwargs)

        return torch.utils.checkpoint.checkpoint(run, *args, use_reentrant=False, **kwargs)

    return checkpointed
