"""torch.compile for the transformer blocks of the frozen U-Net: fewer and larger kernels while training.

Blocks that are alike share their code, so that a U-Net takes a few compilations for each way that it is used (teacher,
student, target). Whole rows may come and go without another one. Of a residual block, convolutions are most, and the
rest is in fused_group_norm.py.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch._dynamo
from comfy.ldm.modules.attention import BasicTransformerBlock
from torch import Tensor, nn

from ..attention import add_offsets
from ..attention_patch import FORWARD_KEY
from ..forward import Offsets, SunForward
from ..layers import cross_attention_layers
from .eps_unet import attention

KINDS_OF_BLOCKS = 128
"""More than a U-Net has kinds of blocks and ways to use them; torch's own limit of recompilations is 8."""


_RECOMPILE_LIMIT = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"


@contextmanager
def compiled_blocks(unet: nn.Module) -> Iterator[None]:
    """Let the transformer blocks of `unet` run compiled.

    If compiling fails, which is said once, they run as ever.
    """
    replaced = _replace_forwards(unet)
    try:
        with torch._dynamo.config.patch({_RECOMPILE_LIMIT: KINDS_OF_BLOCKS}):
            yield
    finally:
        for module in replaced:
            del module.forward  # the class's own is seen again


def _replace_forwards(unet: nn.Module) -> list[nn.Module]:
    transformer = _Compiler().compiled(transformer_block)
    numbers = {id(layer.attention): layer.number for part in unet.modules() for layer in cross_attention_layers(part)}
    blocks = [part for part in unet.modules() if isinstance(part, BasicTransformerBlock) and _is_ordinary(part)]
    for block in blocks:
        block.forward = _transformer_forward(block, numbers[id(block.attn2)], transformer)
    return blocks


class _Compiler:
    """Compiles functions at their first call, and again for each kind of arguments, until that fails."""

    def __init__(self) -> None:
        self.works = True

    def compiled(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Make a function that runs compiled if it can, or as it is."""
        try:
            compiled = torch.compile(function, fullgraph=True)
        except RuntimeError as error:  # torch knows that it cannot on this system or in this Python
            self._give_up(error)
            return function

        def run(module: nn.Module, x: Tensor, *rest: Any) -> Tensor:
            # torch.compile treats one row as a case of its own, which is rare: not worth all the compilations again
            if self.works and (len(x) > 1 or torch.is_grad_enabled()):
                try:
                    return compiled(module, x, *rest)
                except torch._dynamo.exc.TorchDynamoException as error:
                    self._give_up(error)
            return function(module, x, *rest)

        return run

    def _give_up(self, error: Exception) -> None:
        self.works = False
        reason = str(getattr(error, "inner_exception", error)).strip().partition("\n")[0]
        logging.warning(f"torch.compile does not work here ({reason}); training goes on without it, slower.")


def _is_ordinary(block: BasicTransformerBlock) -> bool:
    """Tell whether a block has the parts of Stable Diffusion's, and no others."""
    return (
        block.attn2 is not None
        and block.is_res
        and not (block.ff_in or block.disable_self_attn or block.switch_temporal_ca_to_sa)
    )


def _let_rows_change(*tensors: Tensor) -> None:
    """Tell torch.compile that the first dimension of these may have any size."""
    for tensor in tensors:
        torch._dynamo.maybe_mark_dynamic(tensor, 0)


def _transformer_forward(
    block: BasicTransformerBlock, number: int, compiled: Callable[..., Tensor]
) -> Callable[..., Tensor]:
    def forward(x: Tensor, context: Tensor, transformer_options: dict) -> Tensor:
        sun: SunForward | None = transformer_options.get(FORWARD_KEY)
        if sun is None:
            _let_rows_change(x, context)
            return compiled(block, x, context, [], [], None, None)
        layer = sun.layers[number]
        assert isinstance(layer.combine, Offsets), "an adapter is trained"
        keys, values = ([pieces[0].expand(len(x), -1, -1) for pieces in kv] for kv in (layer.keys, layer.values))
        _let_rows_change(x, context, *keys, *values)
        return compiled(block, x, context, keys, values, layer.combine.scales, layer.combine.shift)

    return forward


def transformer_block(
    block: BasicTransformerBlock,
    x: Tensor,
    context: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    scales: Tensor | None,
    shift: Tensor | None,
) -> Tensor:
    """Evaluate a transformer block as ComfyUI's own forward does without patches, with SUN if there are branches.

    x: (rows, tokens, channels); context: (rows, tokens, context_dim); keys and values of each branch, (rows, tokens,
    channels); scales and shift as in Offsets.
    """

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v, block.n_heads)

    normed = block.norm1(x)
    own = block.attn1
    x = x + own.to_out(attend(own.to_q(normed), own.to_k(normed), own.to_v(normed)))
    cross = block.attn2
    q = cross.to_q(block.norm2(x))
    out = attend(q, cross.to_k(context), cross.to_v(context))
    if scales is not None and shift is not None:
        branches = [attend(q, k, v) for k, v in zip(keys, values, strict=True)]
        out = add_offsets(torch.stack([out, *branches]), scales, shift).to(q.dtype)
    x = x + cross.to_out(out)
    return x + block.ff(block.norm3(x))
