import torch
from sun_pack.sun_core.layers import cross_attention_layers

from .unet_configs import SD15, SDXL

MINI = SD15 | {
    "model_channels": 64,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "context_dim": 64,
}


def layers_of(unet_config):
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    return cross_attention_layers(UNetModel(**unet_config, device="meta"))


def test_reference_unet_is_numbered_like_official_code(reference, reference_unet):
    layers = cross_attention_layers(reference_unet)
    assert {layer.number: layer.block for layer in layers} == reference.blocks


def test_sd15_has_the_layers_of_the_released_adapter():
    layers = layers_of(SD15)
    inputs = {1: ("input", 1), 3: ("input", 2), 5: ("input", 4), 7: ("input", 5), 9: ("input", 7), 11: ("input", 8)}
    outputs = {13 + 2 * i: ("output", 3 + i) for i in range(9)}
    assert {layer.number: layer.block for layer in layers} == inputs | outputs | {31: ("middle", 0)}
    assert [layer.hidden_dim for layer in layers] == [320] * 2 + [640] * 2 + [1280] * 5 + [640] * 3 + [320] * 3 + [1280]
    assert {layer.context_dim for layer in layers} == {768}
    assert {layer.depth for layer in layers} == {1}


def test_mini_family_comes_out_by_the_same_rule():
    layers = layers_of(MINI)
    assert [layer.block for layer in layers] == [
        ("input", 1),
        ("input", 3),
        ("output", 0),
        ("output", 1),
        ("output", 2),
        ("output", 3),
        ("middle", 0),
    ]
    assert [layer.hidden_dim for layer in layers] == [64, 128, 128, 128, 64, 64, 128]


def test_sdxl_blocks_hold_several_layers_each():
    layers = layers_of(SDXL)
    assert len(layers) == 70
    assert [(layer.block, layer.depth_index, layer.depth) for layer in layers[:5]] == [
        (("input", 4), 0, 2),
        (("input", 4), 1, 2),
        (("input", 5), 0, 2),
        (("input", 5), 1, 2),
        (("input", 7), 0, 10),
    ]
    assert layers[-1].block == ("middle", 0) and layers[-1].depth_index == 9


def test_model_without_unet_has_no_layers():
    assert cross_attention_layers(torch.nn.Sequential(torch.nn.Linear(1, 1))) == []
