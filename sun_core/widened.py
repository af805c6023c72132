"""A forward whose batch another pack has widened inside cross-attention, as regional prompts do.

Attention couple repeats every positive chunk once per region, gives each copy the prompt of its region, and sums the
results by the regions' masks behind the layer. Chunks of the negative stay single.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .forward import LayerBranches, SunForward

CONTEXT_KEY = "sun_context"
"""Where a block's extra_options hold the Contexts that its K and V are made of."""

Contexts = tuple[Tensor, Tensor]
"""One for K and one for V, (rows, tokens, context_dim) each: the same one, unless another pack parts them."""


def record_context(n: Tensor, context: Tensor, value: Tensor | None, extra_options: dict[str, Any]) -> tuple[Any, ...]:
    """Record the contexts of a block: an attn2 patch that changes nothing, and runs behind those of other packs."""
    extra_options[CONTEXT_KEY] = context, context if value is None else value
    return n, context, value


def widened(forward: SunForward, number: int, rows: int, contexts: Contexts | None) -> SunForward | None:
    """Return `forward` with layer `number` for `rows` rows, None if these are not SUN's chunks repeated.

    contexts: those of all rows, which the extra positive then reads too.
    """
    layer = forward.layers[number]
    chunk_rows, sun_chunks = layer.chunk_rows, len(layer.keys[0])
    plain_rows = forward.row_count - sun_chunks * chunk_rows
    copies, rest = divmod(rows - plain_rows, sun_chunks * chunk_rows)
    if rest or copies < 1:
        return None
    sun_rows = None if forward.rows is None else _repeated_chunks(forward.rows, chunk_rows, copies)
    keys, values = (
        [[piece for piece in pieces for _ in range(copies)] for pieces in of_branches]
        for of_branches in (layer.keys, layer.values)
    )
    if layer.project_text is not None and contexts is not None:
        of_k, of_v = ((context if sun_rows is None else context[sun_rows]).to(keys[-1][0]) for context in contexts)
        k, v = layer.project_text(of_k)
        if contexts[1] is not contexts[0]:
            v = layer.project_text(of_v)[1]
        keys[-1], values[-1] = list(k.split(chunk_rows)), list(v.split(chunk_rows))
    repeated: LayerBranches = replace(layer, keys=keys, values=values)
    return replace(forward, layers={number: repeated}, row_count=rows, rows=sun_rows, is_one_text=False, text=None)


def _repeated_chunks(rows: Tensor, chunk_rows: int, copies: int) -> Tensor:
    """Return the indices of SUN's rows once each of its chunks is repeated, without waiting for the device.

    rows: (chunks * chunk_rows,), the indices before.
    """
    starts = rows[::chunk_rows]
    starts = starts + torch.arange(len(starts), device=rows.device) * (copies - 1) * chunk_rows
    return (starts[:, None] + torch.arange(copies * chunk_rows, device=rows.device)).flatten()
