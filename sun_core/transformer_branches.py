"""The negative as a diffusion transformer's own layers read it, as OwnBranches has it of a U-Net's."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from comfy.model_patcher import ModelPatcher

from .branches import Needed, guidance_by, layer_of, of_all_devices, of_device
from .forward import LayerBranches
from .nag import NagSettings
from .transformers import Transformer, transformer_of


@dataclass(frozen=True)
class TransformerBranches:
    """The negative as the transformer's own layers read it; each device has its own copy of the transformer."""

    transformers: Mapping[torch.device, Transformer]
    settings: NagSettings
    reads_positives = False
    follows_weights = True
    is_idle = False

    @classmethod
    def on(cls, model: ModelPatcher, settings: NagSettings) -> "TransformerBranches":
        """Take the cross-attention of `model`, which is a transformer."""
        of_devices = {p.load_device: transformer_of(p.model.diffusion_model) for p in of_all_devices(model)}
        return cls({device: t for device, t in of_devices.items() if t is not None}, settings)

    @property
    def context_dim(self) -> int:
        """Width of the text that the transformer takes."""
        return self._first.context_dim

    @property
    def layer_count(self) -> int:
        """How many cross-attention layers the transformer has."""
        return len(self._first.layers())

    @property
    def has_wrappers(self) -> bool:
        """Whether ComfyUI calls wrappers around the transformer's forward."""
        return self._first.has_wrappers

    @property
    def _first(self) -> Transformer:
        return next(iter(self.transformers.values()))

    def layers(self, needed: Needed) -> dict[int, LayerBranches]:
        """Make the branches of all layers of the transformer, by number."""
        like = needed.like
        transformer = of_device(self.transformers, like.device)
        guidance = guidance_by(self.settings, needed)
        texts = [entry.through(partial(transformer.text, beside=entry.beside), like) for entry in needed.negatives]
        layers = {}
        for layer in transformer.layers():
            project = partial(transformer.keys_values, layer.attention)
            branches = needed.of_texts(texts, str(layer.number), project)
            layers[layer.number] = layer_of(branches, guidance, needed.chunk_rows)
        return layers
