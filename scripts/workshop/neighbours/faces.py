"""InstantID, on a small U-Net of the layout of SDXL, for which alone it is made."""

from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import numpy
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher

from sun_core.adapter import SunAdapter
from sun_core.adapter_file import AdapterLayout
from sun_core.apply import apply_sun
from sun_core.layers import cross_attention_layers
from sun_core.settings import SunSettings

from .control import PICTURE
from .packs import call, module_of
from .rows import Row, both_orders, on_model
from .small_model import NEGATIVE, Way, patcher, random_weights, reports, unet_config

PACK = "ComfyUI_InstantID"
LAYOUT = {
    "channel_mult": [1, 2, 4],
    "num_res_blocks": [2, 2, 2],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_middle": 10,
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
}
LAYERS = 70
WIDTH, FACE = 64, 512
"""Of the resampler, in place of 1280, and of what the pack reads of a face."""


@cache
def _model() -> ModelPatcher:
    config = unet_config() | LAYOUT
    return patcher(config, random_weights(UNetModel(**config)))


def _sdxl() -> ModelPatcher:
    return _model().clone()


@cache
def _adapter() -> SunAdapter:
    layers = cross_attention_layers(_model().model.diffusion_model)
    made = SunAdapter(AdapterLayout({layer.number: (layer.hidden_dim, layer.context_dim) for layer in layers}, False))
    matrices = {key: weight for key, weight in random_weights(made).items() if weight.ndim == 2}
    made.load_state_dict(matrices, strict=False)  # alpha 1 and beta 0 stay
    return made.requires_grad_(False)


def _sped_up(onto: ModelPatcher, strength: float = 1.0) -> ModelPatcher:
    return apply_sun(onto, _adapter(), SunSettings(strength, strength), report=reports.append)


@cache
def _instant_id() -> Any:
    """Make an InstantID with random weights, by the pack's own class."""
    pack = module_of(PACK, "InstantID")
    context = unet_config()["context_dim"]
    layers = cross_attention_layers(_model().model.diffusion_model)
    kv = {
        f"{2 * number + 1}.to_{part}_ip.weight": torch.zeros(layer.hidden_dim, context)
        for number, layer in enumerate(layers)
        for part in "kv"
    }
    sizes = {"dim": WIDTH, "embedding_dim": FACE, "output_dim": context}
    resampler = pack.Resampler(**sizes, depth=4, dim_head=64, heads=20, num_queries=16, ff_mult=4)
    made = pack.InstantID({"image_proj": resampler.state_dict(), "ip_adapter": kv}, WIDTH, context, FACE, 16)
    made.load_state_dict(random_weights(made))
    return made.requires_grad_(False)


def _face_analysis() -> Any:
    """Find one face in every picture, which the pack asks insightface for."""
    embedding = torch.randn(FACE, generator=torch.Generator().manual_seed(0)).numpy()
    face = {"bbox": numpy.array([0, 0, 128, 128]), "embedding": embedding}
    return SimpleNamespace(det_model=SimpleNamespace(input_size=None), get=lambda picture: [face])


def _attention(onto: ModelPatcher) -> ModelPatcher:
    return call("InstantIDAttentionPatch", _instant_id(), _face_analysis(), PICTURE, onto, 1.0, 0.0, 1.0)[0]


def _row(way: Way, section: str) -> Row:
    measure = partial(both_orders, way, on_model(_attention), _sdxl, layers=LAYERS)
    return Row("InstantID Patch Attention, on SDXL's layout", "both", measure, "test_neighbours.py", section)


ROWS = {PACK: [_row(Way(_sped_up, lambda onto: _sped_up(onto, 1e-9)), "works"), _row(NEGATIVE, "negative")]}
