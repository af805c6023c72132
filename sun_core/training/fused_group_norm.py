"""GroupNorm, and the SiLU behind it, on channels-last images: as Triton kernels that copy nothing.

torch's own works on channels-first images alone on a GPU, so that each norm copies its input and the next convolution
copies it back, and training keeps such copies for the backward pass. These keep the input, which is there anyway.

Each image's pixels are summed in parts, and the parts in a fixed order: the same input gives the same bits.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise
from typing import Any

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

from ..triton_kernel import Grid, divisor, kernel, triton

if triton is not None:
    from ..triton_kernel import TYPES, pointer, tl

PIXELS, CHANNELS = 32, 64
"""Pixels and channels that one program works on at once."""
PART = 512
"""Pixels that one program sums."""

if triton is not None:

    @triton.jit
    def _pivot(x, image, pixels, channels, group, channels_of_group):  # type: ignore[no-untyped-def]
        """Return a value of each group: a variance around it keeps its digits, unless just that value is far off."""
        return tl.load(x + image * pixels * channels + group * channels_of_group).to(tl.float32)

    @triton.jit
    def _gradient(gradient, normed, weight, bias, SILU: tl.constexpr):  # type: ignore[no-untyped-def]
        """Return the gradient with respect to the normed input, of that with respect to the output."""
        if SILU:
            out = normed * weight + bias
            sigmoid = tl.sigmoid(out)
            gradient *= sigmoid * (1 + out * (1 - sigmoid))
        return gradient * weight

    @kernel(addresses=6)
    def _sum(  # type: ignore[no-untyped-def]
        x_address,
        gradient_address,
        weight_address,
        bias_address,
        moments_address,
        sums_address,
        pixels,
        channels,
        groups,
        channels_of_group,
        TYPE: tl.constexpr,
        WEIGHT_TYPE: tl.constexpr,
        DIVISOR: tl.constexpr,
        BACKWARD: tl.constexpr,
        SILU: tl.constexpr,
        PARTS: tl.constexpr,
        BLOCKS: tl.constexpr,
        PIXELS: tl.constexpr,
        CHANNELS: tl.constexpr,
    ):
        """sums[image, part, :, channel] = sums of d and d^2 over a part of the pixels, in fp32; d = x - pivot.

        Backward: of the gradient with respect to the normed input, and of its product with the normed input.
        """
        x, sums = pointer(x_address, TYPE, DIVISOR), pointer(sums_address, tl.float32, DIVISOR)
        image, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
        channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
        is_channel = channel < channels
        if BACKWARD:
            gradients = pointer(gradient_address, TYPE, DIVISOR)
            weight = tl.load(pointer(weight_address, WEIGHT_TYPE, DIVISOR) + channel, mask=is_channel).to(tl.float32)
            bias = tl.load(pointer(bias_address, WEIGHT_TYPE, DIVISOR) + channel, mask=is_channel).to(tl.float32)
            moments = pointer(moments_address, tl.float32, DIVISOR)
            moments += 2 * (image * groups + channel // channels_of_group)
            mean = tl.load(moments, mask=is_channel)
            factor = tl.load(moments + 1, mask=is_channel)
        else:
            group = tl.minimum(channel // channels_of_group, groups - 1)
            pivot = _pivot(x, image, pixels, channels, group, channels_of_group)
        first = tl.zeros((PIXELS, CHANNELS), tl.float32)
        second = tl.zeros((PIXELS, CHANNELS), tl.float32)
        for block in range(BLOCKS):
            pixel = (part * BLOCKS + block) * PIXELS + tl.arange(0, PIXELS)
            offsets = (image * pixels + pixel[:, None]) * channels + channel[None, :]
            inside = (pixel < pixels)[:, None] & is_channel[None, :]
            values = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
            if BACKWARD:
                gradient = tl.load(gradients + offsets, mask=inside, other=0.0).to(tl.float32)
                normed = (values - mean[None, :]) * factor[None, :]
                gradient = _gradient(gradient, normed, weight[None, :], bias[None, :], SILU)
                first += gradient
                second += gradient * normed
            else:
                distance = tl.where(inside, values - pivot[None, :], 0.0)
                first += distance
                second += distance * distance
        sums += (image * PARTS + part) * 2 * channels + channel
        tl.store(sums, tl.sum(first, 0), mask=is_channel)
        tl.store(sums + channels, tl.sum(second, 0), mask=is_channel)

    @kernel(addresses=3)
    def _add_parts(  # type: ignore[no-untyped-def]
        x_address,
        sums_address,
        moments_address,
        pixels,
        channels,
        groups,
        channels_of_group,
        epsilon,
        TYPE: tl.constexpr,
        DIVISOR: tl.constexpr,
        BACKWARD: tl.constexpr,
        PARTS: tl.constexpr,
        MOST_PARTS: tl.constexpr,
        MOST_CHANNELS: tl.constexpr,
    ):
        """moments[image, group] = mean and 1/deviation. Backward: the means of both sums."""
        sums, moments = pointer(sums_address, tl.float32, DIVISOR), pointer(moments_address, tl.float32, DIVISOR)
        image, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
        part, channel = tl.arange(0, MOST_PARTS), tl.arange(0, MOST_CHANNELS)
        inside = (part < PARTS)[:, None] & (channel < channels_of_group)[None, :]
        offsets = (image * PARTS + part[:, None]) * 2 * channels + group * channels_of_group + channel[None, :]
        first = tl.load(sums + offsets, mask=inside, other=0.0)
        second = tl.load(sums + offsets + channels, mask=inside, other=0.0)
        first = tl.sum(tl.sum(first, 1), 0) / pixels / channels_of_group
        second = tl.sum(tl.sum(second, 1), 0) / pixels / channels_of_group
        if not BACKWARD:
            second = 1 / tl.sqrt(tl.maximum(second - first * first, 0.0) + epsilon)
            first += _pivot(pointer(x_address, TYPE, DIVISOR), image, pixels, channels, group, channels_of_group)
        moments += 2 * (image * groups + group)
        tl.store(moments, first)
        tl.store(moments + 1, second)

    @kernel(addresses=7)
    def _apply(  # type: ignore[no-untyped-def]
        x_address,
        gradient_address,
        weight_address,
        bias_address,
        moments_address,
        means_address,
        out_address,
        pixels,
        channels,
        groups,
        channels_of_group,
        TYPE: tl.constexpr,
        WEIGHT_TYPE: tl.constexpr,
        DIVISOR: tl.constexpr,
        BACKWARD: tl.constexpr,
        SILU: tl.constexpr,
        PIXELS: tl.constexpr,
        CHANNELS: tl.constexpr,
    ):
        """out = silu(normed * weight + bias), or without silu. Backward: the gradient with respect to x."""
        x, out = pointer(x_address, TYPE, DIVISOR), pointer(out_address, TYPE, DIVISOR)
        image = tl.program_id(0).to(tl.int64)
        pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
        channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
        is_channel = channel < channels
        offsets = (image * pixels + pixel[:, None]) * channels + channel[None, :]
        inside = (pixel < pixels)[:, None] & is_channel[None, :]
        of_group = 2 * (image * groups + channel // channels_of_group)
        moments = pointer(moments_address, tl.float32, DIVISOR) + of_group
        mean, factor = tl.load(moments, mask=is_channel), tl.load(moments + 1, mask=is_channel)
        weight = tl.load(pointer(weight_address, WEIGHT_TYPE, DIVISOR) + channel, mask=is_channel).to(tl.float32)
        bias = tl.load(pointer(bias_address, WEIGHT_TYPE, DIVISOR) + channel, mask=is_channel).to(tl.float32)
        normed = (tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32) - mean[None, :]) * factor[None, :]
        if BACKWARD:
            gradients = pointer(gradient_address, TYPE, DIVISOR)
            means = pointer(means_address, tl.float32, DIVISOR) + of_group
            first, second = tl.load(means, mask=is_channel), tl.load(means + 1, mask=is_channel)
            gradient = tl.load(gradients + offsets, mask=inside, other=0.0).to(tl.float32)
            gradient = _gradient(gradient, normed, weight[None, :], bias[None, :], SILU)
            result = (gradient - first[None, :] - normed * second[None, :]) * factor[None, :]
        else:
            result = normed * weight[None, :] + bias[None, :]
            if SILU:
                result *= tl.sigmoid(result)
        tl.store(out + offsets, result.to(TYPE), mask=inside)


class _GroupNorm(torch.autograd.Function):
    """The norm with a gradient for its input alone: weights are frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, epsilon: float, with_silu: bool
    ) -> Tensor:
        out, moments = _evaluated(x, weight, bias, groups, epsilon, with_silu)
        ctx.save_for_backward(x, weight, bias, moments)
        ctx.settings = groups, epsilon, with_silu
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        x, weight, bias, moments = ctx.saved_tensors
        groups, epsilon, with_silu = ctx.settings
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x, _ = _evaluated(x, weight, bias, groups, epsilon, with_silu, gradient, moments)
        return of_x, None, None, None, None, None


def _evaluated(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    epsilon: float,
    with_silu: bool,
    gradient: Tensor | None = None,
    moments: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the output and each group's moments; with a gradient and moments, the gradient for x and its means."""
    device = x.device
    if device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            return _evaluated(x, weight, bias, groups, epsilon, with_silu, gradient, moments)
    shape = x.shape
    is_backward = gradient is not None
    sums = torch.empty(_sums(shape), dtype=torch.float32, device=device)
    means = torch.empty(shape[0] * groups * 2, dtype=torch.float32, device=device)
    out = torch.empty_like(x, memory_format=torch.channels_last)
    inputs = (x, x if gradient is None else gradient, weight, bias, means if moments is None else moments)
    addresses = [tensor.data_ptr() for tensor in (*inputs, sums, means, out)]
    *of_inputs, of_sums, of_means, of_out = addresses
    aligned = divisor(addresses, (x.element_size(), weight.element_size()))
    kind = (shape, x.dtype, weight.dtype, groups, epsilon, aligned, is_backward, with_silu)
    to_sum, to_add_parts, to_apply = _launches(*kind)
    _sum(kind, to_sum[0], (*of_inputs, of_sums), to_sum[1])
    _add_parts(kind, to_add_parts[0], (of_inputs[0], of_sums, of_means), to_add_parts[1])
    _apply(kind, to_apply[0], (*of_inputs, of_means, of_out), to_apply[1])
    return out, means


@cache
def _sums(shape: torch.Size) -> int:
    """Return how many sums the first kernel stores."""
    images, channels, height, width = shape
    return images * triton.cdiv(height * width, PART) * 2 * channels


@cache
def _launches(
    shape: torch.Size,
    dtype: torch.dtype,
    weight_dtype: torch.dtype,
    groups: int,
    epsilon: float,
    aligned: int,
    is_backward: bool,
    with_silu: bool,
) -> list[tuple[Grid, tuple[Any, ...]]]:
    """Return the grid of each kernel, and its arguments but for the addresses."""
    images, channels, height, width = shape
    pixels, of_group = height * width, channels // groups
    parts, blocks = triton.cdiv(pixels, PART), triton.cdiv(min(pixels, PART), PIXELS)
    blocks_of_channels = triton.cdiv(channels, CHANNELS)
    sizes = (pixels, channels, groups, of_group)
    ways = (TYPES[dtype], TYPES[weight_dtype], aligned, is_backward, with_silu)
    most = (triton.next_power_of_2(parts), triton.next_power_of_2(of_group))
    return [
        ((images, parts, blocks_of_channels), (*sizes, *ways, parts, blocks, PIXELS, CHANNELS)),
        ((images, groups, 1), (*sizes, epsilon, TYPES[dtype], aligned, is_backward, parts, *most)),
        ((images, triton.cdiv(pixels, PIXELS), blocks_of_channels), (*sizes, *ways, PIXELS, CHANNELS)),
    ]


def normed(norm: nn.GroupNorm, with_silu: bool, x: Tensor) -> Tensor:
    """Evaluate a GroupNorm, and the SiLU behind it if `with_silu`: (images, channels, height, width) -> the same."""
    if not _can_fuse(norm, x):
        out = type(norm).forward(norm, x)
        return silu(out) if with_silu else out
    x = x.contiguous(memory_format=torch.channels_last)
    arguments = (x, norm.weight, norm.bias, norm.num_groups, norm.eps, with_silu)
    if torch.is_grad_enabled() and x.requires_grad:
        return _GroupNorm.apply(*arguments)
    return _evaluated(*arguments)[0]


def _can_fuse(norm: nn.GroupNorm, x: Tensor) -> bool:
    return (
        triton is not None
        and x.is_cuda
        and x.ndim == 4
        and norm.weight is not None
        and not norm.weight.requires_grad
        and norm.weight.device == x.device
        and not (getattr(norm, "weight_function", ()) or getattr(norm, "bias_function", ()))  # patched as it is used
        and {x.dtype, norm.weight.dtype} <= TYPES.keys()
        and _works_on(x.device)
    )


@cache
def _works_on(device: torch.device) -> bool:
    """Try the kernels: Triton builds them on the spot, which a machine without a C compiler cannot."""
    works, why = False, "wrong numbers"
    try:
        x = torch.tensor([1.0, -1.0] * 16, device=device).view(1, 32, 1, 1).expand(1, 32, 2, 2)
        x, ones = x.contiguous(memory_format=torch.channels_last), torch.ones(32, device=device)
        for _ in range(2):  # compiled, and as it is
            out, moments = _evaluated(x, ones, ones, 2, 0.0, False)
            of_x, _ = _evaluated(x, ones, ones, 2, 0.0, False, torch.ones_like(x), moments)
            works = torch.allclose(out, x + 1) and torch.allclose(of_x, torch.zeros_like(x), atol=1e-6)
    except Exception as error:  # whatever Triton, the compiler or the driver raise
        works, why = False, type(error).__name__
    if not works:
        logging.info(f"SUN trains without Triton, which does not work here ({why}).")
    return works


@contextmanager
def fused_group_norms(unet: nn.Module) -> Iterator[None]:
    """Within, evaluate the GroupNorms of a U-Net, each with the SiLU behind it, by `normed`.

    What has a `forward` of its own already, from another pack or an outer use of this, is left alone.
    """
    norms = [part for part in unet.modules() if isinstance(part, nn.GroupNorm) and _has_forward_of_class(part)]
    silus = {norm: activation for norm, activation in _norms_with_silu(unet) if norm in norms}
    for norm in norms:
        norm.forward = partial(normed, norm, norm in silus)  # type: ignore[method-assign]
    for activation in silus.values():
        activation.forward = nn.Identity.forward.__get__(activation)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in (*norms, *silus.values()):
            del module.forward


def _has_forward_of_class(module: nn.Module) -> bool:
    return "forward" not in vars(module)


def _norms_with_silu(unet: nn.Module) -> Iterator[tuple[nn.GroupNorm, nn.SiLU]]:
    """Find each norm that a SiLU follows at once and nowhere else, and that SiLU."""
    scaled = {part.out_layers for part in unet.modules() if isinstance(part, ResBlock) and part.use_scale_shift_norm}
    places = Counter(child for part in unet.modules() for child in part._modules.values())
    for part in unet.modules():
        if isinstance(part, nn.Sequential) and part not in scaled:  # these scale what comes out of the norm
            for norm, activation in pairwise(part):
                if not (isinstance(norm, nn.GroupNorm) and isinstance(activation, nn.SiLU)):
                    continue
                if places[norm] == places[activation] == 1 and _has_forward_of_class(activation):
                    yield norm, activation
