"""Offset attention (arXiv 2312.08887, sec. 3.2; official SUNAttnProcessor). Torch only, differentiable.

Per cross-attention layer, with q the layer's own queries:

    text = Attn(q, K c+, V c+)        neg = Attn(q, Kn c-, Vn c-)        pos = Attn(q, Kp c+, Vp c+)
    out  = text - (an * neg * |text|/|neg| + bn) + (ap * pos * |text|/|pos| + bp)

Here each branch has one signed scale, -an for neg and ap for pos, and all betas are one shift:

    out  = text + sum of scale * branch * |text|/|branch| + shift

The official code takes the norm over the whole batch tensor; here it is per row, so that an image does not depend on
the others of its batch. For a single image both are the same.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def row_norm(x: Tensor) -> Tensor:
    """Return the L2 norm of each row over (tokens, channels): (..., tokens, channels) -> (..., 1, 1), fp32.

    It accumulates in fp32, because a sum of squares over 4096 x 320 values overflows fp16, and per token first, because
    one running sum over so many loses 1e-3 even in fp32 (CPU).
    """
    return torch.linalg.vector_norm(_token_norm(x), dim=-2, keepdim=True)


def _token_norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)


def norm_ratios(attended: Tensor | Sequence[Tensor]) -> Tensor:
    """Return |text|/|branch| of each branch and row, 0 for a branch of zeros.

    (1 + branches, rows, tokens, channels), text first -> (branches, rows, 1, 1), fp32.
    """
    if isinstance(attended, Tensor):
        norms = row_norm(attended)
    else:
        per_token = torch.stack([_token_norm(x) for x in attended])
        norms = torch.linalg.vector_norm(per_token, dim=-2, keepdim=True)  # as row_norm, to the bit
    return norms[:1] / torch.threshold(norms[1:], 0.0, float("inf"))


def add_offsets(
    attended: Tensor | Sequence[Tensor], scales: Tensor, shift: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Add the offsets of all branches to the text attention; the result is the layer's, before `to_out`.

    Args:
        attended: what text and branches attended to, text first: (1 + branches, rows, tokens, channels), in one tensor
            or one by one.
        scales: signed strength * alpha of each branch: (branches, 1, 1, channels), fp32.
        shift: sum of signed strength * beta: (channels,), in the dtype of `attended`.
        weights: where each branch counts: (branches, 1 or rows, tokens, 1), in the dtype of `attended`.

    Returns: (rows, tokens, channels).
    """
    text, *branches = attended.unbind() if isinstance(attended, Tensor) else attended
    factors = (norm_ratios(attended) * scales).to(text.dtype).unbind()
    if weights is not None:
        branches = [weight * branch for weight, branch in zip(weights.unbind(), branches, strict=True)]
    out = text + shift
    for branch, factor in zip(branches, factors, strict=True):
        out.addcmul_(branch, factor)  # on a CPU, memory for another tensor costs as much as the arithmetic
    return out
