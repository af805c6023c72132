"""`add_offsets` as two Triton kernels, for GPUs with Triton: on them the number of launches counts, not their work.

The first kernel sums squares over parts of each row, the second adds these sums in a fixed order and combines the
branches. There are no atomics, so that the same input gives the same bits every time.
"""

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .triton_kernel import Grid, divisor, kernel, triton

if triton is not None:
    from .triton_kernel import TYPES, pointer, tl

MOST_PARTS = 128
"""Parts that the norm of a row is summed in, at most."""
ALIGNMENT = 64
"""Elements that parts begin at a multiple of, so that loads are wide."""
BLOCK = 2048
"""Elements that one program works on at once."""

if triton is not None:

    @kernel(addresses=2)
    def _square_sums(  # type: ignore[no-untyped-def]
        attended_address,
        sums_address,
        row_size,
        part_size,
        TYPE: tl.constexpr,
        DIVISOR: tl.constexpr,
        PARTS: tl.constexpr,
        BLOCKS: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """sums[branch_and_row, part] = sum of squares of that part of the row, in fp32."""
        attended, sums = pointer(attended_address, TYPE, DIVISOR), pointer(sums_address, tl.float32, DIVISOR)
        row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
        total = tl.zeros((BLOCK,), tl.float32)
        for block in range(BLOCKS):
            offsets = part * part_size + block * BLOCK + tl.arange(0, BLOCK)
            inside = (offsets < row_size) & (offsets < (part + 1) * part_size)
            x = tl.load(attended + row * row_size + offsets, mask=inside, other=0.0).to(tl.float32)
            total += x * x
        tl.store(sums + row * PARTS + part, tl.sum(total))

    @kernel(addresses=5)
    def _combine(  # type: ignore[no-untyped-def]
        attended_address,
        sums_address,
        scales_address,
        shift_address,
        out_address,
        rows,
        row_size,
        channels,
        scale_stride,
        TYPE: tl.constexpr,
        SHIFT_TYPE: tl.constexpr,
        DIVISOR: tl.constexpr,
        BRANCHES: tl.constexpr,
        PARTS: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """out = text + sum of scale * branch * |text|/|branch| + shift, in fp32 until it is stored."""
        attended, out = pointer(attended_address, TYPE, DIVISOR), pointer(out_address, TYPE, DIVISOR)
        sums, scales = pointer(sums_address, tl.float32, DIVISOR), pointer(scales_address, tl.float32, DIVISOR)
        shift = pointer(shift_address, SHIFT_TYPE, DIVISOR)
        row = tl.program_id(0).to(tl.int64)
        parts = tl.arange(0, PARTS)
        offsets = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = offsets < row_size
        channel = offsets % channels
        text = tl.load(attended + row * row_size + offsets, mask=inside, other=0.0).to(tl.float32)
        text_norm = tl.sqrt(tl.sum(tl.load(sums + row * PARTS + parts)))
        result = text + tl.load(shift + channel, mask=inside, other=0.0).to(tl.float32)
        for branch in tl.static_range(BRANCHES):
            this = (branch + 1) * rows + row
            norm = tl.sqrt(tl.sum(tl.load(sums + this * PARTS + parts)))
            ratio = tl.where(norm == 0.0, 0.0, text_norm / norm)
            x = tl.load(attended + this * row_size + offsets, mask=inside, other=0.0).to(tl.float32)
            scale = tl.load(scales + branch * scale_stride + channel, mask=inside, other=0.0)
            result += ratio * scale * x
        tl.store(out + row * row_size + offsets, result.to(TYPE), mask=inside)


def add_offsets_fused(attended: Tensor, scales: Tensor, shift: Tensor) -> Tensor:
    """Do what `attention.add_offsets` does, on a CUDA device and without gradients; shapes as there."""
    device = attended.device
    if device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            return add_offsets_fused(attended, scales, shift)
    attended = attended.contiguous()
    shape, dtype = attended.shape, attended.dtype
    sums = torch.empty(shape[0] * shape[1] * MOST_PARTS, dtype=torch.float32, device=device)
    out = torch.empty(shape[1:], dtype=dtype, device=device)
    addresses = [tensor.data_ptr() for tensor in (attended, sums, scales, shift, out)]
    aligned = divisor(addresses, (attended.element_size(), shift.element_size()))
    kind = (shape, dtype, shift.dtype, scales.stride(0), aligned)
    (grid, others), (next_grid, next_others) = _launches(*kind)
    _square_sums(kind, grid, addresses[:2], others)
    _combine(kind, next_grid, addresses, next_others)
    return out


@cache
def _launches(
    shape: torch.Size, dtype: torch.dtype, shift_dtype: torch.dtype, scale_stride: int, aligned: int
) -> list[tuple[Grid, tuple[Any, ...]]]:
    """Return the grid of each kernel, and its arguments but for the addresses."""
    branches_and_text, rows, tokens, channels = shape
    row_size = tokens * channels
    parts, part_size, blocks_of_part, blocks = _division(row_size)
    of_square_sums = (row_size, part_size, TYPES[dtype], aligned, parts, blocks_of_part, BLOCK)
    sizes, types = (rows, row_size, channels, scale_stride), (TYPES[dtype], TYPES[shift_dtype], aligned)
    of_combine = (*sizes, *types, branches_and_text - 1, parts, BLOCK)
    return [((branches_and_text * rows, parts, 1), of_square_sums), ((rows, blocks, 1), of_combine)]


def _division(row_size: int) -> tuple[int, int, int, int]:
    """Return how a row is divided: its parts, the elements and blocks of a part, and the blocks of the row."""
    blocks = triton.cdiv(row_size, BLOCK)
    parts = min(MOST_PARTS, triton.next_power_of_2(blocks))
    part_size = triton.cdiv(triton.cdiv(row_size, parts), ALIGNMENT) * ALIGNMENT
    return parts, part_size, triton.cdiv(part_size, BLOCK), blocks


def can_fuse(attended: Tensor, scales: Tensor) -> bool:
    """Say whether `add_offsets_fused` works on these tensors; torch.compile fuses by itself."""
    return (
        triton is not None
        and attended.is_cuda
        and attended.dtype in TYPES
        and scales.dtype == torch.float32
        and scales.stride(-1) == 1
        and not torch.compiler.is_compiling()
        and not (torch.is_grad_enabled() and (attended.requires_grad or scales.requires_grad))
        and _works_on(attended.device)
    )


@cache
def _works_on(device: torch.device) -> bool:
    """Try the kernels once: Triton builds them on the spot, which a machine without a C compiler cannot."""
    try:
        attended, scales = torch.ones(3, 1, 2, 8, device=device), torch.ones(2, 1, 1, 8, device=device)
        outs = [add_offsets_fused(attended, scales, torch.zeros(8, device=device)) for _ in range(2)]
        return all(bool((out == 3).all()) for out in outs)
    except Exception as error:  # whatever Triton, the compiler or the driver raise
        logging.info(f"SUN combines its branches without Triton, which does not work here ({type(error).__name__}).")
        return False
