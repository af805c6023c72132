"""The stages that make the mini family, in their order. Each resumes from its checkpoint under build/mini."""

from collections.abc import Callable
from functools import partial

from . import adapter, autoencoder, base, dataset, export, judge, lora, trajectories
from .files import (
    ADAPTER,
    BASE,
    COMMUNITY,
    JUDGE,
    LORAS,
    WEIGHTS,
    WORK,
    community_unet,
    lora_file,
)

PICTURES_PER_SCENE, STYLE_PICTURES_PER_SCENE = 60, 10
TRAJECTORIES = 2500


def train_autoencoder() -> None:
    """Learn to reconstruct pictures in free styles and colours."""
    autoencoder.train(WORK / "autoencoder.pt")


def sharpen_decoder() -> None:
    """Train the decoder further, alone."""
    autoencoder.sharpen(WORK / "autoencoder.pt", WORK / "decoder.pt")


def train_judge() -> None:
    """Learn to name what a picture shows."""
    judge.train(autoencoder.load(WORK / "autoencoder.pt", WORK / "decoder.pt"), WORK / "judge.pt")


def make_latents(style: str, per_scene: int) -> None:
    """Draw and encode the pictures that the U-Net of a style learns from."""
    out = WORK / f"latents-{style}.pt"
    if not out.exists():
        dataset.make_latents(autoencoder.load(WORK / "autoencoder.pt"), style, per_scene, out)


def train_base() -> None:
    """Train the base model: U-Net and text encoder."""
    base.train(WORK / "latents-storybook.pt", WORK / "base.pt")


def train_adapter() -> None:
    """Distil the adapter with MSC and CFG distillation."""
    adapter.train(WORK / "latents-storybook.pt", WORK / "base.pt", WORK / "adapter.pt")


def make_trajectories() -> None:
    """Draw the teacher's ways from noise to picture."""
    out = WORK / "trajectories.pt"
    if not out.exists():
        trajectories.make(WORK / "base.pt", TRAJECTORIES, out)


def follow_trajectories() -> None:
    """Train the adapter further, along those ways."""
    adapter.follow(
        *(WORK / "latents-storybook.pt", WORK / "trajectories.pt", WORK / "base.pt"),
        *(WORK / "adapter.pt", WORK / "adapter-follow.pt"),
    )


def fine_tune(style: str) -> None:
    """Fine-tune the base's U-Net in a style."""
    make_latents(style, STYLE_PICTURES_PER_SCENE)
    base.train(WORK / f"latents-{style}.pt", WORK / f"style-{style}.pt", start=WORK / "base.pt")


def train_lora(style: str) -> None:
    """Train a LoRA of a style."""
    make_latents(style, STYLE_PICTURES_PER_SCENE)
    lora.train(WORK / f"latents-{style}.pt", WORK / "base.pt", WORK / f"lora-{style}.pt")


STAGES: dict[str, Callable[[], None]] = {
    "autoencoder": train_autoencoder,
    "sharpen": sharpen_decoder,
    "latents": partial(make_latents, "storybook", PICTURES_PER_SCENE),
    "judge": train_judge,
    "base": train_base,
    "adapter": train_adapter,
    "trajectories": make_trajectories,
    "follow": follow_trajectories,
    **{f"style-{style}": partial(fine_tune, style) for style in COMMUNITY},
    **{f"lora-{style}": partial(train_lora, style) for style in LORAS},
}
"""Each runs in several processes at once."""


def export_all() -> None:
    """Write every file of the family, apart from the LCM-LoRA, which scripts/evidence.py trains."""
    WEIGHTS.mkdir(parents=True, exist_ok=True)
    vae = autoencoder.load(WORK / "autoencoder.pt", WORK / "decoder.pt")
    export.write_checkpoint(base.load(WORK / "base.pt"), vae, BASE)
    for style, title in COMMUNITY.items():
        export.write_unet(base.load(WORK / f"style-{style}.pt"), title, community_unet(style))
    for style, title in LORAS.items():
        lora.export(WORK / "base.pt", WORK / f"lora-{style}.pt", title, lora_file(style))
    adapter.export(WORK / "base.pt", WORK / "adapter-follow.pt", ADAPTER)
    export.write_judge(WORK / "judge.pt", JUDGE)
