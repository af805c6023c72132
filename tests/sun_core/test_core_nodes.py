"""ComfyUI's own nodes on the MODEL line, before SUN and after it, and its ways to compute attention."""

from types import SimpleNamespace

import comfy.cldm.cldm
import comfy.controlnet
import comfy.hooks
import comfy.ldm.modules.attention
import comfy.sd
import comfy.sd1_clip
import comfy.utils
import latent_preview
import pytest
import torch
from comfy.cli_args import args
from comfy_extras import nodes_freelunch, nodes_hypertile, nodes_model_downscale, nodes_model_merging, nodes_tomesd
from sun_pack.sun_core.apply import apply_negative, apply_sun
from sun_pack.sun_core.settings import NegativeSettings, SunSettings

import nodes


def call(node, *args):
    """Execute a node, of the new kind or of the old one."""
    made = node.execute(*args) if hasattr(node, "execute") else getattr(node(), node.FUNCTION)(*args)
    return getattr(made, "args", made)[0]


@pytest.fixture(scope="module")
def other_model(reference_weights, new_model, reference):
    """Another checkpoint of the same family."""
    other = new_model(reference.unet_config)
    generator = torch.Generator().manual_seed(0)
    changed = {key: w * (1 + 0.1 * torch.randn(w.shape, generator=generator)) for key, w in reference_weights.items()}
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


def test_weights_of_8_bits_are_computed_as_they_are(
    model, adapter, new_model, reference, reference_weights, sample, difference
):
    """Equal to the same rounded weights in 32 bits."""

    class SmallWeights(type(model.model.model_config)):
        manual_cast_dtype = torch.float32

    small = new_model(reference.unet_config, SmallWeights, torch.float8_e4m3fn)
    small.model.diffusion_model.load_state_dict(reference_weights)
    rounded = new_model(reference.unet_config)
    rounded.model.diffusion_model.load_state_dict(
        {key: weight.to(torch.float8_e4m3fn).float() for key, weight in reference_weights.items()}
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


@pytest.fixture(params=["adapter", "no adapter"])
def sun(request, adapter):
    """Puts SUN on a MODEL, with an adapter and without."""
    if request.param == "adapter":
        return lambda onto: apply_sun(onto, adapter, SunSettings())
    return lambda onto: apply_negative(onto, NegativeSettings())


def randomise(module):
    """Give a module weights that keep activations ordinary numbers."""
    generator = torch.Generator().manual_seed(0)
    for weight in module.parameters():
        if weight.ndim > 1:
            weight.data = torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5
        else:
            weight.data = torch.zeros_like(weight)


@pytest.fixture(scope="module")
def control_net(reference):
    """A ControlNet with random weights for the reference U-Net."""
    config = {k: v for k, v in reference.unet_config.items() if k not in ("out_channels", "transformer_depth_output")}
    net = comfy.cldm.cldm.ControlNet(hint_channels=3, dtype=torch.float32, device="cpu", **config)
    randomise(net.requires_grad_(False))
    return comfy.controlnet.ControlNet(net, load_device=torch.device("cpu"))


def test_control_net_steers_sun_and_is_not_changed_by_it(
    model, sun, control_net, sample, conditioning, difference, evaluations
):
    """SUN acts in the U-Net, not in the cross-attention of the ControlNet."""
    picture = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(0))
    outputs = []
    hook = control_net.control_model.register_forward_hook(lambda *given: outputs.append(given[-1]["output"]))

    def drawn(model, negative="neg0", **options):
        outputs.clear()
        apply = nodes.ControlNetApplyAdvanced().apply_controlnet
        conds = apply(conditioning("pos0"), conditioning(negative), control_net, picture, 1.0, 0.0, 1.0)
        return sample(model, positive=conds[0], negative=conds[1], **options)

    try:
        plain = drawn(model)
        first_of_plain = outputs[0]
        both = drawn(sun(model), cfg=7.0)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(outputs[0], first_of_plain, strict=True))
        assert evaluations == [1] * 8, "CFG 7 becomes 1"
        assert difference(plain, both) > 0.05, "SUN works"
        assert difference(sample(sun(model)), both) > 0.01, "the ControlNet works"
        assert difference(drawn(sun(model), "neg1"), both) > 0.05, "the negative counts"
    finally:
        hook.remove()


def with_nine_channels(weights, new_model, reference, more):
    """The reference U-Net for inpainting; `more` are the first layer's weights for mask and masked picture."""
    wide = new_model(reference.unet_config | {"in_channels": 9})
    first = "input_blocks.0.0.weight"
    more = more.expand(len(weights[first]), 5, 3, 3)
    wide.model.diffusion_model.load_state_dict({**weights, first: torch.cat([weights[first], more], dim=1)})
    wide.model.set_inpaint()
    return wide


def test_inpainting_models_of_nine_channels_are_guided_as_those_of_four(
    model, sun, new_model, reference, reference_weights, sample, conditioning, difference
):
    """A U-Net that reads nothing of the five channels draws as that of four; one that does draws something else."""
    beside = {"concat_latent_image": torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))}
    conds = {"positive": conditioning("pos0", **beside), "negative": conditioning("neg0", **beside)}
    blind, seeing = (
        with_nine_channels(reference_weights, new_model, reference, torch.tensor(more)) for more in (0.0, 0.1)
    )
    assert difference(sample(sun(blind), **conds), sample(sun(model))) < 1e-5
    found = sample(sun(seeing), **conds)
    assert difference(sample(seeing, **conds), found) > 0.05, "SUN works"
    assert difference(sample(sun(blind), **conds), found) > 0.05, "the masked picture counts"
    other = sample(sun(seeing), **conds | {"negative": conditioning("neg1", **beside)})
    assert difference(other, found) > 0.05, "the negative counts"


def test_noise_mask_keeps_what_lies_outside(model, sun, conditioning, reference, difference):
    mask = torch.zeros(1, 16, 16)
    mask[..., 8:] = 1.0
    latent = {"samples": reference.io["in.latent1"], "noise_mask": mask}

    def drawn(model, negative):
        conds = conditioning("pos0"), conditioning(negative)
        return nodes.common_ksampler(model, 0, 4, 1.0, "euler", "simple", *conds, dict(latent))[0]["samples"]

    found = drawn(sun(model), "neg0")
    assert difference(found[..., :8], latent["samples"][..., :8]) < 1e-5
    assert difference(drawn(model, "neg0")[..., 8:], found[..., 8:]) > 0.05, "SUN works"
    assert difference(drawn(sun(model), "neg1")[..., 8:], found[..., 8:]) > 0.05, "the negative counts"


@pytest.fixture(scope="module")
def clip(reference):
    """Stable Diffusion 1.5's text encoder, as wide as the reference U-Net's context, with random weights."""
    target = SimpleNamespace(params={}, clip=comfy.sd1_clip.SD1ClipModel, tokenizer=comfy.sd1_clip.SD1Tokenizer)
    width = reference.unet_config["context_dim"]
    size = {"hidden_size": width, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 2 * width}
    clip = comfy.sd.CLIP(target, model_options={"clip_l_model_config": size})
    generator = torch.Generator().manual_seed(0)
    for weight in clip.cond_stage_model.requires_grad_(False).parameters():
        weight.data = torch.randn(weight.shape, generator=generator)
    return clip


def test_sun_reads_the_prompts_of_the_layer_that_clip_skip_chooses(model, sun, clip, sample, difference):
    def drawn(negative, layer):
        skipped = call(nodes.CLIPSetLastLayer, clip, layer)
        positive, negative = (call(nodes.CLIPTextEncode, skipped, text) for text in ("a red house", negative))
        return sample(sun(model), positive=positive, negative=negative)

    found = drawn("blurry", -2)
    assert difference(drawn("blurry", -1), found) > 0.01, "the layer counts"
    assert difference(drawn("a blue car", -2), found) > 0.01, "the negative counts"


def test_each_step_is_previewed_and_the_picture_stays_the_same(model, sun, sample, monkeypatch):
    shown = []
    expected = sample(sun(model))
    monkeypatch.setattr(args, "preview_method", latent_preview.LatentPreviewMethod.Latent2RGB)
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda step, total, preview, **_: shown.append(preview))
    assert torch.equal(sample(sun(model)), expected)
    assert len(shown) == 4 and all(preview is not None for preview in shown)
