"""MODELs and conditionings with random weights: they cost what trained ones do, and their pictures mean nothing."""

from collections.abc import Iterator
from typing import Any

import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
import comfy.model_base
import comfy.model_patcher
import comfy.ops
import comfy.sample
import comfy.sd
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

SD15_UNET: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "context_dim": 768,
    "num_heads": 8,
    "use_spatial_transformer": True,
    "legacy": False,
}
TINY_UNET: dict[str, Any] = SD15_UNET | {"model_channels": 32, "num_heads": 4, "context_dim": 48}
"""The same 16 layers, so small that what the host does is all that counts."""


def random_weights() -> dict[str, Tensor]:
    """Make fp16 weights in the layout of Stable Diffusion 1.5, scaled so that activations stay ordinary numbers."""
    unet = openaimodel.UNetModel(**SD15_UNET, device="meta", operations=comfy.ops.disable_weight_init)
    return dict(_random(unet.state_dict(), torch.float16))


def _random(shapes: dict[str, Tensor], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for key, tensor in shapes.items():
        if tensor.ndim > 1:
            noise = torch.randn(tensor.shape, generator=generator).div_(tensor[0].numel() ** 0.5)
            yield key, noise.to(dtype)
        else:
            yield key, torch.full(tensor.shape, float(key.endswith("weight")), dtype=dtype)


def full_size_model(weights: dict[str, Tensor]) -> ModelPatcher:
    """Load Stable Diffusion 1.5's U-Net as ComfyUI loads a file: it chooses dtype, device and memory management."""
    return comfy.sd.load_diffusion_model_state_dict(dict(weights))


def tiny_model() -> ModelPatcher:
    """Make a U-Net of SD1.5's blocks, 1/10 as wide, on the device that ComfyUI samples on."""
    device = comfy.model_management.get_torch_device()

    class TinyFamily(comfy.supported_models.SD15):
        unet_extra_config = {"num_heads": TINY_UNET["num_heads"], "num_head_channels": -1}  # noqa: RUF012

    model = comfy.model_base.BaseModel(TinyFamily({**TINY_UNET, "dtype": torch.float32}), device=device)
    unet = model.diffusion_model
    unet.load_state_dict(dict(_random(unet.state_dict(), torch.float32)))
    return ModelPatcher(model.eval().requires_grad_(False), device, torch.device("cpu"))


class Sampler:
    """DPM++ 2M on a fixed noise and fixed conditionings (SUN's automatic settings keep it)."""

    def __init__(self, latent_size: int, batch: int, context_dim: int = 768) -> None:
        generator = torch.Generator().manual_seed(0)
        self.latent = torch.zeros(batch, 4, latent_size, latent_size)
        self.noise = torch.randn(self.latent.shape, generator=generator)
        self.positive, self.negative = ([[torch.randn(1, 77, context_dim, generator=generator), {}]] for _ in range(2))

    def __call__(self, model: ModelPatcher, steps: int, cfg: float) -> Tensor:
        """Sample as a KSampler node does."""
        return comfy.sample.sample(
            model,
            self.noise,
            steps,
            cfg,
            sampler_name="dpmpp_2m",
            scheduler="simple",
            positive=self.positive,
            negative=self.negative,
            latent_image=self.latent,
            disable_pbar=True,
        )
