"""Write trained stages as the files that ComfyUI loads: a whole checkpoint, and U-Nets alone for the community
styles. fp16.
"""

from pathlib import Path

import torch
from autoencoder import LATENT_MEAN, LATENT_STD, Autoencoder, padded_state_dict
from models import MiniModel
from safetensors.torch import save_file
from torch import Tensor

LATENT_SCALE = 0.18215  # SD1.5's: ComfyUI multiplies by it what the autoencoder gives


def halves(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    return {prefix + key: value.detach().half().contiguous() for key, value in state.items()}


def write_checkpoint(model: MiniModel, autoencoder: Autoencoder, out: Path) -> None:
    """A checkpoint in Stable Diffusion's key layout, for CheckpointLoaderSimple."""
    scale = LATENT_SCALE * LATENT_STD  # TAESD in ComfyUI gives latents / vae_scale + vae_shift
    vae = padded_state_dict(autoencoder)
    vae |= {"vae_scale": torch.tensor(scale), "vae_shift": torch.tensor(-LATENT_MEAN / scale)}
    state = (
        halves(model.unet.state_dict(), "model.diffusion_model.")
        | halves(model.text.state_dict(), "cond_stage_model.transformer.")
        | halves(vae, "first_stage_model.")
    )
    save_file(state, out, metadata={"format": "pt", "modelspec.title": "mini storybook"})


def write_unet(model: MiniModel, title: str, out: Path) -> None:
    """A U-Net alone, for UNETLoader; it is used with the checkpoint's CLIP and VAE."""
    save_file(
        halves(model.unet.state_dict(), "model.diffusion_model."),
        out,
        metadata={"format": "pt", "modelspec.title": title},
    )


def write_judge(checkpoint: Path, out: Path) -> None:
    """The network that measures pictures."""
    save_file(halves(torch.load(checkpoint, weights_only=True)["ema"]), out, metadata={"format": "pt"})
