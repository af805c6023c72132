"""What stands in a transformer's cross-attention layers while SUN is on its MODEL: object patches of `forward`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .attention_patch import FORWARD_KEY, OVERRIDE_KEY
from .errors import SunError
from .forward import SunForward
from .measures import RECORD_KEY, ForwardRecord
from .transformers import Transformer, TransformerLayer, transformer_of

_options: ContextVar[dict[str, Any]] = ContextVar("sun_transformer_options")
"""The transformer_options of the forward that is on, for families that keep them from their layers."""


@contextmanager
def options_for_layers(transformer_options: dict[str, Any]) -> Iterator[None]:
    """Let the layers of a forward find its options."""
    before = _options.set(transformer_options)
    try:
        yield
    finally:
        _options.reset(before)


class TransformerAttention:
    """The `forward` of one cross-attention layer: the layer's own, in which the attention to the text is SUN's."""

    def __init__(self, layer: TransformerLayer):
        self.layer = layer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate the layer; arguments and result as its own."""
        options = kwargs.get("transformer_options") or _options.get({})
        forward: SunForward | None = options.get(FORWARD_KEY)
        record: ForwardRecord | None = None if torch.compiler.is_compiling() else options.get(RECORD_KEY)
        if record is not None:
            record.called.add(self.layer.number)
        attention = self.layer.attention
        if forward is None:
            return type(attention).forward(attention, *args, **kwargs)
        kwargs.pop("transformer_options", None)
        attend = TextAttention(self.layer, forward, record, options.get(OVERRIDE_KEY))
        return self.layer.transformer.evaluate(attention, attend, options, *args, **kwargs)


class TextAttention:
    """What computes the attentions of one layer in one forward, as ComfyUI's `optimized_attention_override`."""

    def __init__(
        self,
        layer: TransformerLayer,
        forward: SunForward,
        record: ForwardRecord | None,
        neighbour: Callable | None,
    ):
        """`neighbour` is the override that another pack has put on the MODEL."""
        self.layer, self.forward, self.record, self.neighbour = layer, forward, record, neighbour
        self.others_left = layer.transformer.other_attentions(layer.attention)

    def __call__(
        self,
        function: Callable,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        mask: Tensor | None = None,
        attn_precision: torch.dtype | None = None,
        skip_reshape: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """Return what the layer attended to; q, k, v: (rows, tokens, channels), or with heads before tokens.

        function: ComfyUI's attention.
        """
        compute = function if self.neighbour is None else partial(self.neighbour, function)
        is_other, self.others_left = self.others_left > 0, max(0, self.others_left - 1)
        is_placed = len(q) == self.forward.row_count
        if self.record is not None and not is_placed:
            self.record.unplaced = (self.forward.row_count, len(q))
        if is_other or not is_placed:
            given = {"mask": mask, "attn_precision": attn_precision, "skip_reshape": skip_reshape}
            return compute(q, k, v, heads, **given, **kwargs)
        if skip_reshape:
            q, k, v = (tensor.transpose(1, 2).flatten(2) for tensor in (q, k, v))

        # `Tensor | None` would be evaluated here, which torch.compile cannot trace
        def attend(q: Tensor, k: Tensor, v: Tensor, mask: Any = None) -> Tensor:
            return compute(q, k, v, heads, mask=mask, attn_precision=attn_precision, **kwargs)

        if self.record is not None:
            self.record.acted.add(self.layer.number)
        text = attend(q, k, v, mask)  # alone: the mask is that of the positive
        grid = [-(-size // self.layer.transformer.patch) for size in self.forward.latent_size[-2:]]
        return self.forward.beside(self.layer.number, text, q, attend, grid)


def install_in_transformer(model: ModelPatcher, transformer: Transformer) -> None:
    """Put a TransformerAttention into every layer; change `model` in place.

    Raises SunError if another pack has replaced a layer: two cannot share one object patch.
    """
    for layer in transformer.layers():
        path = f"{layer.path}.forward"
        if not isinstance(model.object_patches.get(path), TransformerAttention | None):
            raise SunError(
                "Another node on the MODEL line, such as WanVideoNAG, has replaced the cross-attention of this MODEL, "
                "so Negative Prompt at CFG 1 has no place there; remove that node."
            )
        model.add_object_patch(path, TransformerAttention(layer))


def separate_transformer(clone: ModelPatcher) -> None:
    """Let the layers of a clone be its own: in ComfyUI's multi-GPU it has another copy of the model."""
    transformer = transformer_of(clone.model.diffusion_model)
    for layer in transformer.layers() if transformer is not None else ():
        path = f"{layer.path}.forward"
        if isinstance(clone.object_patches.get(path), TransformerAttention):
            clone.object_patches[path] = TransformerAttention(layer)
