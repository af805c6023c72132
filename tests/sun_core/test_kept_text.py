"""The text's keys and values are made once in a run, and are those of the text that each evaluation is given."""

import copy
import functools
import importlib.util
import sys
import uuid

import comfy.conds
import comfy.hooks
import comfy.ldm.modules.attention
import comfy.model_management
import comfy.samplers
import pytest
import torch
import torch._dynamo
from sun_pack.sun_core import run
from sun_pack.sun_core.apply import apply_negative, apply_sun
from sun_pack.sun_core.attention_patch import FORWARD_KEY
from sun_pack.sun_core.hooks import RUN_KEY
from sun_pack.sun_core.kept_text import KeptText
from sun_pack.sun_core.layers import cross_attention_layers
from sun_pack.sun_core.settings import NegativeSettings, SunSettings

STEPS = 4
NODES = ["SUN", "Negative Prompt at CFG 1"]


def changed(layers):
    """The layers that have a forward of their own."""
    linears = (linear for layer in layers for linear in (layer.attention.to_k, layer.attention.to_v))
    return [linear for linear in linears if "forward" in vars(linear)]


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
    first = sample(patched, batch=batch)
    assert len(made) == 2 + of_negative, "one that shows that nothing is compiled, and one that is kept"
    made.clear()
    drawn = sample(patched, batch=batch)
    assert len(made) == 1 + of_negative
    made.clear()
    assert torch.equal(drawn, without(lambda: sample(patched, batch=batch)))
    assert len(made) == STEPS + of_negative
    assert torch.equal(first, drawn)
    assert not changed(layers)


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("cfg", [1.0, 5.0])
def test_text_of_every_batch_is_its_own(apply, model, sample, conditioning, made, without, node, cfg):
    """Combined, timed, with an area, and with CFG from the sampler."""
    patched = apply(model, node, automatic=cfg == 1)
    positive = [
        *conditioning("pos0", start_percent=0.0, end_percent=0.6),
        *conditioning("pos1", area=(8, 8, 4, 4), strength=1.0),
        *conditioning("neg1", start_percent=0.3, end_percent=1.0),
    ]
    sample(patched)
    made.clear()
    drawn = sample(patched, positive=positive, cfg=cfg)
    kept = len(made)
    made.clear()
    assert torch.equal(drawn, without(lambda: sample(patched, positive=positive, cfg=cfg)))
    assert kept < len(made)


def test_next_run_has_its_own_text(apply, model, sample, conditioning, made, without):
    patched = apply(model, "SUN")
    sample(patched)
    for positive in (conditioning("pos0"), conditioning("pos1")):
        made.clear()
        drawn = sample(patched, positive=positive)
        assert len(made) == 1
        assert torch.equal(drawn, without(lambda p=positive: sample(patched, positive=p)))


def evaluated(args, conds=None, **transformer_options):
    """Evaluate the model once more, as functions around CFG do: with other conditionings, or with other options."""
    options = args["model_options"] | {
        "transformer_options": args["model_options"]["transformer_options"] | transformer_options
    }
    conds = args["cond"] if conds is None else conds
    (prediction,) = comfy.samplers.calc_cond_batch(args["model"], [conds], args["input"], args["sigma"], options)
    return prediction


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("how", ["another conditioning", "in place"])
def test_other_words_under_the_same_entry_are_noticed(apply, model, sample, reference, without, difference, node, how):
    """A function of another pack gives the positive other words in later steps and leaves its uuid."""
    own_uuids = False

    def other_words(args):
        conds = [dict(cond, model_conds=dict(cond["model_conds"])) for cond in args["cond"]]
        if own_uuids:
            conds = [cond | {"uuid": uuid.uuid4()} for cond in conds]
        if how == "in place" and not own_uuids:
            conds = args["cond"]
            conds[0]["model_conds"]["c_crossattn"].cond = reference.io["in.pos1"]
        else:
            conds[0]["model_conds"]["c_crossattn"] = comfy.conds.CONDCrossAttn(reference.io["in.pos1"])
        return evaluated(args, conds)

    patched = apply(model, node)
    unchanged = sample(patched)
    patched.set_model_sampler_post_cfg_function(other_words)
    drawn = sample(patched)
    assert difference(drawn, unchanged) > 0.01
    assert torch.equal(drawn, without(lambda: sample(patched)))
    own_uuids = True
    assert how == "in place" or torch.equal(drawn, sample(patched))


def test_guider_of_comfyuis_extra_nodes_keeps_text_under_the_name_that_a_server_gives_their_file(
    apply, model, sample, conditioning, made, monkeypatch
):
    """A server loads them by path, and calls the module by that."""
    from comfy_extras import nodes_custom_sampler

    name = nodes_custom_sampler.__file__.removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, nodes_custom_sampler.__file__)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    patched = apply(model, "SUN")
    sample(patched)
    made.clear()
    guider = module.DualCFGGuider.execute(
        patched, conditioning("pos0"), conditioning("pos1"), conditioning("neg0"), 1.0, 1.0, "regular"
    ).args[0]
    assert type(guider).__module__ == name
    latent, sigmas = (
        torch.zeros(1, 4, 16, 16),
        comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", STEPS),
    )
    guider.sample(latent, latent, comfy.samplers.sampler_object("euler"), sigmas)
    assert len(made) == 1


@pytest.mark.parametrize("method", ["apply_model", "_apply_model"])
def test_evaluation_that_another_pack_has_put_on_the_model_keeps_its_effect(
    apply, model, sample, without, difference, monkeypatch, method
):
    """It gives the U-Net other words in later steps, where ComfyUI's own hooks do not see them."""
    unchanged, calls = sample(apply(model, "SUN")), []
    inner = getattr(model.model, method)

    def louder_later(*args, c_crossattn=None, **kwargs):
        calls.append(1)
        args = list(args)
        if c_crossattn is None:
            args[3] = args[3] * len(calls)
            return inner(*args, **kwargs)
        return inner(*args, c_crossattn=c_crossattn * len(calls), **kwargs)

    monkeypatch.setitem(vars(model.model), method, louder_later)
    patched = apply(model, "SUN")
    drawn = sample(patched)
    assert difference(drawn, unchanged) > 0.01
    calls.clear()
    assert torch.equal(drawn, without(lambda: sample(patched)))


ORIGINAL = comfy.samplers._calc_cond_batch


def louder_later(base_model, conds, x, sigma, options):
    """Evaluate conditionings past what looks at them, with other words in later steps and the same uuids."""

    def louder(entry):
        context = comfy.conds.CONDCrossAttn(entry["model_conds"]["c_crossattn"].cond * 2)
        return entry | {"model_conds": entry["model_conds"] | {"c_crossattn": context}}

    if float(sigma[0]) < 5:
        conds = [cond and [louder(entry) for entry in cond] for cond in conds]
    return ORIGINAL(base_model, conds, x, sigma, options)


class LouderLater(comfy.samplers.CFGGuider):
    """A guider that evaluates its positive itself."""

    def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006 (ComfyUI's own signature)
        return louder_later(self.inner_model, [self.conds["positive"]], x, timestep, model_options)[0]


@pytest.mark.parametrize(
    ("name", "own"),
    [("CFGGuider", LouderLater), ("calc_cond_batch", louder_later), ("_calc_cond_batch", louder_later)],
)
def test_evaluation_that_another_pack_has_put_into_comfyui_keeps_its_effect(
    apply, model, sample, without, difference, monkeypatch, name, own
):
    patched = apply(model, "SUN")
    unchanged = sample(patched)
    monkeypatch.setattr(comfy.samplers, name, own)
    drawn = sample(patched)
    assert difference(drawn, unchanged) > 0.01
    assert torch.equal(drawn, without(lambda: sample(patched)))


def test_model_whose_evaluation_another_pack_has_put_back_keeps_text(apply, model, sample, made, monkeypatch):
    monkeypatch.setitem(vars(model.model), "apply_model", model.model.apply_model)
    patched = apply(model, "SUN")
    sample(patched)
    made.clear()
    sample(patched)
    assert len(made) == 1


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


def test_patch_in_one_of_two_evaluations_of_a_step_stays_there(apply, model, sample, without, difference):
    def weaker(n, context, value, options):
        return n, context * 0.5, value * 0.5

    patched = apply(model, "SUN")
    unchanged = sample(patched)
    patched.set_model_sampler_post_cfg_function(
        lambda args: args["denoised"] + args["cond_denoised"] - evaluated(args, patches={"attn2_patch": [weaker]})
    )
    patched.set_model_sampler_post_cfg_function(lambda args: (args["denoised"] + evaluated(args)) / 2)
    drawn = sample(patched)
    assert difference(drawn, unchanged) > 0.01
    assert torch.equal(drawn, without(lambda: sample(patched)))


def test_wrapper_in_one_of_two_evaluations_of_a_step_stays_there(apply, model, sample, without, difference):
    def louder(executor, x, timesteps, context, *args, **kwargs):
        return executor(x, timesteps, context * 2, *args, **kwargs)

    def with_louder_words(args):
        wrappers = args["model_options"]["transformer_options"]["wrappers"]
        wrappers = wrappers | {"diffusion_model": {"own": [louder], **wrappers["diffusion_model"]}}
        return args["denoised"] + args["cond_denoised"] - evaluated(args, wrappers=wrappers)

    patched = apply(model, "SUN")
    unchanged = sample(patched)
    patched.set_model_sampler_post_cfg_function(with_louder_words)
    drawn = sample(patched)
    assert difference(drawn, unchanged) > 0.01
    assert torch.equal(drawn, without(lambda: sample(patched)))


def test_replacement_that_overwrites_values_changes_its_own_evaluations_alone(apply, model, sample, without):
    def silent(q, k, v, options):
        return comfy.ldm.modules.attention.optimized_attention(q, k, v.mul_(0.5), options["n_heads"])

    def with_silent_layer(args):
        replace = args["model_options"]["transformer_options"]["patches_replace"]
        replace = {**replace, "attn2": {**replace["attn2"], ("middle", 0): silent}}
        return args["denoised"] + args["cond_denoised"] - evaluated(args, patches_replace=replace)

    patched = apply(model, "SUN")
    sample(patched)
    patched.set_model_sampler_post_cfg_function(with_silent_layer)
    assert torch.equal(sample(patched), without(lambda: sample(patched)))


@pytest.mark.parametrize("where", ["class", "object patch"])
def test_block_of_another_pack_keeps_its_effect(apply, model, sample, without, difference, monkeypatch, request, where):
    """It gives its layers other words in early steps."""
    block = comfy.ldm.modules.attention.BasicTransformerBlock
    forward = block.forward

    def louder_at_first(self, x, context=None, transformer_options={}):  # noqa: B006 - as ComfyUI's
        context = context * 2 if float(transformer_options["sigmas"][0]) > 5 else context
        return forward(self, x, context, transformer_options)

    unchanged = sample(apply(model, "SUN"))
    if where == "class":
        monkeypatch.setattr(block, "forward", louder_at_first)
    else:
        inner = model.model.diffusion_model.middle_block[1].transformer_blocks[0]
        name = "diffusion_model.middle_block.1.transformer_blocks.0.forward"
        model.add_object_patch(name, functools.partial(louder_at_first, inner))
        request.addfinalizer(lambda: vars(inner).pop("forward"))  # ComfyUI puts the block's own there
        request.addfinalizer(comfy.model_management.unload_all_models)
    patched = apply(model, "SUN")
    sample(patched)
    drawn = sample(patched)
    assert difference(drawn, unchanged) > 1e-4
    assert torch.equal(drawn, without(lambda: sample(patched)))


def test_layers_stay_modules_while_the_unet_is_evaluated(apply, model, sample, layers):
    """ComfyUI finds weights by their names; packs look at them."""
    seen = []
    patched = apply(model, "SUN")
    patched.set_model_input_block_patch(
        lambda h, options: seen.extend(layer.attention.to_k.weight.shape for layer in layers) or h
    )
    sample(patched)
    assert seen


def test_layer_that_another_pack_watches_is_called_in_every_step(apply, model, sample, layers):
    seen = []
    with_hook, with_own_forward = layers[0].attention, layers[1].attention
    hook = with_hook.to_v.register_forward_hook(lambda *args: seen.append("hook"))
    forward = with_own_forward.to_k.forward
    with_own_forward.to_k.forward = lambda x: seen.append("forward") or forward(x)
    patched = apply(model, "SUN")
    try:
        for _ in range(2):
            seen.clear()
            sample(patched)
    finally:
        hook.remove()
        del with_own_forward.to_k.forward
    assert seen.count("hook") == seen.count("forward") == STEPS


def test_layer_whose_weight_is_changed_as_it_is_called_is_called_in_every_step(apply, model, sample, request):
    calls = []

    def fading(weight, *args, **kwargs):
        calls.append(1)
        return weight / len(calls)

    request.addfinalizer(comfy.model_management.unload_all_models)
    model.add_weight_wrapper("diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight", fading)
    patched = apply(model, "SUN")
    for _ in range(2):
        calls.clear()
        sample(patched)
    assert len(calls) == STEPS


def test_linear_makes_what_is_not_kept(layers):
    kept, linear = KeptText(layers, size=0), layers[0].attention.to_k
    context, other = (torch.randn(1, 7, layers[0].context_dim) for _ in range(2))
    with kept.given_for(context):
        first = linear(context)
    with kept.given_for(context):
        assert linear(context) is first
        assert torch.equal(linear(other), linear(other)) and not torch.equal(linear(other), first)
        assert torch.equal(linear(input=other), linear(other))
    weight = linear.weight
    linear.weight = torch.nn.Parameter(weight * 2, requires_grad=False)
    with kept.given_for(context):
        assert torch.equal(linear(context), first * 2)
    linear.weight = weight
    assert linear(context) is not first and torch.equal(linear(context), first)


def test_nothing_stays_in_the_layers_after_an_interrupt(apply, model, sample, layers):
    patched = apply(model, "SUN")
    sample(patched)

    def interrupt(h, options):
        assert changed(layers)
        raise comfy.model_management.InterruptProcessingException

    patched.set_model_input_block_patch(interrupt)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(patched)
    assert not changed(layers)


def test_another_packs_forward_that_comes_while_the_unet_is_evaluated_stays(layers):
    linear = layers[0].attention.to_k
    with KeptText(layers, size=0).given_for(torch.zeros(1, 7, layers[0].context_dim)):
        linear.forward = len
    assert linear.forward is len
    del linear.forward
    assert not changed(layers)


def test_compiled_layers_keep_nothing(apply, model, sample, layers, without):
    """What hides a layer's forward is new in each evaluation: each would be compiled again."""
    block = model.model.diffusion_model.middle_block[1].transformer_blocks[0]
    patched = apply(model, "SUN")
    block.compile(backend="eager")
    try:
        drawn = [sample(patched) for _ in range(2)][-1]
        compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert torch.equal(drawn, without(lambda: sample(patched)))
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled
    finally:
        block._compiled_call_impl = None
        torch._dynamo.reset()


def test_copies_of_a_runs_options_share_its_layers(apply, model, sample, layers):
    copies = []

    def copied(args):
        copies.append(copy.deepcopy(args["model_options"]["transformer_options"][RUN_KEY]))
        return args["denoised"]

    def copied_in_the_unet(h, options):
        assert copy.deepcopy(options)[FORWARD_KEY] is options[FORWARD_KEY]
        return h

    patched = apply(model, "SUN")
    patched.set_model_sampler_post_cfg_function(copied)
    patched.set_model_input_block_patch(copied_in_the_unet)
    sample(patched)
    assert all(run.layers[0].attention is layers[0].attention for run in copies)


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
    sample(patched)
    for batch, calls in ((2, 1), (3, STEPS)):
        made.clear()
        sample(patched, batch=batch)
        assert len(made) == calls


def test_all_batches_of_a_run_keep_no_more_than_one_may(apply, model, sample, conditioning, made, layers, monkeypatch):
    channels, tokens = sum(layer.hidden_dim for layer in layers), 77
    positive = [*conditioning("pos0", area=(8, 16, 0, 0)), *conditioning("pos1", area=(16, 8, 0, 8))]
    patched = apply(model, "SUN")
    sample(patched)
    for rows, calls in ((2, 2), (1, 1 + STEPS)):
        monkeypatch.setattr(run, "MOST_BYTES", rows * 2 * channels * tokens * 4)
        made.clear()
        sample(patched, positive=positive)
        assert len(made) == calls
