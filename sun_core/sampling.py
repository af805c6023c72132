"""The 4-step sampler on top of ComfyUI's samplers, for those who want no automatic settings."""

from typing import Any

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .apply import has_sun
from .errors import SunError
from .schedule import trailing_sigmas

SAMPLER_NAMES = ("ddim", "dpmpp_2m")


def model_sigmas(model: ModelPatcher, steps: int, denoise: float = 1.0) -> Tensor:
    """Return the trailing sigmas of `model`: (steps + 1,), falling to 0."""
    return trailing_sigmas(model.get_model_object("model_sampling").sigmas, steps, denoise)


def sample_sun(
    model: ModelPatcher,
    seed: int,
    steps: int,
    sampler_name: str,
    positive: list,
    negative: list,
    latent: dict[str, Any],
    denoise: float = 1.0,
) -> dict[str, Any]:
    """Sample `latent` (ComfyUI's LATENT) without CFG on trailing sigmas; raises SunError on a MODEL without SUN."""
    if not has_sun(model):
        raise SunError(
            "This MODEL has no SUN adapter, without which 4 steps give no picture; put SUN 4-Step Speed-Up or Apply "
            "SUN Adapter before this sampler."
        )
    samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    noise = comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))
    sampled = comfy.sample.sample_custom(
        model,
        noise,
        cfg=1.0,
        sampler=comfy.samplers.sampler_object(sampler_name),
        sigmas=model_sigmas(model, steps, denoise),
        positive=positive,
        negative=negative,
        latent_image=samples,
        noise_mask=latent.get("noise_mask"),
        callback=latent_preview.prepare_callback(model, steps),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return {**latent, "samples": sampled}
