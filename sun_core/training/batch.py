"""The rows of one forward while training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .prompts import Prompt


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to a device, without waiting for what the device still computes."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@dataclass(frozen=True)
class Batch:
    """Latents with their prompts; a row of each tensor belongs to the same picture."""

    x0: Tensor
    """Clean latents, (rows, channels, height, width)."""
    positive: Tensor
    """c+, (rows, tokens, context_dim)."""
    negative: Tensor
    """c-, (rows, tokens, context_dim)."""
    guidance: Tensor
    """The teacher's guidance scale w, (rows,)."""
    positive_y: Tensor | None = None
    """SDXL's vector of pooled text and sizes, (rows, channels)."""
    negative_y: Tensor | None = None

    @classmethod
    def of(cls, x0: Tensor, prompts: Prompt, guidance: Tensor) -> "Batch":
        """Make a batch; `prompts` holds the positives of all rows, then the negatives."""
        positive, negative = prompts.context.chunk(2)
        positive_y, negative_y = (None, None) if prompts.y is None else prompts.y.chunk(2)
        return cls(x0, positive, negative, guidance, positive_y, negative_y)

    @classmethod
    def joined(cls, batches: Sequence["Batch"]) -> "Batch":
        """Put the rows of several batches into one; shorter contexts are repeated, as ComfyUI repeats them."""
        if len(batches) == 1:
            return batches[0]
        tokens = math.lcm(*(batch.positive.shape[1] for batch in batches))

        def join(name: str) -> Tensor | None:
            tensors = [getattr(batch, name) for batch in batches]
            if tensors[0] is None:
                return None
            if name in ("positive", "negative"):
                tensors = [tensor.repeat(1, tokens // tensor.shape[1], 1) for tensor in tensors]
            return torch.cat(tensors)

        return cls(**{field.name: join(field.name) for field in fields(cls)})  # type: ignore[arg-type]

    def rows(self, chosen: slice) -> "Batch":
        """Select some rows by a slice."""
        return Batch(*(None if tensor is None else tensor[chosen] for tensor in self._tensors()))  # type: ignore[arg-type]

    def select(self, chosen: Tensor) -> "Batch":
        """Select some rows by their indices, which are on the same device."""
        return Batch(*(None if tensor is None else tensor[chosen] for tensor in self._tensors()))  # type: ignore[arg-type]

    def to(self, device: torch.device) -> "Batch":
        """Copy the batch to a device, without waiting for it."""
        return Batch(*(None if tensor is None else to_device(tensor, device) for tensor in self._tensors()))  # type: ignore[arg-type]

    def is_finite(self) -> bool:
        """Tell whether all values are numbers."""
        return all(bool(tensor.isfinite().all()) for tensor in self._tensors() if tensor is not None)

    def _tensors(self) -> tuple[Tensor | None, ...]:
        return self.x0, self.positive, self.negative, self.guidance, self.positive_y, self.negative_y
