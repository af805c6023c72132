"""Where the mini family's files lie."""

from pathlib import Path

from .. import REPOSITORY

WORK = REPOSITORY / "build" / "mini"
WEIGHTS = REPOSITORY / "demo" / "mini_family" / "weights"
BASE, ADAPTER = WEIGHTS / "mini-storybook.safetensors", WEIGHTS / "sun_mini_4step.safetensors"
JUDGE = WEIGHTS / "judge.safetensors"
LCM_LORA = WEIGHTS / "mini-lcm-lora.safetensors"
COMMUNITY = {"comic": "Mini Comic"}
LORAS = {"pencil": "Mini Pencil"}
STYLES = ("storybook", *COMMUNITY, *LORAS)


def community_unet(style: str) -> Path:
    """Return the file of a full fine-tune's U-Net."""
    return WEIGHTS / f"mini-{style}.safetensors"


def lora_file(style: str) -> Path:
    """Return the file of a style that is a LoRA."""
    return WEIGHTS / f"mini-{style}-lora.safetensors"
