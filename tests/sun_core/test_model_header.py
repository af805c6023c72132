"""What a model file's header tells, held against the U-Nets that ComfyUI builds. No weights: they are on `meta`."""

import comfy.ops
import comfy.utils
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from safetensors.torch import save_file
from sun_pack.sun_core.adapter import unet_layout
from sun_pack.sun_core.layers import cross_attention_layers
from sun_pack.sun_core.model_header import model_header, read_model_header

from .unet_configs import SD2, SD15, SDXL

SVD = "model.diffusion_model.input_blocks.1.1"
CONFIGS = {"Stable Diffusion 1.x": SD15, "Stable Diffusion 2.x": SD2, "SDXL": SDXL}


def built(config):
    return UNetModel(**config, device="meta", operations=comfy.ops.disable_weight_init)


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", "unet.", ""])
@pytest.mark.parametrize("family", CONFIGS)
def test_a_header_gives_the_layers_of_the_unet(family, prefix):
    unet = built(CONFIGS[family])
    shapes = {prefix + key: tuple(weight.shape) for key, weight in unet.state_dict().items()}
    header = model_header(list(shapes), {key: shape for key, shape in shapes.items() if "attn2.to_k" in key})
    assert header.family == family
    assert header.layout.layers == unet_layout(cross_attention_layers(unet)).layers


@pytest.mark.parametrize("family", CONFIGS)
def test_the_names_of_diffusers_give_the_same_layers(family):
    unet = built(CONFIGS[family])
    state = unet.state_dict()
    names = comfy.utils.unet_to_diffusers(CONFIGS[family])
    shapes = {name: tuple(state[key].shape) for name, key in names.items() if key in state}
    header = model_header(list(shapes), {name: shape for name, shape in shapes.items() if "attn2.to_k" in name})
    assert header.layout.layers == unet_layout(cross_attention_layers(unet)).layers


def test_a_file_is_read_by_its_header(reference_folder, reference_unet):
    header = read_model_header(reference_folder / "unet_ldm_fp16.safetensors")
    layers = cross_attention_layers(reference_unet)
    assert header.layout.layers == unet_layout(layers).layers


@pytest.mark.parametrize(
    ("keys", "family"),
    [
        ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "Flux"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "SD3"),
        ("blocks.0.cross_attn.k.weight", "transformer"),
        ("transformer_blocks.0.attn2.to_k.weight", "transformer"),
        (f"{SVD}.transformer_blocks.0.attn2.to_k.weight {SVD}.time_stack.0.attn2.to_k.weight", "video"),
        ("encoder.conv_in.weight", "no U-Net"),
    ],
)
def test_what_has_no_place_for_sun_is_named(tmp_path, keys, family):
    path = tmp_path / "model.safetensors"
    save_file({key: torch.zeros(4, 4) for key in keys.split()}, path)
    header = read_model_header(path)
    assert header.layout is None and family in header.family


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04pickle", b"\xff" * 64])
def test_a_file_that_cannot_be_read_is_unknown(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert read_model_header(path) is None
    assert read_model_header(tmp_path / "gone.safetensors") is None
