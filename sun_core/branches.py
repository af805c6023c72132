"""Where the branches of the layers come from: what a run gives each layer beside the text.

An adapter has weights of its own for keys and values, and adds offsets (attention.py). Without one, the layers' own
frozen weights read the negative, and normalized attention guidance combines the two (nag.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .adapter import EXTRA_POSITIVE, NEGATIVE, SunAdapter
from .conditioning import CachedContext, KeysValues, NegativeEntry, Project, entry_shares, has_places
from .forward import Combine, LayerBranches, Offsets
from .layers import CrossAttentionLayer, cross_attention_layers, text_adapter
from .nag import AttentionGuidance, NagSettings

SUN = "sun"
"""Our key among a ModelPatcher's wrappers, callbacks and additional models."""


@dataclass(frozen=True)
class Needed:
    """What the branches of a forward are made of; its rows come in chunks, one chunk per conditioning entry."""

    negatives: Sequence[NegativeEntry]
    positives: Sequence[CachedContext]
    """c+ of each chunk, for a source that reads them."""
    chunks: int
    chunk_rows: int
    latent_size: Sequence[int]
    like: Tensor
    """Has the dtype and the device that the branches are to have."""
    in_pairs: bool = False
    """Whether contexts have two tokens for each word, of which one is for the key and one for the value (NegPip)."""

    def of_texts(self, texts: Sequence[CachedContext], number: str, project: Project) -> list[list[KeysValues]]:
        """Return what `project` makes of each text for layer `number`: the same for every chunk."""
        return [[self._of(text, number, project)] * self.chunks for text in texts]

    def of_positives(self, number: str, project: Project) -> list[KeysValues]:
        """Return what `project` makes of each chunk's positive for layer `number`."""
        return [self._of(context, number, project) for context in self.positives]

    def _of(self, context: CachedContext, number: str, project: Project) -> KeysValues:
        if self.in_pairs:
            project = partial(_of_pairs, project)
        return context.keys_values(number, project, self.like, self.chunk_rows)


def _of_pairs(project: Project, context: Tensor) -> KeysValues:
    """Take each word's key of its first token and its value of its second, as NegPip does with those of the U-Net."""
    k, v = project(context)
    return (k, v) if k.shape[1] % 2 else (k[:, 0::2], v[:, 1::2])  # a text of odd length was not made by NegPip


class BranchSource(Protocol):
    """Makes the branches of all layers of a U-Net."""

    reads_positives: bool
    """Whether there are branches for the positive."""
    follows_weights: bool
    """Whether the branches depend on the U-Net's weights, which hooks may change between steps."""

    @property
    def has_wrappers(self) -> bool:
        """Whether ComfyUI calls wrappers around the model's forward, so that ours sees whether it is evaluated."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether strengths let nothing of an adapter count."""
        ...

    @property
    def context_dim(self) -> int:
        """Width of the text that the layers read."""
        ...

    @property
    def layer_count(self) -> int:
        """How many layers get branches."""
        ...

    def layers(self, needed: Needed) -> dict[int, LayerBranches]:
        """Make the branches of each layer, by number."""
        ...


@dataclass(frozen=True)
class Strengths:
    """Factors of the two terms."""

    negative: float = 1.0
    positive: float = 1.0


@dataclass(frozen=True)
class AdapterBranches:
    """The branches of an adapter, of which each device has its own copy."""

    adapters: Mapping[torch.device, SunAdapter]
    strengths: Strengths = Strengths()
    reads_positives = True
    follows_weights = False
    has_wrappers = True

    @classmethod
    def on(cls, model: ModelPatcher, strengths: Strengths) -> "AdapterBranches":
        """Take the adapter that is on `model`."""
        adapters = {p.load_device: p.get_additional_models_with_key(SUN)[0].model for p in of_all_devices(model)}
        return cls(adapters, strengths)

    @property
    def is_idle(self) -> bool:
        """Whether the strengths of all parts that the adapter has are 0."""
        has_positive = next(iter(self.adapters.values())).layout.extra_positive
        return self.strengths.negative == 0 and not (has_positive and self.strengths.positive)

    @property
    def context_dim(self) -> int:
        """Width of the text that the adapter reads."""
        return next(iter(self.adapters.values())).layout.context_dim

    @property
    def layer_count(self) -> int:
        """How many layers the adapter is in."""
        return len(next(iter(self.adapters.values())))

    def layers(self, needed: Needed) -> dict[int, LayerBranches]:
        """Make the branches of all layers of the adapter, by number."""
        return layers_of(of_device(self.adapters, needed.like.device), needed, self.strengths)


def of_all_devices(model: ModelPatcher) -> list[ModelPatcher]:
    """Return `model` and its clones on other GPUs (ComfyUI 0.33), each with weights of its own."""
    return [model, *model.get_additional_models_with_key("multigpu")]


def of_device(per_device: Mapping[torch.device, Any], device: torch.device) -> Any:
    """Return what stands under `device`; a run on a single device may name it otherwise."""
    return per_device[device] if len(per_device) > 1 else next(iter(per_device.values()))


@dataclass(frozen=True)
class OwnBranches:
    """The negative as the U-Net's own layers read it, LoRAs included; each device has its own copy of the U-Net."""

    attentions: Mapping[torch.device, Sequence[CrossAttentionLayer]]
    text_adapters: Mapping[torch.device, Any]
    """What a context passes in the U-Net before the layers read it; None in most families."""
    settings: NagSettings
    reads_positives = False
    follows_weights = True
    has_wrappers = True
    is_idle = False

    @classmethod
    def on(cls, model: ModelPatcher, settings: NagSettings) -> "OwnBranches":
        """Take the cross-attention of `model`."""
        unets = {p.load_device: p.model.diffusion_model for p in of_all_devices(model)}
        attentions = {device: cross_attention_layers(unet) for device, unet in unets.items()}
        return cls(attentions, {device: text_adapter(unet) for device, unet in unets.items()}, settings)

    @property
    def context_dim(self) -> int:
        """Width of the text that the U-Net reads."""
        adapter = next(iter(self.text_adapters.values()))
        return next(iter(self.attentions.values()))[0].context_dim if adapter is None else adapter.in_features

    @property
    def layer_count(self) -> int:
        """How many cross-attention layers the U-Net has."""
        return len(next(iter(self.attentions.values())))

    def layers(self, needed: Needed) -> dict[int, LayerBranches]:
        """Make the branches of all layers of the U-Net, by number."""
        guidance = guidance_by(self.settings, needed)
        adapter = of_device(self.text_adapters, needed.like.device)
        texts: Sequence[CachedContext] = needed.negatives
        if adapter is not None:
            texts = [entry.through(partial(_adapted, adapter), needed.like) for entry in needed.negatives]
        layers = {}
        for layer in of_device(self.attentions, needed.like.device):
            project = partial(_own_keys_values, layer.attention)
            branches = needed.of_texts(texts, str(layer.number), project)
            layers[layer.number] = layer_of(branches, guidance, needed.chunk_rows)
        return layers


def _adapted(adapter: Any, context: Tensor) -> Tensor:
    """Call a text adapter in the dtype of its weights, which packs leave to autocast."""
    return adapter(context.to(adapter.weight.dtype)).to(context.dtype)


def guidance_by(settings: NagSettings, needed: Needed) -> AttentionGuidance:
    """Return the guidance away from all negatives, each by its share; from none of them if all have no strength."""
    shares = entry_shares(needed.negatives)
    settings = settings if any(shares) else replace(settings, alpha=0.0)
    return AttentionGuidance(settings, torch.tensor(shares).to(needed.like)[:, None, None, None])


def _own_keys_values(attention: Any, context: Tensor) -> tuple[Tensor, Tensor]:
    """Call the layers, whose weights may be offloaded, quantised or patched as they are called."""
    return attention.to_k(context), attention.to_v(context)


def layers_of(adapter: SunAdapter, needed: Needed, strengths: Strengths) -> dict[int, LayerBranches]:
    """Make the branches of all layers of `adapter`: one for every negative entry, and the extra positive one."""
    negatives, like = needed.negatives, needed.like
    shares = entry_shares(negatives)
    if not any(shares):
        strengths = replace(strengths, negative=0.0)
    if has_places(negatives, needed.latent_size):
        shares = [1.0] * len(negatives)
    scales, shifts = _scales_and_shifts(adapter, shares, strengths, like)
    layers = {}
    for (number, layer), scale, shift in zip(adapter.by_number.items(), scales, shifts, strict=True):
        negative, extra_positive = (partial(layer.keys_values, branch) for branch in (NEGATIVE, EXTRA_POSITIVE))
        branches = needed.of_texts(negatives, number, negative)
        if adapter.layout.extra_positive:
            branches.append(needed.of_positives(number, extra_positive))
        project_text = extra_positive if adapter.layout.extra_positive else None
        layers[int(number)] = layer_of(branches, Offsets(scale, shift), needed.chunk_rows, project_text)
    return layers


def layer_of(
    branches: Sequence[Sequence[KeysValues]], combine: Combine, chunk_rows: int, project_text: Project | None = None
) -> LayerBranches:
    """Make the branches of a layer of the K and V of each branch, one pair for each chunk."""
    keys, values = ([[kv[which] for kv in pieces] for pieces in branches] for which in (0, 1))
    return LayerBranches(keys, values, combine, chunk_rows, project_text)


def _scales_and_shifts(
    adapter: SunAdapter, shares: Sequence[float], strengths: Strengths, like: Tensor
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Return the scales of all branches and the shift of each layer, in few operations for all.

    Returns: (branches, 1, 1, channels) each, fp32, and dense; (channels,) each, in the dtype of `like`.
    """
    layers = adapter.by_number.values()
    sizes = [layer.hidden_dim for layer in layers]

    def side_by_side(branch: str, which: str) -> Tensor:
        return torch.cat([layer.per_channel(branch, which) for layer in layers]).to(like.device, torch.float)

    alpha, beta = (side_by_side(NEGATIVE, which) for which in ("alpha", "beta"))
    scales = [alpha * (-strengths.negative * share) for share in shares]
    shift = beta * -strengths.negative
    if adapter.layout.extra_positive:
        scales.append(side_by_side(EXTRA_POSITIVE, "alpha") * strengths.positive)
        shift = torch.add(shift, side_by_side(EXTRA_POSITIVE, "beta"), alpha=strengths.positive)
    of_layers = list(zip(*(scale.split(sizes) for scale in scales), strict=True))
    dense = torch.cat([scale for of_branches in of_layers for scale in of_branches])
    split = dense.split([size * len(scales) for size in sizes])
    return [scale.view(len(scales), 1, 1, -1) for scale in split], shift.to(like.dtype).split(sizes)
