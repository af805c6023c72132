"""Which cross-attention layers an LDM U-Net has, and how SUN adapters number them. Knows no ComfyUI."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class CrossAttentionLayer:
    """One cross-attention (attn2) layer of a U-Net."""

    number: int
    """Number in official adapter files: diffusers' count of attention processors (attn2 are the odd ones)."""
    block: tuple[str, int]
    """ComfyUI's block key, such as ("input", 4); the middle block is ("middle", 0)."""
    depth_index: int
    """Which of the block's stacked transformer blocks it is in."""
    depth: int
    """How many transformer blocks that block stacks (1 in SD1.5, up to 10 in SDXL)."""
    hidden_dim: int
    context_dim: int
    attention: Any
    """The frozen attn2 itself: to_q, to_k, to_v, to_out."""


def cross_attention_layers(unet: nn.Module) -> list[CrossAttentionLayer]:
    """List all attn2 layers of `unet` in the order of official adapter files: down, then up, then middle.

    A model without U-Net blocks (Flux and the like) gives an empty list.
    """
    return [
        CrossAttentionLayer(
            number=2 * position + 1,
            block=block,
            depth_index=depth_index,
            depth=depth,
            hidden_dim=attention.to_q.out_features,
            context_dim=attention.to_k.in_features,
            attention=attention,
        )
        for position, (block, depth_index, depth, attention) in enumerate(_walk(unet))
    ]


def text_adapter(unet: nn.Module) -> Any:
    """Return the linear layer that a context passes in `unet` before the layers read it, as in Kolors; None without."""
    return getattr(unet, "encoder_hid_proj", None)


def _walk(unet: Any) -> Iterator[tuple[tuple[str, int], int, int, Any]]:
    """Walk the blocks in the order in which diffusers registers them: down, up, middle."""
    if not (hasattr(unet, "input_blocks") and hasattr(unet, "output_blocks")):
        return
    blocks = [(("input", i), block) for i, block in enumerate(unet.input_blocks)]
    blocks += [(("output", i), block) for i, block in enumerate(unet.output_blocks)]
    if getattr(unet, "middle_block", None) is not None:
        blocks.append((("middle", 0), unet.middle_block))
    for key, block in blocks:
        for module in block:
            transformer_blocks = module._modules.get("transformer_blocks", ())  # getattr takes long if it is missing
            for depth_index, transformer_block in enumerate(transformer_blocks):
                if transformer_block.attn2 is not None:
                    yield key, depth_index, len(transformer_blocks), transformer_block.attn2
