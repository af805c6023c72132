"""Which cross-attention layers a diffusion transformer has, and how each family of them reads its text.

ComfyUI's transformers have no common interface for cross-attention, so each family has a class here. A text passes
the transformer's own text adapter once, then each layer's keys and values. All other families, those where text and
picture share one attention among them, have no place for a second text.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from .attention_patch import OVERRIDE_KEY
from .conditioning import BESIDE_THE_CONTEXT
from .errors import SunError

FAMILIES = "Anima, Cosmos-Predict2, Wan 2.1 or 2.2, LTX-Video, PixArt or Hunyuan-DiT"
"""The families below, for a sentence."""


@dataclass(frozen=True)
class TransformerLayer:
    """One cross-attention layer of a transformer."""

    number: int
    path: str
    """Where it is in ComfyUI's BaseModel, such as "diffusion_model.blocks.3.cross_attn"."""
    attention: Any
    """The frozen layer itself."""
    transformer: "Transformer"


class Transformer(ABC):
    """The cross-attention of one transformer; a subclass for each family."""

    block_lists: tuple[str, ...] = ("blocks",)
    """The names of the lists of blocks."""
    attention = "cross_attn"
    """The name of the layer in each block."""
    has_wrappers = True
    """Whether ComfyUI calls wrappers around the transformer's forward."""

    def __init__(self, model: Any):
        self.model = model

    @property
    @abstractmethod
    def context_dim(self) -> int:
        """Width of the text that the transformer takes."""

    @property
    @abstractmethod
    def patch(self) -> int:
        """How many places of the latent, in height and in width, make one token."""

    @abstractmethod
    def text(self, context: Tensor, beside: Mapping[str, Tensor]) -> Tensor:
        """Return what the layers read of a context: (rows, tokens, context_dim) -> (rows, tokens, channels).

        beside: what else ComfyUI's conditioning gives the transformer, by the names of its arguments.
        """

    @abstractmethod
    def keys_values(self, attention: Any, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return K and V of a layer, (rows, tokens, hidden_dim).

        It calls the layer's parts, whose weights may be offloaded, quantised or patched as they are called.
        """

    def layers(self) -> list[TransformerLayer]:
        """List the cross-attention layers, one list of blocks after the other."""
        found = [
            (f"diffusion_model.{name}.{n}.{self.attention}", getattr(block, self.attention))
            for name in self.block_lists
            for n, block in enumerate(getattr(self.model, name, ()))
        ]
        return [TransformerLayer(number, *of_block, self) for number, of_block in enumerate(found)]

    def other_attentions(self, attention: Any) -> int:
        """Return how many attentions a layer computes before that to the text."""
        return 0

    def evaluate(self, attention: Any, attend: Callable, options: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Evaluate a layer with `attend` for ComfyUI's attention; `options` are the forward's transformer_options."""
        options = {**options, OVERRIDE_KEY: attend}
        return type(attention).forward(attention, *args, transformer_options=options, **kwargs)


class Cosmos(Transformer):
    """Cosmos-Predict2, and Anima, which ComfyUI's conditioning has taken through its text adapter already."""

    @property
    def context_dim(self) -> int:
        """Width of the text that the transformer takes."""
        return self.model.blocks[0].cross_attn.context_dim

    @property
    def patch(self) -> int:
        """Places of the latent, in height and in width, that make one token."""
        return self.model.patch_spatial

    def text(self, context: Tensor, beside: Mapping[str, Tensor]) -> Tensor:
        """Return the context itself."""
        return context

    def keys_values(self, attention: Any, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return K, normalised per head, and V."""
        keys = attention.k_proj(text).unflatten(-1, (attention.n_heads, attention.head_dim))
        return attention.k_norm(keys).flatten(-2), attention.v_proj(text)


class Wan(Transformer):
    """Wan 2.1 and 2.2; the layers of image-to-video attend to an image first.

    VACE has more blocks, for its own input, which read the text too: CFG and the authors of NAG guide those as well.
    """

    block_lists = ("blocks", "vace_blocks")

    @property
    def context_dim(self) -> int:
        """Width of the text that the transformer takes."""
        return self.model.text_dim

    @property
    def patch(self) -> int:
        """Places of the latent, in height and in width, that make one token."""
        return self.model.patch_size[-1]

    def text(self, context: Tensor, beside: Mapping[str, Tensor]) -> Tensor:
        """Return the embedded text."""
        return self.model.text_embedding(context)

    def keys_values(self, attention: Any, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return K, normalised over all heads, and V."""
        return attention.norm_k(attention.k(text)), attention.v(text)

    def other_attentions(self, attention: Any) -> int:
        """Return 1 if there is an image to attend to."""
        return int(hasattr(attention, "k_img"))


class LTXVideo(Transformer):
    """LTX-Video."""

    block_lists, attention = ("transformer_blocks",), "attn2"

    @property
    def context_dim(self) -> int:
        """Width of the text that the transformer takes."""
        return self.model.caption_projection.linear_1.in_features

    @property
    def patch(self) -> int:
        """Places of the latent, in height and in width, that make one token."""
        return 1

    def text(self, context: Tensor, beside: Mapping[str, Tensor]) -> Tensor:
        """Return the projected text."""
        return self.model.caption_projection(context)

    def keys_values(self, attention: Any, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return K, normalised over all heads, and V."""
        return attention.k_norm(attention.to_k(text)), attention.to_v(text)


class PixArt(Transformer):
    """PixArt-alpha and PixArt-sigma, whose layers get no options: they are evaluated here."""

    has_wrappers = False

    @property
    def context_dim(self) -> int:
        """Width of the text that the transformer takes."""
        return self.model.y_embedder.y_proj.fc1.in_features

    @property
    def patch(self) -> int:
        """Places of the latent, in height and in width, that make one token."""
        return self.model.patch_size

    def text(self, context: Tensor, beside: Mapping[str, Tensor]) -> Tensor:
        """Return the projected text."""
        return self.model.y_embedder(context, False)

    def keys_values(self, attention: Any, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return the halves of what the layer makes of the text."""
        keys, values = attention.kv_linear(text).chunk(2, dim=-1)
        return keys, values

    def evaluate(self, attention: Any, attend: Callable, options: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Evaluate MultiHeadCrossAttention.forward(x, cond, mask), where cond has all rows one after the other."""
        x, cond, *_ = args
        keys, values = self.keys_values(attention, cond.view(len(x), -1, cond.shape[-1]))
        out = attend(optimized_attention, attention.q_linear(x), keys, values, attention.num_heads)
        return attention.proj_drop(attention.proj(out))


class HunyuanDiT(Transformer):
    """Hunyuan-DiT, whose text is that of two encoders, and whose layers get no options: they are evaluated here."""

    attention = "attn2"
    has_wrappers = False

    @property
    def context_dim(self) -> int:
        """Width of the text of CLIP that the transformer takes."""
        return self.model.text_states_dim

    @property
    def patch(self) -> int:
        """Places of the latent, in height and in width, that make one token."""
        return self.model.patch_size

    def text(self, context: Tensor, beside: Mapping[str, Tensor]) -> Tensor:
        """Return the texts of CLIP and of T5, joined, with learned padding where they are masked.

        Raises SunError if the text of T5 is missing.
        """
        if len(beside) < len(BESIDE_THE_CONTEXT):
            raise SunError(
                "The negative prompt was not encoded for Hunyuan-DiT, which reads it from CLIP and T5; encode it with "
                "the CLIP of the checkpoint that is connected."
            )
        of_t5 = self.model.mlp_t5(beside["encoder_hidden_states_t5"].to(context))
        padding = self.model.text_embedding_padding.to(context)
        parts = (
            (context, beside["text_embedding_mask"], padding[: self.model.text_len]),
            (of_t5, beside["text_embedding_mask_t5"], padding[self.model.text_len :]),
        )
        return torch.cat([_padded(text, mask.to(text.device), pad) for text, mask, pad in parts], dim=1)

    def keys_values(self, attention: Any, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return K, normalised per head, and V."""
        keys, values = attention.kv_proj(text).unflatten(-1, (2, attention.num_heads, -1)).unbind(2)
        return attention.k_norm(keys).flatten(-2), values.flatten(-2)

    def evaluate(self, attention: Any, attend: Callable, options: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Evaluate CrossAttention.forward(x, y, freqs_cis_img)."""
        from comfy.ldm.hydit.attn_layers import apply_rotary_emb  # as late as that, for the reason at BY_CLASS

        x, text, frequencies = args
        q = attention.q_norm(attention.q_proj(x).unflatten(-1, (attention.num_heads, -1)))
        q, _ = apply_rotary_emb(q, None, frequencies)
        keys, values = self.keys_values(attention, text)
        options = {"attn_precision": attention.attn_precision}
        out = attend(optimized_attention, q.flatten(-2), keys, values, attention.num_heads, **options)
        return (attention.proj_drop(attention.out_proj(out)),)


def _padded(text: Tensor, mask: Tensor, padding: Tensor) -> Tensor:
    """Put padding (tokens, channels) where a mask (rows, tokens) is 0, among the last tokens of a text."""
    tokens = len(padding)
    padded = torch.where(mask[:, -tokens:].bool().unsqueeze(2), text[:, -tokens:], padding)
    return torch.cat([text[:, :-tokens], padded], dim=1)


COSMOS = "comfy.ldm.cosmos.predict2.MiniTrainDIT"
BY_CLASS: dict[str, type[Transformer]] = {
    "comfy.ldm.wan.model.WanModel": Wan,
    "comfy.ldm.wan.model.VaceWanModel": Wan,
    "comfy.ldm.wan.model.CameraWanModel": Wan,
    "comfy.ldm.lightricks.model.LTXVModel": LTXVideo,
    "comfy.ldm.pixart.pixartms.PixArtMS": PixArt,
    "comfy.ldm.hydit.models.HunYuanDiT": HunyuanDiT,
}
"""By the names of ComfyUI's classes: imported, one that a ComfyUI lacks would keep the whole pack from loading."""


def transformer_of(model: Any) -> Transformer | None:
    """Return the cross-attention of ComfyUI's diffusion model; None if that is of another family.

    Subclasses are other families until they are known to read their text in the same way.
    """
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(model).__mro__]
    if COSMOS in names:
        return Cosmos(model)
    family = BY_CLASS.get(names[0])
    if family is None or (family is LTXVideo and _text_follows_the_steps(model)):
        return None
    return family(model)


def _text_follows_the_steps(model: Any) -> bool:
    """Whether the text that the layers read is another one in each step, as in LTX-2."""
    return getattr(model, "cross_attention_adaln", False) or getattr(model, "caption_proj_before_connector", False)
