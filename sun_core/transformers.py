"""Which cross-attention layers a diffusion transformer has, and how each family of them reads its text.

ComfyUI's transformers have no common interface for cross-attention, so each family has a class here. A text passes
the transformer's own text adapter once, then each layer's keys and values. All other families, those where text and
picture share one attention among them, have no place for a second text.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from comfy.ldm.cosmos.predict2 import MiniTrainDIT
from comfy.ldm.lightricks.model import LTXVModel
from comfy.ldm.wan.model import CameraWanModel, VaceWanModel, WanModel
from torch import Tensor

FAMILIES = "Anima, Cosmos-Predict2, Wan 2.1 or 2.2, or LTX-Video"
"""The families below, for a sentence."""


@dataclass(frozen=True)
class TransformerLayer:
    """One cross-attention layer of a transformer."""

    number: int
    path: str
    """Where it is in ComfyUI's BaseModel, such as "diffusion_model.blocks.3.cross_attn"."""
    attention: Any
    """The frozen layer itself."""
    other_attentions: int
    """Attentions that the layer computes before that to the text."""
    patch: int
    """How many places of the latent, in height and in width, make one token."""


class Transformer(ABC):
    """The cross-attention of one transformer; a subclass for each family."""

    blocks, attention = "blocks", "cross_attn"
    """The names of the list of blocks and of the layer in each."""

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
    def text(self, context: Tensor) -> Tensor:
        """Return what the layers read of a context: (rows, tokens, context_dim) -> (rows, tokens, channels)."""

    @abstractmethod
    def keys_values(self, attention: Any, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return K and V of a layer, (rows, tokens, hidden_dim).

        It calls the layer's parts, whose weights may be offloaded, quantised or patched as they are called.
        """

    def layers(self) -> list[TransformerLayer]:
        """List the cross-attention layers in the order of a forward."""
        path = f"diffusion_model.{self.blocks}.{{}}.{self.attention}"
        attentions = [getattr(block, self.attention) for block in getattr(self.model, self.blocks)]
        return [
            TransformerLayer(number, path.format(number), attention, self.other_attentions(attention), self.patch)
            for number, attention in enumerate(attentions)
        ]

    def other_attentions(self, attention: Any) -> int:
        """Return how many attentions a layer computes before that to the text."""
        return 0


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

    def text(self, context: Tensor) -> Tensor:
        """Return the context itself."""
        return context

    def keys_values(self, attention: Any, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return K, normalised per head, and V."""
        keys = attention.k_proj(text).unflatten(-1, (attention.n_heads, attention.head_dim))
        return attention.k_norm(keys).flatten(-2), attention.v_proj(text)


class Wan(Transformer):
    """Wan 2.1 and 2.2; the layers of image-to-video attend to an image first."""

    @property
    def context_dim(self) -> int:
        """Width of the text that the transformer takes."""
        return self.model.text_dim

    @property
    def patch(self) -> int:
        """Places of the latent, in height and in width, that make one token."""
        return self.model.patch_size[-1]

    def text(self, context: Tensor) -> Tensor:
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

    blocks, attention = "transformer_blocks", "attn2"

    @property
    def context_dim(self) -> int:
        """Width of the text that the transformer takes."""
        return self.model.caption_projection.linear_1.in_features

    @property
    def patch(self) -> int:
        """Places of the latent, in height and in width, that make one token."""
        return 1

    def text(self, context: Tensor) -> Tensor:
        """Return the projected text."""
        return self.model.caption_projection(context)

    def keys_values(self, attention: Any, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return K, normalised over all heads, and V."""
        return attention.k_norm(attention.to_k(text)), attention.to_v(text)


def transformer_of(model: Any) -> Transformer | None:
    """Return the cross-attention of ComfyUI's diffusion model; None if that is of another family.

    Subclasses are other families until they are known to read their text in the same way.
    """
    if isinstance(model, MiniTrainDIT):
        return Cosmos(model)
    if type(model) in (WanModel, VaceWanModel, CameraWanModel):
        return Wan(model)
    if type(model) is LTXVModel and not _text_follows_the_steps(model):
        return LTXVideo(model)
    return None


def _text_follows_the_steps(model: LTXVModel) -> bool:
    """Whether the text that the layers read is another one in each step, as in LTX-2."""
    return getattr(model, "cross_attention_adaln", False) or getattr(model, "caption_proj_before_connector", False)
