"""Normalized attention guidance (NAG, arXiv 2505.21179, algorithm 1). Torch only.

Per cross-attention layer, with q the layer's own queries and its own frozen K and V for both prompts:

    text = Attn(q, K c+, V c+)        neg = Attn(q, K c-, V c-)
    ext  = s * text - (s - 1) * neg
    r    = |ext|/|text|                              L1 norms over the channels of each token
    out  = a * ext * min(r, tau)/r + (1 - a) * text

s is `scale`: at 1 the negative plays no part. The paper and some packs count from 0 instead: their phi is s - 1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST = torch.finfo(torch.float32).tiny
"""Stands for the norm of a token that has none."""


@dataclass(frozen=True)
class NagSettings:
    """The parameters of NAG. Each makes the negative count more as it rises."""

    scale: float = 3.0
    """How far the attention goes away from the negative, at least 1."""
    tau: float = 5.0
    """How many times its own norm the attention of a token may reach, at least 1."""
    alpha: float = 0.5
    """The share of what comes out in the result: 0 to 1."""

    @property
    def is_off(self) -> bool:
        """Whether the text attention comes out."""
        return self.scale == 1 or self.alpha == 0


def normalized_attention_guidance(attended: Tensor | Sequence[Tensor], settings: NagSettings) -> Tensor:
    """Guide the text attention away from the negative's: (2, rows, tokens, channels), text first -> (rows, ...).

    The two come in one tensor or one by one; bits are the same. It overwrites the negative's: on a CPU, memory for
    another tensor of that size costs more than the arithmetic.
    With min(r, tau)/r = tau/max(r, tau), which needs no care where r is 0.
    """
    scale, tau, alpha = settings.scale, settings.tau, settings.alpha
    text, ext = attended[0], attended[1]
    ext.lerp_(text, scale)
    norms = _norms(attended) if isinstance(attended, Tensor) else [_norms(x) for x in attended]
    r = norms[1] / norms[0].clamp_min(SMALLEST)
    return (text * (1 - alpha)).addcdiv_(ext, r.clamp_min(tau).to(text.dtype), value=alpha * tau)


def _norms(x: Tensor) -> Tensor:
    """Return the L1 norm of each token over the channels, accumulated in fp32: (..., channels) -> (..., 1)."""
    if x.device.type == "cpu":  # where vector_norm takes three times as long
        return x.abs().sum(dim=-1, keepdim=True, dtype=torch.float32)
    return torch.linalg.vector_norm(x, ord=1, dim=-1, keepdim=True, dtype=torch.float32)


@dataclass(frozen=True)
class AttentionGuidance:
    """Guides the text away from the weighed average of all negatives: how they count without an adapter."""

    settings: NagSettings
    shares: Tensor
    """Each negative's share of the average, summing to 1: (branches, 1, 1, 1), in the dtype of the attention."""

    def __call__(self, attended: Tensor | Sequence[Tensor], weights: Tensor | None) -> Tensor:
        """Combine (1 + branches, rows, tokens, channels), text first -> (rows, tokens, channels); overwrite the first
        branch.

        weights: each negative's share at each token, (branches, rows, tokens, 1); None for `shares` everywhere.
        """
        shares = self.shares if weights is None else weights
        if not isinstance(attended, Tensor):
            return normalized_attention_guidance((attended[0], _average(attended[1:], shares)), self.settings)
        if attended.requires_grad:  # a sampler that follows gradients needs what the attention gave
            attended = attended.clone()
        if len(attended) > 2:
            attended[1] = (attended[1:] * shares).sum(dim=0)
        return normalized_attention_guidance(attended[:2], self.settings)

    @property
    def constants(self) -> NagSettings:
        """Return the settings, which no tensor holds."""
        return self.settings

    def tensors(self) -> list[Tensor]:
        """Return all tensors in the order that `with_tensors` takes."""
        return [self.shares]

    def with_tensors(self, tensors: Iterator[Tensor]) -> "AttentionGuidance":
        """Return the same with other tensors."""
        return AttentionGuidance(self.settings, next(tensors))


def _average(negatives: Sequence[Tensor], shares: Tensor) -> Tensor:
    """Average negatives that came one by one, in fp32 as `sum` does; return a tensor that may be overwritten."""
    if len(negatives) == 1:
        return negatives[0].clone() if negatives[0].requires_grad else negatives[0]
    total = torch.zeros_like(negatives[0], dtype=torch.float32)
    for negative, share in zip(negatives, shares.unbind(), strict=True):
        total += negative * share
    return total.to(negatives[0].dtype)
