"""Triton kernels as a fast GPU needs them: it works less on a launch than the host does.

Triton looks at all arguments of each launch, to find the code that fits them. Where a caller knows that only addresses
differ from an earlier launch, the code that was found then is launched at once.

The kernels take addresses as numbers. Given a tensor, Triton asks the driver about its address, which the driver does
not answer for memory that a CUDA graph allocates with cudaMallocAsync, ComfyUI's default.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import reduce
from operator import or_
from typing import Any

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # Triton comes with torch on Linux alone
    triton = None

WIDE = 16
"""Bytes of the widest load, and what addresses must be divisible by for it."""
Grid = tuple[int, int, int]

if triton is not None:
    TYPES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}

    @triton.jit
    def pointer(address, TYPE: tl.constexpr, DIVISOR: tl.constexpr):  # type: ignore[no-untyped-def]
        """Make a pointer of a number that DIVISOR divides."""
        return tl.multiple_of(address.to(tl.pointer_type(TYPE.value)), DIVISOR)  # Triton 3.0 takes no constexpr


def kernel(addresses: int) -> Callable[[Callable[..., None]], "Kernel"]:
    """Make a Kernel of a function in Triton's language whose first arguments are so many addresses, as numbers.

    Triton does not specialize it on them: what divides them is for `pointer` to say.
    """
    return lambda function: Kernel(triton.jit(function, do_not_specialize=range(addresses)))


class Kernel:
    """A kernel; Triton looks for its code once for each kind of arguments."""

    def __init__(self, function: Any):
        """Take what `triton.jit` makes."""
        self._function = function
        self._compiled: dict[Hashable, Any] = {}
        self._is_known = True
        """Whether this version of Triton launches compiled kernels as this file does."""

    def __call__(self, kind: Hashable, grid: Grid, addresses: Sequence[int], others: Sequence[Any]) -> None:
        """Launch on the current stream of the current device; `kind` differs wherever `grid` or `others` do."""
        device = torch.cuda.current_device()
        compiled = self._compiled.get((device, kind))
        if compiled is None:
            compiled = self._function[grid](*addresses, *others)
            if self._is_known:
                self._compiled[device, kind] = compiled
            return
        stream = triton.runtime.driver.active.get_current_stream(device)
        try:
            compiled.run(*(*grid, stream, compiled.function, compiled.packed_metadata, *_NO_HOOKS), *addresses, *others)
        except TypeError:  # it has been given too few or too many arguments, and has launched nothing
            self._is_known = False
            self._compiled.clear()
            self._function[grid](*addresses, *others)


_NO_HOOKS = (None, None, None)
"""What profilers of Triton's want to know of a launch, and their functions before it and after."""


def divisor(addresses: Iterable[int], sizes: Iterable[int]) -> int:
    """Return what divides all addresses, in bytes: WIDE if possible, else the smallest of the elements' `sizes`."""
    return WIDE if reduce(or_, addresses) % WIDE == 0 else min(sizes)
