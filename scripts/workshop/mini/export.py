"""Write trained stages as the files that ComfyUI loads: a whole checkpoint in fp16, and U-Nets of community styles."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from .autoencoder import LATENT_MEAN, LATENT_STD, Autoencoder
from .loop import averaged
from .networks import MiniModel

LATENT_SCALE = 0.18215  # SD1.5's: ComfyUI multiplies by it what the autoencoder gives


def halves(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Bring weights to fp16 and put `prefix` before their names."""
    return {prefix + key: value.detach().half().contiguous() for key, value in state.items()}


def write_checkpoint(model: MiniModel, autoencoder: Autoencoder, out: Path) -> None:
    """Write a checkpoint in Stable Diffusion's key layout, for CheckpointLoaderSimple."""
    scale = LATENT_SCALE * LATENT_STD  # TAESD in ComfyUI gives latents / vae_scale + vae_shift
    vae = autoencoder.state_dict() | {"vae_scale": torch.tensor(scale), "vae_shift": torch.tensor(-LATENT_MEAN / scale)}
    state = (
        halves(model.unet.state_dict(), "model.diffusion_model.")
        | halves(model.text.state_dict(), "cond_stage_model.transformer.")
        | halves(vae, "first_stage_model.")
    )
    save_file(state, out, metadata={"format": "pt", "modelspec.title": "mini storybook"})


def write_unet(model: MiniModel, title: str, out: Path) -> None:
    """Write a U-Net alone, for UNETLoader, to use with the checkpoint's CLIP and VAE; fp8, as fine-tunes are shared."""
    state = halves(model.unet.state_dict(), "model.diffusion_model.")
    eighths = {key: value.to(torch.float8_e4m3fn) if value.ndim > 1 else value for key, value in state.items()}
    save_file(eighths, out, metadata={"format": "pt", "modelspec.title": title})


def write_judge(checkpoint: Path, out: Path) -> None:
    """Write the network that measures pictures."""
    save_file(halves(averaged(checkpoint)), out, metadata={"format": "pt"})
