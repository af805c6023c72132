"""`add_offsets` as two Triton kernels, for GPUs with Triton: on them the number of launches counts, not their work.

The first kernel sums squares over parts of each row, the second adds these sums in a fixed order and combines the
branches. There are no atomics, so that the same input gives the same bits every time.

The kernels take addresses as numbers. Given a tensor, Triton asks the driver about its address, which the driver does
not answer for memory that a CUDA graph allocates with cudaMallocAsync, ComfyUI's default.
"""

import logging
from functools import cache, reduce
from operator import or_
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # Triton comes with torch on Linux alone
    triton = None

MOST_PARTS = 128
"""Parts that the norm of a row is summed in, at most."""
ALIGNMENT = 64
"""Elements that parts begin at a multiple of, so that loads are wide."""
BLOCK = 2048
"""Elements that one program works on at once."""
WIDE = 16
"""Bytes of the widest load, and what addresses must be divisible by for it."""

if triton is not None:
    _TYPES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}

    @triton.jit
    def _pointer(address, TYPE: tl.constexpr, DIVISOR: tl.constexpr):  # type: ignore[no-untyped-def]
        return tl.multiple_of(address.to(tl.pointer_type(TYPE.value)), DIVISOR)  # Triton 3.0 takes no constexpr

    @triton.jit
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
        attended, sums = _pointer(attended_address, TYPE, DIVISOR), _pointer(sums_address, tl.float32, DIVISOR)
        row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
        total = tl.zeros((BLOCK,), tl.float32)
        for block in range(BLOCKS):
            offsets = part * part_size + block * BLOCK + tl.arange(0, BLOCK)
            inside = (offsets < row_size) & (offsets < (part + 1) * part_size)
            x = tl.load(attended + row * row_size + offsets, mask=inside, other=0.0).to(tl.float32)
            total += x * x
        tl.store(sums + row * PARTS + part, tl.sum(total))

    @triton.jit
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
        attended, out = _pointer(attended_address, TYPE, DIVISOR), _pointer(out_address, TYPE, DIVISOR)
        sums, scales = _pointer(sums_address, tl.float32, DIVISOR), _pointer(scales_address, tl.float32, DIVISOR)
        shift = _pointer(shift_address, SHIFT_TYPE, DIVISOR)
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
    attended = attended.contiguous()
    branches_and_text, rows, tokens, channels = attended.shape
    row_size = tokens * channels
    parts, part_size, blocks_of_part, blocks = _division(row_size)
    sums = torch.empty(branches_and_text * rows * parts, dtype=torch.float32, device=attended.device)
    out = torch.empty_like(attended[0])
    addresses = [tensor.data_ptr() for tensor in (attended, sums, scales, shift, out)]
    divisor = WIDE if reduce(or_, addresses) % WIDE == 0 else min(attended.element_size(), shift.element_size())
    dtype = _TYPES[attended.dtype]
    with torch.cuda.device(attended.device):
        _square_sums[(branches_and_text * rows, parts)](
            *addresses[:2], row_size, part_size, dtype, divisor, parts, blocks_of_part, BLOCK
        )
        _combine[(rows, blocks)](
            *addresses,
            rows,
            row_size,
            channels,
            scales.stride(0),
            dtype,
            _TYPES[shift.dtype],
            divisor,
            branches_and_text - 1,
            parts,
            BLOCK,
        )
    return out


@cache
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
        and attended.dtype in _TYPES
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
        attended: Any = torch.ones(3, 1, 2, 8, device=device)
        out = add_offsets_fused(attended, torch.ones(2, 1, 1, 8, device=device), torch.zeros(8, device=device))
        return bool((out == 3).all())
    except Exception as error:  # whatever Triton, the compiler or the driver raise
        logging.info(f"SUN combines its branches without Triton, which does not work here ({type(error).__name__}).")
        return False
