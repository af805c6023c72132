"""When the weights of a U-Net may be read in place, and when not; on the CPU, where the same holds."""

import sys
from types import SimpleNamespace

import pytest
import torch
from sun_pack.sun_core.resident_weights import CannotCapture, pinned, resident_weights

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


def hook_before(unet):
    convolution(unet).register_forward_pre_hook(lambda *_: None)


def instance_function(unet):
    """As packs for seamless tiling do it."""
    convolution(unet)._conv_forward = lambda *_: None


def weight_patch(unet):
    """As ComfyUI does it with little memory, and hook LoRAs always."""
    convolution(unet).weight_function = [lambda weight: weight]


def bias_patch(unet):
    convolution(unet).bias_function = [lambda bias: bias]


def foreign_module(unet):
    unet.input_blocks[0][0] = ForeignConvolution(4, 32, 3)


def foreign_weight(unet):
    module = convolution(unet)
    del module.weight
    module._parameters["weight"] = ForeignTensor(torch.zeros(32, 4, 3, 3))


def other_device(unet):
    convolution(unet).to("meta")


def streamed_from_two_places(unet):
    stream(convolution(unet), (object(), 0, 64))
    stream(unet.out[2], (object(), 64, 64))


def not_streamed_yet(unet):
    stream(convolution(unet), (object(), 0, 64), signature=None)


CHANGES = {
    hook: "another node changes the U-Net's modules",
    hook_before: "another node changes the U-Net's modules",
    instance_function: "another node changes the U-Net's modules",
    weight_patch: "weights are patched while the model runs",
    bias_patch: "weights are patched while the model runs",
    foreign_module: "another pack brings modules of its own",
    foreign_weight: "weights are quantised by another pack",
    other_device: "the model is only partly on the GPU",
    streamed_from_two_places: "weights lie in several places",
    not_streamed_yet: "weights are still being loaded",
}


@pytest.mark.parametrize(("change", "reason"), CHANGES.items(), ids=[change.__name__ for change in CHANGES])
def test_what_is_not_known_to_be_safe_is_refused(unet, change, reason):
    resident_weights(unet, CPU)
    change(unet)
    with pytest.raises(CannotCapture, match=reason):
        resident_weights(unet, CPU)


@pytest.mark.parametrize("name", ["weight_function", "bias_function"])
def test_patch_of_all_modules_of_a_class_is_refused(unet, monkeypatch, name):
    monkeypatch.setattr(type(convolution(unet)), name, [lambda weight: weight])
    with pytest.raises(CannotCapture, match="weights are patched while the model runs"):
        resident_weights(unet, CPU)


def stream(module, place, signature=1):
    """Let a module's weights be streamed, as dynamic VRAM does: `place` is (owner, address, size)."""
    module.to("meta")  # where the module's own are, they are not read
    module._v, module._v_signature = place, signature


def test_streamed_weights_lie_in_one_range_around_them_all(unet):
    owner = object()
    stream(convolution(unet), (owner, 300, 50))
    stream(unet.out[2], (owner, 100, 10))
    weights = resident_weights(unet, CPU)
    assert weights.block == (owner, 100, 250)
    stream(unet.out[2], (owner, 90, 10))
    assert not weights.is_where(resident_weights(unet, CPU))


@pytest.fixture
def vbar(monkeypatch):
    """Stands in for dynamic VRAM, which needs a GPU: the signature of all pages, and how often they are pinned."""
    vbar = SimpleNamespace(signature=[1, 2], pins=[])

    def vbar_fault(block):
        if vbar.signature is not None:
            vbar.pins.append(block)
        return vbar.signature

    vbar.vbar_fault, vbar.vbar_unpin = vbar_fault, vbar.pins.remove
    monkeypatch.setitem(sys.modules, "comfy_aimdo", SimpleNamespace(model_vbar=vbar))
    monkeypatch.setitem(sys.modules, "comfy_aimdo.model_vbar", vbar)
    return vbar


def test_pages_are_pinned_while_a_graph_reads_them(vbar):
    with pytest.raises(KeyboardInterrupt), pinned("block") as signature:
        assert signature == b"\x01\x02" and vbar.pins == ["block"]
        raise KeyboardInterrupt
    assert vbar.pins == []


def test_pages_that_are_not_there_are_not_unpinned(vbar):
    vbar.signature = None
    with pinned("block") as signature:
        assert signature is None


def test_without_dynamic_vram_nothing_is_pinned(vbar):
    with pinned(None) as signature:
        assert signature == b"" and vbar.pins == []
