"""Regional prompts: packs that change what a block attends to, place by place."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

from .packs import call, module_of
from .rows import Check, Row, acting, in_both_nodes
from .small_model import NEGATIVE, SPEED_UP, Conditioning, Way, prompt

PIXELS = 128
"""Width of the pictures, of latents of 16 x 16."""


def half(side: str, size: int = PIXELS) -> torch.Tensor:
    """Return a mask of the left or the right half of the picture."""
    mask = torch.zeros(1, size, size)
    columns = slice(None, size // 2) if side == "left" else slice(size // 2, None)
    mask[..., columns] = 1.0
    return mask


def _masked(name: str, side: str) -> Conditioning:
    return prompt(name, mask=half(side), mask_strength=1.0, strength=1.0)


def _attention_couple_2024(onto: ModelPatcher, positive: Conditioning, negative: Conditioning) -> Any:
    regions = _masked("pos0", "left") + _masked("pos1", "right")
    return call("Attention couple", onto, copy.deepcopy(regions), negative, "Attention")


def _comfy_couple(onto: ModelPatcher, positive: Conditioning, negative: Conditioning) -> Any:
    return call(
        "Comfy Couple", onto, prompt("pos0"), prompt("pos1"), negative, "horizontal", 0.5, PIXELS, PIXELS
    )  # fmt: skip


def _attention_couple_cgem156(onto: ModelPatcher, positive: Conditioning, negative: Conditioning) -> Any:
    regions = {"cond_1": prompt("pos1"), "mask_1": half("right", 16)}
    made = call("AttentionCouple|cgem156", model=onto, base_mask=half("left", 16), **regions)
    return made[0], positive, negative


def _attention_couple_ppm(onto: ModelPatcher, positive: Conditioning, negative: Conditioning) -> Any:
    regions = {"cond_1": prompt("pos1"), "mask_1": half("right")}
    made = call("AttentionCouplePPM", model=onto, base_cond=positive, base_mask=half("left"), **regions)
    return made[0], positive, negative


def _prompt_control(onto: ModelPatcher, positive: Conditioning, negative: Conditioning) -> Any:
    couple = module_of("comfyui-prompt-control", "prompt_control.attention_couple_ppm").set_cond_attnmask
    regional = couple(_masked("pos0", "left"), _masked("pos1", "right"))
    return onto, regional, negative


def _dense_diffusion(onto: ModelPatcher, positive: Conditioning, negative: Conditioning) -> Any:
    for name, side in (("pos0", "left"), ("pos1", "right")):
        (onto,) = call("DenseDiffusionAddCondNode", onto, prompt(name), 1.0, half(side))
    placed, regional = call("DenseDiffusionApplyNode", onto)
    return placed, regional, negative


def _regions_attention_mask(onto: ModelPatcher, positive: Conditioning, negative: Conditioning) -> Any:
    regions = None
    for name, side in (("pos0", "left"), ("pos1", "right")):
        (regions,) = call("ETN_DefineRegion", half(side), prompt(name), regions)
    return call("ETN_AttentionMask", onto, regions)[0], positive, negative


def _in_conditioning(way: Way) -> Iterator[Check]:
    yield from acting(way, _prompt_control)


ROWS = {
    "attention-couple-ComfyUI": in_both_nodes("Attention couple", _attention_couple_2024, "test_neighbours.py"),
    "ComfyUI-ComfyCouple": in_both_nodes("Comfy Couple", _comfy_couple, "test_neighbours.py"),
    "cgem156-ComfyUI": in_both_nodes("Attention Couple", _attention_couple_cgem156, "test_regions.py"),
    "ComfyUI-ppm": in_both_nodes("Attention Couple (PPM)", _attention_couple_ppm, "test_regions.py"),
    "comfyui-prompt-control": [
        Row("COUPLE", "on the prompt", lambda: _in_conditioning(SPEED_UP), "test_regions.py"),
        Row("COUPLE", "on the prompt", lambda: _in_conditioning(NEGATIVE), "test_regions.py", "negative"),
    ],
    "comfyui-tooling-nodes": in_both_nodes("Regions Attention Mask", _regions_attention_mask, "test_regions.py"),
    "ComfyUI_densediffusion": in_both_nodes("DenseDiffusion", _dense_diffusion, "test_neighbours.py"),
}
