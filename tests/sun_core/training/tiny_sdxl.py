"""An SDXL in all but its size, and what its text encoders give: the real one cannot be had here."""

import comfy.model_base
import comfy.model_patcher
import comfy.supported_models
import torch

CPU = torch.device("cpu")


def tiny_sdxl(unet_config: dict) -> comfy.model_patcher.ModelPatcher:
    """Make a MODEL with random weights from the reference family's configuration."""
    generator = torch.Generator().manual_seed(0)
    config = dict(unet_config) | {
        "channel_mult": [1, 2], "num_res_blocks": [1, 1], "transformer_depth": [0, 2], "transformer_depth_middle": 2,
        "transformer_depth_output": [0, 0, 2, 2], "adm_in_channels": 2816, "num_classes": "sequential",
        "use_linear_in_transformer": True, "dtype": torch.float32,
    }  # fmt: skip
    base = comfy.model_base.SDXL(comfy.supported_models.SDXL(config), device=CPU).requires_grad_(False)
    for parameter in base.diffusion_model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return comfy.model_patcher.ModelPatcher(base.eval(), CPU, CPU)


class SdxlClip:
    """Gives random numbers in the shapes of SDXL's text encoders."""

    cond_stage_model = torch.nn.Linear(1, 1)

    def tokenize(self, text):
        return text

    def encode_from_tokens_scheduled(self, text):
        generator = torch.Generator().manual_seed(len(text))
        pooled = torch.randn(1, 1280, generator=generator)
        return [[torch.randn(1, 77, 48, generator=generator), {"pooled_output": pooled}]]
