"""GroupNorms on channels-last images: the same numbers, without copies in another order of memory.

The kernels need a GPU: SUN_TEST_DEVICE=cuda python3 scripts/test.py tests/sun_core/training/test_fused_group_norm.py
"""

from dataclasses import replace
from types import SimpleNamespace

import comfy.ops
import pytest
import tiny_run
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from sun_pack.sun_core.training import fused_group_norm
from sun_pack.sun_core.training.fused_group_norm import fused_group_norms

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels need a GPU")
SHAPES = (
    (2, 320, 64, 64, 32),
    (3, 96, 5, 7, 4),
    (1, 64, 48, 48, 32),
    (1, 960, 16, 16, 32),
    (5, 32, 1, 1, 8),
)
"""Images, channels, height, width, groups."""


def test_the_unet_gives_the_same_and_is_as_before_afterwards(difference):
    base = tiny_run.mini()[0].model
    unet, context_dim = base.diffusion_model, base.model_config.unet_config["context_dim"]
    weight = next(unet.parameters())
    tolerance = 0.0 if weight.is_cpu else 5e-3
    with torch.no_grad(), weight.device:
        x, context = torch.randn(2, 4, 8, 8).to(weight), torch.randn(2, 77, context_dim).to(weight)
        inputs = x, torch.tensor([1.0, 500.0]), context
        before = unet(*inputs)
        with fused_group_norms(unet):
            assert difference(unet(*inputs), before) <= tolerance
        assert torch.equal(unet(*inputs), before)
    assert not any("forward" in vars(module) for module in unet.modules())


def test_it_is_as_before_after_an_error():
    unet = tiny_run.mini()[0].model.diffusion_model
    with pytest.raises(KeyError), fused_group_norms(unet):
        raise KeyError
    assert not any("forward" in vars(module) for module in unet.modules())


@pytest.mark.parametrize("is_scaled", [False, True])
def test_a_norm_that_is_scaled_before_its_silu_keeps_both(is_scaled):
    block = ResBlock(32, 64, 0.0, 32, use_scale_shift_norm=is_scaled, operations=comfy.ops.manual_cast)
    torch.manual_seed(0)
    for weight in block.parameters():
        torch.nn.init.normal_(weight, 0, 0.1)
    x, embedding = torch.randn(2, 32, 4, 4), torch.randn(2, 64)
    before = block(x, embedding)
    with fused_group_norms(block):
        within = [part for part in block.modules() if isinstance(part, torch.nn.SiLU) and "forward" in vars(part)]
        assert len(within) == 2 - is_scaled
        assert torch.equal(block(x, embedding), before)


@pytest.mark.parametrize("channels_last", [True, False])
def test_training_on_a_gpu_uses_them(monkeypatch, channels_last):
    """The MODEL is on a CPU here, and says that it is on a GPU."""
    session = tiny_run.tiny_session(replace(tiny_run.CONFIG, channels_last=channels_last))
    norms = [part for part in session.distillation.unet.modules() if isinstance(part, torch.nn.GroupNorm)]
    monkeypatch.setattr(session, "load", lambda: None)
    monkeypatch.setattr(session.model, "load_device", torch.device("cuda"))
    with session.loaded():
        assert norms and all(("forward" in vars(norm)) == channels_last for norm in norms)
    assert not any("forward" in vars(norm) for norm in norms)


def test_weights_that_comfyui_casts_are_cast():
    norm = comfy.ops.manual_cast.GroupNorm(4, 32, dtype=torch.float16)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(1, 32, 4, 4)
    expected = torch.nn.functional.silu(norm(x))
    unet = torch.nn.Sequential(norm, torch.nn.SiLU())
    with fused_group_norms(unet):
        assert torch.equal(unet(x), expected)


def test_it_is_as_before_after_another_use_within_it():
    unet = tiny_run.mini()[0].model.diffusion_model
    with fused_group_norms(unet):
        forwards = [vars(module).get("forward") for module in unet.modules()]
        with fused_group_norms(unet):
            pass
        assert [vars(module).get("forward") for module in unet.modules()] == forwards
    assert not any("forward" in vars(module) for module in unet.modules())


def test_a_silu_that_stands_elsewhere_too_stays_one():
    silu = torch.nn.SiLU()
    unet = torch.nn.Sequential(torch.nn.GroupNorm(2, 8), silu, torch.nn.GroupNorm(2, 8), silu, torch.nn.Conv2d(8, 8, 1))
    x = torch.randn(1, 8, 4, 4)
    before = unet(x)
    with fused_group_norms(unet):
        assert torch.equal(unet(x), before)


def test_what_must_not_be_read_on_a_gpu_is_left_to_comfyui(monkeypatch):
    """A norm may be offloaded, or be patched as it is used. An image is on a GPU here that only says so."""
    monkeypatch.setattr(fused_group_norm, "triton", True)
    monkeypatch.setattr(fused_group_norm, "TYPES", {torch.float32: None}, raising=False)
    monkeypatch.setattr(fused_group_norm, "_works_on", lambda device: True)
    gpu = torch.device("cuda", 0)

    def can_fuse(weight_device=gpu, patches=()):
        weight = SimpleNamespace(requires_grad=False, device=weight_device, dtype=torch.float32)
        image = SimpleNamespace(is_cuda=True, ndim=4, dtype=torch.float32, device=gpu)
        return fused_group_norm._can_fuse(SimpleNamespace(weight=weight, weight_function=patches), image)

    assert can_fuse()
    assert not can_fuse(weight_device=torch.device("cpu"))
    assert not can_fuse(patches=[len])


def inputs(images, channels, height, width, dtype):
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator, device="cuda").to(dtype)

    image = (images, channels, height, width)
    return 2 * normal(*image) + 1, normal(channels), normal(channels), normal(*image)


@on_gpu
@pytest.mark.parametrize("with_silu", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3), (torch.float16, 5e-4)])
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradient_are_those_of_the_formula(shape, dtype, tolerance, with_silu, difference):
    """Tolerances in half precision are half the distance between two of its numbers."""
    *image, groups = shape
    x, weight, bias, gradient = inputs(*image, dtype)
    norm = torch.nn.GroupNorm(groups, image[1], device="cuda", dtype=dtype).requires_grad_(False)
    norm.weight.copy_(weight)
    norm.bias.copy_(bias)
    exact = x.double().requires_grad_()
    expected = torch.nn.functional.group_norm(exact, groups, weight.double(), bias.double(), norm.eps)
    expected = torch.nn.functional.silu(expected) if with_silu else expected
    (expected_gradient,) = torch.autograd.grad(expected, exact, gradient.double())
    assert fused_group_norm._can_fuse(norm, x)
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        for _ in range(2):  # the second time, the kernels are launched without Triton
            given = given.detach().requires_grad_()
            out = fused_group_norm.normed(norm, with_silu, given)
            (got,) = torch.autograd.grad(out, given, gradient)
            assert out.dtype == got.dtype == dtype
            assert difference(out, expected) < tolerance
            assert difference(got, expected_gradient) < tolerance
            with torch.no_grad():
                assert torch.equal(fused_group_norm.normed(norm, with_silu, given), out)


@on_gpu
def test_addresses_that_16_does_not_divide_are_read(difference):
    def unaligned(tensor):
        return torch.cat([tensor.flatten()[:1], tensor.flatten()])[1:].view(tensor.shape)

    x, weight, bias, _ = inputs(1, 64, 8, 8, torch.float16)
    norm = torch.nn.GroupNorm(32, 64, device="cuda", dtype=torch.float32).requires_grad_(False)
    norm.weight.copy_(weight)
    norm.bias.copy_(bias)
    expected = fused_group_norm.normed(norm, True, x)
    norm.weight.data, norm.bias.data = unaligned(norm.weight), unaligned(norm.bias)
    assert norm.weight.data_ptr() % 16
    for _ in range(2):
        assert difference(fused_group_norm.normed(norm, True, x), expected) < 5e-4


@on_gpu
def test_a_mean_far_from_zero_costs_no_digits(difference):
    x = inputs(2, 64, 16, 16, torch.float32)[0] + 1000
    norm = torch.nn.GroupNorm(32, 64, device="cuda").requires_grad_(False)
    expected = torch.nn.functional.group_norm(x.double(), 32, eps=norm.eps)
    assert difference(fused_group_norm.normed(norm, False, x), expected) < 1e-4


@on_gpu
def test_weights_that_learn_are_left_to_torch():
    norm = torch.nn.GroupNorm(4, 32, device="cuda")
    x = torch.randn(1, 32, 4, 4, device="cuda")
    assert not fused_group_norm._can_fuse(norm, x)
    fused_group_norm.normed(norm, True, x).sum().backward()
    assert norm.weight.grad is not None
