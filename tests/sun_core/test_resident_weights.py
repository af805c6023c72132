"""When the weights of a U-Net may be read in place, and when not; on the CPU, where the same holds."""

import pytest
import torch
from sun_pack.sun_core.resident_weights import CannotCapture, resident_weights

CPU = torch.device("cpu")


@pytest.fixture
def unet(new_model, reference):
    """A U-Net of its own, for tests that change its modules."""
    unet = new_model(reference.unet_config).model.diffusion_model
    for parameter in unet.parameters():
        parameter.data.zero_()
    return unet


def convolution(unet):
    return unet.input_blocks[0][0]


def test_weights_that_stay_are_where_they_were(unet):
    before = resident_weights(unet, CPU)
    convolution(unet).weight.data.add_(1)
    assert before.is_where(resident_weights(unet, CPU)), "a LoRA that changes a weight in place is read"


def test_large_weight_that_moved_is_noticed(unet):
    before = resident_weights(unet, CPU)
    large = max((module for module in unet.modules() if hasattr(module, "weight")), key=lambda m: m.weight.nbytes)
    assert large.weight.nbytes > 2**16
    large.weight = torch.nn.Parameter(large.weight.detach().clone())
    assert not before.is_where(resident_weights(unet, CPU))


def test_large_weight_of_another_shape_at_the_same_address_is_noticed(unet):
    before = resident_weights(unet, CPU)
    large = max((module for module in unet.modules() if hasattr(module, "weight")), key=lambda m: m.weight.nbytes)
    large.weight.data = large.weight.data.transpose(0, 1)
    assert not before.is_where(resident_weights(unet, CPU))


def test_small_weight_of_another_kind_is_noticed(unet):
    before = resident_weights(unet, CPU)
    convolution(unet).bias.data = convolution(unet).bias.data.double()
    assert not before.is_where(resident_weights(unet, CPU))


def test_another_padding_is_noticed(unet):
    before = resident_weights(unet, CPU)
    convolution(unet).padding_mode = "circular"
    assert not before.is_where(resident_weights(unet, CPU))


def test_small_weights_are_replaced_and_come_back(unet):
    weights = resident_weights(unet, CPU)
    own = weights.small_tensors()
    copies = [tensor + 1 for tensor in weights.copy_small()]
    with weights.replaced_small(copies):
        assert all(torch.equal(now, copy) for now, copy in zip(weights.small_tensors(), copies, strict=True))
    assert all(now.data_ptr() == tensor.data_ptr() for now, tensor in zip(weights.small_tensors(), own, strict=True))


class ForeignTensor(torch.Tensor):
    """As packs hold quantised weights."""


class ForeignConvolution(torch.nn.Conv2d):
    """As packs put in the place of ComfyUI's."""


def hook(unet):
    convolution(unet).register_forward_hook(lambda *_: None)


def instance_function(unet):
    """As packs for seamless tiling do it."""
    convolution(unet)._conv_forward = lambda *_: None


def patch_at_run_time(unet):
    """As ComfyUI does it with little memory, and hook LoRAs always."""
    convolution(unet).weight_function = [lambda weight: weight]


def foreign_module(unet):
    unet.input_blocks[0][0] = ForeignConvolution(4, 32, 3)


def foreign_weight(unet):
    module = convolution(unet)
    del module.weight
    module._parameters["weight"] = ForeignTensor(torch.zeros(32, 4, 3, 3))


def other_device(unet):
    convolution(unet).to("meta")


@pytest.mark.parametrize(
    "change", [hook, instance_function, patch_at_run_time, foreign_module, foreign_weight, other_device]
)
def test_what_is_not_known_to_be_safe_is_refused(unet, change):
    resident_weights(unet, CPU)
    change(unet)
    with pytest.raises(CannotCapture):
        resident_weights(unet, CPU)
