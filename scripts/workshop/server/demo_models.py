"""What the demo draws with: a checkpoint, its adapter and perhaps a LoRA, with prompts and settings that suit them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import REPOSITORY

MINI_FAMILY = REPOSITORY / "demo" / "mini_family"


@dataclass(frozen=True)
class Models:
    """The files, and what to draw with them: sizes in pixels, guidance scale, prompts."""

    checkpoint: Path
    adapter: Path
    lora: Path | None
    lcm_lora: Path | None
    width: int
    height: int
    cfg: float
    seed: int
    positive: str
    negative: str
    changed_negative: str
    negatives: Sequence[str]  # four that make a difference, for the negative-prompt playground
    image_positive: str  # for image to image, over the picture that `positive` gave
    repaint_positive: str  # for inpainting, in the middle of that picture
    painting_positive: str  # over the rough painting
    first_pass: int  # pixels of the hires fix's first pass
    enlarge: float  # and how much larger the second one is
    training: dict[str, Any]  # settings of Train SUN Adapter that differ from the workflow's
    note: str = ""  # what the times do not show


def mini_family() -> Models:
    """Return the miniature Stable Diffusion of this repository."""
    chosen = json.loads((MINI_FAMILY / "defaults.json").read_text(encoding="utf-8"))
    weights = MINI_FAMILY / "weights"
    files = {name: weights / chosen.pop(name) for name in ("checkpoint", "adapter", "lora", "lcm_lora")}
    note = "With so small a model ComfyUI's own work counts; scripts/bench.py measures a full-size one."
    return Models(**files, **chosen, note=note)


def full_size(checkpoint: Path, adapter: Path) -> Models:
    """Return a user's Stable Diffusion 1.5 checkpoint with settings for it."""
    return Models(
        checkpoint=checkpoint,
        adapter=adapter,
        lora=None,
        lcm_lora=None,
        width=512,
        height=512,
        cfg=7.0,
        seed=42,
        positive="a cottage by a lake, flowers, mountains, oil painting",
        negative="people, text, blurry",
        changed_negative="flowers, mountains, people, text, blurry",
        negatives=("", "flowers", "mountains", "lake, water"),
        image_positive="a cottage by a lake in winter, snow, oil painting",
        repaint_positive="a castle by a lake, oil painting",
        painting_positive="a red mushroom in a meadow, oil painting",
        first_pass=512,
        enlarge=1.5,
        training={},
    )
