"""What a sampler's guider holds: its conditionings, and one that takes the place of its negative."""

import uuid
from collections.abc import Hashable
from typing import Any

import comfy.sampler_helpers
import comfy.samplers
from torch import Tensor

from .conditioning import area_as_mask


def node_of(guider: Any) -> str:
    """Return the node that made a guider, as an artist knows it."""
    return {"Guider_Basic": "BasicGuider"}.get(type(guider).__name__, type(guider).__name__)


def turn_negative_areas_into_masks(guider: Any, noise: Tensor) -> None:
    """Keep ComfyUI from evaluating the positive once more, on a cut-out, for each area of a negative."""
    if conds := guider.conds.get("negative"):
        guider.conds["negative"] = [area_as_mask(cond, noise.shape[2:]) for cond in conds]


def give_negatives_own_uuids(guider: Any) -> frozenset[Hashable]:
    """Give each negative of the guider a new uuid, and return all of these.

    If the positive has an area, ComfyUI adds a negative entry for it that carries the positive's uuid.
    """
    uuids = set()
    for name, conds in guider.conds.items():
        if "negative" in name:
            guider.conds[name] = [{**cond, "uuid": uuid.uuid4()} for cond in conds]
            uuids |= {cond["uuid"] for cond in guider.conds[name]}
    return frozenset(uuids)


def unused_prompts(guider: Any, evaluated_names: set[Hashable]) -> list[str]:
    """Name a guider's prompts, apart from positive and negative, of which no entry was evaluated."""
    return [
        name
        for name, conds in guider.conds.items()
        if conds and name != "positive" and "negative" not in name
        if not evaluated_names.intersection(cond["uuid"] for cond in conds)
    ]


def names_of(guider: Any, name: str) -> frozenset[Hashable]:
    """Return the names (uuids) of the entries of one conditioning, such as "positive"."""
    return frozenset(cond["uuid"] for cond in guider.conds.get(name, ()))


def processed_negative(
    base_model: Any, conditioning: list, noise: Tensor, latent_image: Tensor | None, denoise_mask: Tensor | None
) -> list[dict]:
    """Process a CONDITIONING as ComfyUI's sampling does its own, apart from what acts outside of the words."""
    conds = [area_as_mask(cond, noise.shape[2:]) for cond in comfy.sampler_helpers.convert_cond(conditioning)]
    for cond in conds:
        for outside in ("control", "gligen", "hooks"):
            cond.pop(outside, None)
    conds_of = comfy.samplers.process_conds(
        base_model, noise, {"negative": conds}, noise.device, latent_image, denoise_mask
    )
    return conds_of["negative"]
