"""Which MODELs can be the teacher."""

import hashlib

import comfy.model_sampling
from comfy.model_patcher import ModelPatcher
from torch import nn

from ..apply import has_sun
from ..errors import SunError
from ..layers import cross_attention_layers

TIMESTEPS = 1000  # LCM's schedule has 50, and its prediction is not the noise


def check_teacher(model: ModelPatcher) -> None:
    """Raise SunError if no adapter can be distilled on this MODEL."""
    sampling, base = model.get_model_object("model_sampling"), model.model
    if not cross_attention_layers(base.diffusion_model):
        raise SunError(
            "This MODEL has no U-Net with cross-attention (it looks like Flux, SD3 or another transformer), so no SUN "
            "adapter can be trained for it; connect a Stable Diffusion 1.5, 2 or SDXL checkpoint."
        )
    if has_sun(model):
        raise SunError(
            "This MODEL has a SUN adapter on it already, and the teacher must be the plain model; connect the MODEL "
            "from before that node."
        )
    kinds = comfy.model_sampling
    predicts_noise = isinstance(sampling, kinds.EPS) and not isinstance(sampling, (kinds.X0, kinds.EDM))
    if not isinstance(sampling, kinds.ModelSamplingDiscrete) or not predicts_noise or len(sampling.sigmas) != TIMESTEPS:
        raise SunError(
            "This MODEL's noise schedule is not Stable Diffusion's (1000 timesteps, eps or v prediction), which SUN "
            "needs; connect the MODEL without a ModelSampling node, or another checkpoint."
        )
    if base.concat_keys or base.diffusion_model.in_channels != base.latent_format.latent_channels:
        raise SunError(
            "This MODEL is for inpainting or editing and takes a picture beside the latent; train on the checkpoint "
            "that it was made from, because that adapter fits it too."
        )


def key_shapes_hash(unet: nn.Module) -> str:
    """Hash the names and shapes of a U-Net's weights (16 hex digits), which fine-tunes of one family share."""
    shapes = sorted(f"{key} {tuple(tensor.shape)}" for key, tensor in unet.state_dict().items())
    return hashlib.sha256("\n".join(shapes).encode()).hexdigest()[:16]
