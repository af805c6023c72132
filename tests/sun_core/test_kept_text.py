"""The text's keys and values are made once in a run, and are those of the text that each evaluation is given."""

import comfy.conds
import comfy.hooks
import comfy.model_management
import comfy.samplers
import pytest
import torch
from sun_pack.sun_core import run
from sun_pack.sun_core.apply import NegativeSettings, SunSettings, apply_negative, apply_sun
from sun_pack.sun_core.kept_text import KeptText
from sun_pack.sun_core.layers import cross_attention_layers

STEPS = 4
NODES = ["SUN", "Negative Prompt at CFG 1"]


@pytest.fixture
def layers(model):
    return cross_attention_layers(model.model.diffusion_model)


@pytest.fixture
def apply(adapter):
    """`apply(model, which of NODES, **settings)` -> a patched MODEL."""

    def apply(model, node, **settings):
        if node == "SUN":
            return apply_sun(model, adapter, SunSettings(**settings))
        return apply_negative(model, NegativeSettings(**settings))

    return apply


@pytest.fixture
def made(layers, monkeypatch):
    """The contexts that the first layer's own to_k is called with while the U-Net is evaluated."""
    made = []
    linear = type(layers[0].attention.to_k)
    forward = linear.forward

    def counted(self, x, *args, **kwargs):
        if self is layers[0].attention.to_k:
            made.append(x)
        return forward(self, x, *args, **kwargs)

    monkeypatch.setattr(linear, "forward", counted)
    return made


@pytest.fixture
def without(monkeypatch):
    """`without(draw)` draws with nothing kept."""

    def without(draw):
        with monkeypatch.context() as patched:
            patched.setattr(run, "MOST_BYTES", -1)
            return draw()

    return without


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("node", NODES)
def test_text_is_projected_once_per_run_and_the_picture_keeps_its_bits(
    apply, model, sample, made, without, layers, node, batch
):
    patched = apply(model, node)
    of_negative = node != "SUN"  # the layers project it too
    drawn = sample(patched, batch=batch)
    assert len(made) == 1 + of_negative
    made.clear()
    assert torch.equal(drawn, without(lambda: sample(patched, batch=batch)))
    assert len(made) == STEPS + of_negative
    assert not any("to_k" in vars(layer.attention) for layer in layers)


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("cfg", [1.0, 5.0])
def test_text_of_every_batch_is_its_own(apply, model, sample, conditioning, without, node, cfg):
    """Combined, timed, with an area, and with CFG from the sampler."""
    patched = apply(model, node, automatic=cfg == 1)
    positive = [
        *conditioning("pos0", start_percent=0.0, end_percent=0.6),
        *conditioning("pos1", area=(8, 8, 4, 4), strength=1.0),
        *conditioning("neg1", start_percent=0.3, end_percent=1.0),
    ]
    drawn = sample(patched, positive=positive, cfg=cfg)
    assert torch.equal(drawn, without(lambda: sample(patched, positive=positive, cfg=cfg)))


def test_next_run_has_its_own_text(apply, model, sample, conditioning, without):
    patched = apply(model, "SUN")
    for positive in (conditioning("pos0"), conditioning("pos1")):
        assert torch.equal(sample(patched, positive=positive), without(lambda p=positive: sample(patched, positive=p)))


@pytest.mark.parametrize("node", NODES)
def test_other_words_under_the_same_entry_are_noticed(apply, model, sample, reference, without, difference, node):
    """A function of another pack gives the positive other words in later steps and leaves its uuid."""

    def other_words(args):
        conds = [dict(cond, model_conds=dict(cond["model_conds"])) for cond in args["cond"]]
        conds[0]["model_conds"]["c_crossattn"] = comfy.conds.CONDCrossAttn(reference.io["in.pos1"])
        model, x, sigma, options = (args[name] for name in ("model", "input", "sigma", "model_options"))
        (prediction,) = comfy.samplers.calc_cond_batch(model, [conds], x, sigma, options)
        return prediction

    patched = apply(model, node)
    unchanged = sample(patched)
    patched.set_model_sampler_post_cfg_function(other_words)
    drawn = sample(patched)
    assert difference(drawn, unchanged) > 0.01
    assert torch.equal(drawn, without(lambda: sample(patched)))


@pytest.mark.parametrize("node", NODES)
def test_patch_that_changes_the_context_in_some_steps_keeps_its_effect(apply, model, sample, without, difference, node):
    def louder_at_first(n, context, value, options):
        return (n, context * 2, value * 2) if float(options["sigmas"][0]) > 5 else (n, context, value)

    patched = apply(model, node)
    unchanged = sample(patched)
    patched.set_model_attn2_patch(louder_at_first)
    drawn = sample(patched)
    assert difference(drawn, unchanged) > 0.01
    assert torch.equal(drawn, without(lambda: sample(patched)))


def test_layer_that_another_pack_watches_is_called_in_every_step(apply, model, sample, layers):
    seen = []
    with_hook, with_own_forward = layers[0].attention, layers[1].attention
    hook = with_hook.to_v.register_forward_hook(lambda *args: seen.append("hook"))
    forward = with_own_forward.to_k.forward
    with_own_forward.to_k.forward = lambda x: seen.append("forward") or forward(x)
    try:
        sample(apply(model, "SUN"))
    finally:
        hook.remove()
        del with_own_forward.to_k.forward
    assert seen.count("hook") == seen.count("forward") == STEPS


def test_call_with_another_context_is_made(layers):
    kept, attention = KeptText(layers), layers[0].attention
    context, other = (torch.randn(1, 7, layers[0].context_dim) for _ in range(2))
    k, v = torch.randn(2, 1, 7, layers[0].hidden_dim)
    kept.keep(layers[0].number, k, v)
    with kept.given_for(context):
        assert attention.to_k(context) is k and attention.to_v(context) is v
        assert torch.equal(attention.to_k(other), attention._modules["to_k"](other))
    assert attention.to_k is attention._modules["to_k"]


def test_nothing_stays_in_the_layers_after_an_interrupt(apply, model, layers):
    kept, context = KeptText(layers), torch.zeros(1, 7, layers[0].context_dim)
    kept.keep(layers[0].number, context, context)
    with pytest.raises(comfy.model_management.InterruptProcessingException), kept.given_for(context):
        raise comfy.model_management.InterruptProcessingException
    assert not any({"to_k", "to_v"} & vars(layer.attention).keys() for layer in layers)


def test_hook_whose_strength_changes_gives_the_text_other_keys_and_values(
    apply, model, layers, sample, conditioning, without, difference
):
    generator, name = torch.Generator().manual_seed(0), "output_blocks_3_1_transformer_blocks_0_attn2_to_k"
    (layer,) = (layer for layer in layers if layer.block == ("output", 3))
    rows, columns = layer.attention.to_k.weight.shape
    lora = {
        f"lora_unet_{name}.lora_{part}.weight": torch.randn(shape, generator=generator) * 0.1
        for part, shape in (("up", (rows, 2)), ("down", (2, columns)))
    }
    hooks, keyframes = comfy.hooks.create_hook_lora(lora, 1.0, 0.0), comfy.hooks.HookKeyframeGroup()
    for strength, start in ((1.0, 0.0), (-1.0, 0.5)):
        keyframes.add(comfy.hooks.HookKeyframe(strength, start))
    hooks.set_keyframes_on_hooks(keyframes)
    patched = apply(model, "SUN")
    positive = conditioning("pos0", hooks=hooks)
    drawn = sample(patched, positive=positive)
    assert difference(drawn, sample(patched)) > 1e-3
    assert torch.equal(drawn, without(lambda: sample(patched, positive=positive)))


def test_large_batches_keep_nothing(apply, model, sample, made, layers, monkeypatch):
    channels, tokens = sum(layer.hidden_dim for layer in layers), 77
    monkeypatch.setattr(run, "MOST_BYTES", 2 * 2 * channels * tokens * 4)  # two rows, K and V, fp32
    patched = apply(model, "SUN")
    sample(patched, batch=2)
    assert len(made) == 1
    made.clear()
    sample(patched, batch=3)
    assert len(made) == STEPS
