"""Offset attention (arXiv 2312.08887, sec. 3.2; official SUNAttnProcessor). Torch only, differentiable.

Per cross-attention layer, with q the layer's own queries:

    text = Attn(q, K c+, V c+)        neg = Attn(q, Kn c-, Vn c-)        pos = Attn(q, Kp c+, Vp c+)
    out  = text - (an * neg * |text|/|neg| + bn) + (ap * pos * |text|/|pos| + bp)

The official code takes the norm over the whole batch tensor; here it is per row, so that an image does not depend on
the others of its batch. For a single image both are the same.
"""

import torch
from torch import Tensor


def row_norm(x: Tensor) -> Tensor:
    """L2 norm of each row over (tokens, channels): (rows, tokens, channels) -> (rows, 1, 1), fp32.

    Accumulated in fp32, because a sum of squares over 4096 x 320 values overflows fp16, and per token first, because
    one running sum over so many loses 1e-3 even in fp32 (CPU).
    """
    per_token = torch.linalg.vector_norm(x, dim=2, keepdim=True, dtype=torch.float32)
    return torch.linalg.vector_norm(per_token, dim=1, keepdim=True)


def rescale(branch: Tensor, text: Tensor) -> Tensor:
    """`branch` with the norm of `text`, row by row; a row of zeros stays zero. Shapes: (rows, tokens, channels)."""
    norm = row_norm(branch)
    is_zero = norm == 0
    ratio = (row_norm(text) / norm.masked_fill(is_zero, 1.0)).masked_fill(is_zero, 0.0)
    return branch * ratio.to(branch.dtype)


def offset(branch: Tensor, text: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """`alpha * branch * |text|/|branch| + beta`, what one branch adds to the text attention.

    branch, text: (rows, tokens, channels); alpha, beta: (channels,), cast to the branch's dtype and device.
    """
    return torch.addcmul(beta.to(branch), rescale(branch, text), alpha.to(branch))


def combine(
    text: Tensor,
    negative_offset: Tensor,
    positive_offset: Tensor | None,
    negative_strength: float = 1.0,
    positive_strength: float = 1.0,
) -> Tensor:
    """The layer's result before `to_out`; `positive_offset` is None for adapters without the extra positive branch."""
    out = torch.sub(text, negative_offset, alpha=negative_strength)
    return out if positive_offset is None else torch.add(out, positive_offset, alpha=positive_strength)
