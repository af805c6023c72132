"""The weights of a MODEL while it trains an adapter."""

import weakref

import comfy.model_patcher
import pytest
import torch
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.training.frozen_weights import channels_last, usable_for_autograd, with_weights_that_stay

CPU = torch.device("cpu")


def test_weights_loaded_in_inference_mode_take_part_in_autograd_and_are_as_before_afterwards():
    with torch.inference_mode():
        module = torch.nn.Linear(3, 3)
    memory, weight = module.weight.data_ptr(), module.weight.detach().clone()
    x = torch.randn(2, 3, requires_grad=True)
    with usable_for_autograd(module):
        assert module.weight.data_ptr() == memory and not module.weight.is_inference()
        module(x).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(2, 3))
    assert module.weight.data_ptr() == memory and module.weight.is_inference()


def test_weights_that_are_moved_meanwhile_leave_no_memory_behind():
    with torch.inference_mode():
        module = torch.nn.Linear(3, 3)
    memory = weakref.ref(module.weight.untyped_storage())
    with usable_for_autograd(module):
        module.to(torch.float64)  # as a move to another device does, which is not to be had here
        assert memory() is None
    assert module.weight.dtype == torch.float64


def test_a_streamed_model_is_copied_whole(model, new_model, reference):
    """Uses a stand-in for ComfyUI's dynamic VRAM, which needs a GPU."""
    copied = new_model(reference.unet_config)
    copied.model.diffusion_model.out[2].half()

    class Streamed(comfy.model_patcher.ModelPatcher):
        def is_dynamic(self):
            return True

        def clone(self, disable_dynamic=False):
            assert disable_dynamic
            if self.model is None:
                raise RuntimeError("Cannot create non-dynamic delegate: cached_patcher_init is not initialized.")
            return copied

    assert with_weights_that_stay(model) is model
    assert with_weights_that_stay(Streamed(model.model, CPU, CPU)) is copied
    assert {weight.dtype for weight in copied.model.diffusion_model.parameters()} == {torch.float32}
    orphan = Streamed(model.model, CPU, CPU)
    orphan.model = None
    with pytest.raises(SunError, match="Load Checkpoint"):
        with_weights_that_stay(orphan)


def test_channels_last_gives_the_same_numbers_and_is_undone():
    with torch.inference_mode():
        module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.GroupNorm(2, 4))
        x = torch.randn(2, 3, 8, 8)
        weight, expected = module[0].weight.clone(), module(x)
    x = x.clone()
    with usable_for_autograd(module), channels_last(module):
        assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(module(x), expected)
    assert module[0].weight.is_contiguous() and module[0].weight.is_inference()
    assert torch.equal(module[0].weight, weight)
