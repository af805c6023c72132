"""The layout of the released adapter, at its full size, on a full-size SD1.5 U-Net; all weights random."""

import comfy.sample
import comfy.samplers
import comfy.supported_models
import pytest
import torch
from sun_pack.sun_core.adapter import SunAdapter, load_adapter, save_adapter
from sun_pack.sun_core.apply import apply_sun
from sun_pack.sun_core.settings import SunSettings

from .unet_configs import SD15

pytestmark = pytest.mark.slow


def randomise(module):
    """Fills all parameters from one small buffer of noise: 860 million draws would take half a minute."""
    noise = torch.randn(999_983, generator=torch.Generator().manual_seed(0)) * 0.02
    for parameter in module.parameters():
        flat = parameter.data.view(-1)
        for start in range(0, len(flat), len(noise)):
            part = flat[start : start + len(noise)]
            part.copy_(noise[: len(part)])


@pytest.fixture(scope="module")
def full_size_model(new_model):
    model = new_model(SD15, family=comfy.supported_models.SD15, dtype=torch.bfloat16)
    randomise(model.model.diffusion_model)
    return model


def test_released_layout_loads_and_patches(full_size_model, tmp_path):
    adapter = SunAdapter.for_unet(full_size_model.model.diffusion_model)
    randomise(adapter)
    path = tmp_path / "full_size.safetensors"
    save_adapter(adapter, path, {})
    loaded = load_adapter(path)
    assert len(loaded.layout.layers) == 16 and loaded.layout.family == "Stable Diffusion 1.x"
    assert sum(parameter.numel() for parameter in loaded.parameters()) == 38_388_480
    assert round(path.stat().st_size / 1e6, 1) == 76.8

    conds = [[[torch.randn(1, 77, 768), {}]] for _ in range(2)]
    noise, sigmas = torch.randn(1, 4, 8, 8), torch.tensor([14.6146, 0.0])

    def sample(model):
        sampler = comfy.samplers.sampler_object("euler")
        return comfy.sample.sample_custom(model, noise, 1.0, sampler, sigmas, *conds, torch.zeros_like(noise), seed=0)

    sun, plain = sample(apply_sun(full_size_model, loaded, SunSettings())), sample(full_size_model)
    assert sun.isfinite().all() and not torch.equal(sun, plain)
