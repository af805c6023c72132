"""Gradient checkpointing: less is kept for the backward pass, which gives the same gradients."""

from contextlib import nullcontext

import pytest
import tiny_run
import torch
from sun_pack.sun_core.training.gradient_checkpointing import gradient_checkpointing


def gradients_and_bytes_kept(checkpointed):
    trainer = tiny_run.tiny_trainer()
    batch, generator = trainer.data.batch(0, 0, 1)
    kept = []

    def keep(tensor):
        kept.append(tensor.nbytes)
        return tensor

    unet = trainer.distillation.unet
    with gradient_checkpointing(unet) if checkpointed else nullcontext():
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = trainer.distillation.loss(batch, generator)
        loss.backward()
    return [parameter.grad.clone() for parameter in trainer.loop.parameters.values()], sum(kept)


def test_less_is_kept_for_the_same_gradients():
    (plain, kept), (checkpointed, kept_then) = (gradients_and_bytes_kept(on) for on in (False, True))
    assert kept_then < 0.2 * kept
    for a, b in zip(plain, checkpointed, strict=True):
        torch.testing.assert_close(b, a)


def test_the_blocks_are_as_before_afterwards():
    unet = tiny_run.mini()[0].model.diffusion_model
    with pytest.raises(KeyError), gradient_checkpointing(unet):
        raise KeyError
    assert not any("forward" in vars(module) for module in unet.modules())
