"""ComfyUI's own nodes on the MODEL line, before SUN and after it, and its ways to compute attention."""

import comfy.hooks
import comfy.ldm.modules.attention
import comfy.sd
import pytest
import torch
from comfy_extras import nodes_freelunch, nodes_hypertile, nodes_model_downscale, nodes_model_merging, nodes_tomesd
from sun_pack.sun_core.apply import SunSettings, apply_sun


def call(node, *args):
    """Execute a node, of the new kind or of the old one."""
    made = node.execute(*args) if hasattr(node, "execute") else getattr(node(), node.FUNCTION)(*args)
    return getattr(made, "args", made)[0]


@pytest.fixture(scope="module")
def other_model(reference_model, new_model, reference):
    """Another checkpoint of the same family."""
    other = new_model(reference.unet_config)
    weights = reference_model.model.diffusion_model.state_dict()
    generator = torch.Generator().manual_seed(0)
    changed = {key: w * (1 + 0.1 * torch.randn(w.shape, generator=generator)) for key, w in weights.items()}
    other.model.diffusion_model.load_state_dict(changed)
    return other


@pytest.fixture(params=["FreeU", "HyperTile", "ToMe", "deep shrink", "merge"])
def node(request, other_model):
    """Puts a node behind a MODEL."""
    return {
        "FreeU": lambda model: call(nodes_freelunch.FreeU_V2, model, 1.3, 1.4, 0.9, 0.2),
        "HyperTile": lambda model: call(nodes_hypertile.HyperTile, model, 32, 2, 0, False),
        "ToMe": lambda model: call(nodes_tomesd.TomePatchModel, model, 0.3),
        "deep shrink": lambda model: call(
            nodes_model_downscale.PatchModelAddDownscale, model, 3, 2.0, 0.0, 0.35, True, "bicubic", "bicubic"
        ),
        "merge": lambda model: call(nodes_model_merging.ModelMergeSimple, model, other_model, 0.5),
    }[request.param]


def test_node_and_sun_both_work_in_either_order(model, adapter, sample, difference, node):
    """Merges keep SUN of their first MODEL."""
    reports = []

    def sun(onto, strength=1.0):
        return apply_sun(onto, adapter, SunSettings(strength, strength), report=reports.append)

    def drawn(model):
        torch.manual_seed(0)  # HyperTile and ToMe draw from the global generator
        return sample(model)

    after = drawn(node(sun(model)))
    assert (reports[0].evaluations, reports[0].acted, reports[0].layers) == (4, 16, 16)
    assert list(reports[0].findings) == []
    assert difference(drawn(sun(node(model))), after) < 1e-5
    assert difference(drawn(sun(model)), after) > 1e-3, "the node works"
    assert difference(drawn(node(sun(model, strength=1e-9))), after) > 0.05, "SUN works"


@pytest.mark.parametrize("name", ["attention_split", "attention_sub_quad", "attention_basic", "attention_pytorch"])
def test_every_way_to_compute_attention_gives_the_same_picture(
    model, adapter, sample, difference, monkeypatch, reference_model, name
):
    sun = apply_sun(model, adapter, SunSettings())
    expected = sample(sun)
    monkeypatch.setattr(comfy.ldm.modules.attention, "optimized_attention", getattr(comfy.ldm.modules.attention, name))
    assert difference(sample(sun), expected) < 1e-4


def test_weights_of_8_bits_are_computed_as_they_are(model, adapter, new_model, reference, sample, difference):
    """Equal to the same rounded weights in 32 bits."""

    class SmallWeights(type(model.model.model_config)):
        manual_cast_dtype = torch.float32

    weights = model.model.diffusion_model.state_dict()
    small = new_model(reference.unet_config, SmallWeights, torch.float8_e4m3fn)
    small.model.diffusion_model.load_state_dict(weights)
    rounded = new_model(reference.unet_config)
    rounded.model.diffusion_model.load_state_dict(
        {key: weight.to(torch.float8_e4m3fn).float() for key, weight in weights.items()}
    )
    expected = sample(apply_sun(rounded, adapter, SunSettings()))
    assert difference(sample(apply_sun(small, adapter, SunSettings())), expected) < 1e-4
    assert difference(sample(rounded), expected) > 0.05, "SUN works"


def test_lora_hook_on_both_prompts_is_the_lora_on_the_model(model, adapter, sample, conditioning, difference):
    layer = "middle_block.1.transformer_blocks.0.attn2.to_k"
    out, tokens = model.model.state_dict()[f"diffusion_model.{layer}.weight"].shape
    generator = torch.Generator().manual_seed(0)
    lora = {
        f"lora_unet_{layer.replace('.', '_')}.lora_{part}.weight": torch.randn(shape, generator=generator)
        for part, shape in (("up", (out, 2)), ("down", (2, tokens)))
    }
    sun = apply_sun(model, adapter, SunSettings())
    with_lora = comfy.sd.load_lora_for_models(sun, None, lora, 0.5, 0.0)[0]
    hooks = comfy.hooks.create_hook_lora(lora, 0.5, 0.0)
    hooked = {side: conditioning(f"{side[:3]}0", hooks=hooks) for side in ("positive", "negative")}
    assert difference(sample(sun, **hooked), sample(with_lora)) < 1e-5
    assert difference(sample(sun), sample(with_lora)) > 1e-4
