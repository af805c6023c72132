"""A negative prompt at CFG 1 on diffusion transformers, through ComfyUI's own models, loaders and samplers."""

import types
from contextlib import contextmanager

import comfy.hooks
import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import comfy.sd
import pytest
import torch
import torch._dynamo
from comfy.ldm.modules.attention import attention_pytorch
from sun_pack.sun_core.apply import apply_negative
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.nag import NagSettings
from sun_pack.sun_core.settings import NegativeSettings
from torch import nn
from torch._dynamo.utils import counters

from .small_transformers import CPU, FAMILIES

SETTINGS = NegativeSettings()


@pytest.fixture(scope="module", params=FAMILIES)
def made(request):
    """A family and a MODEL of it."""
    family = FAMILIES[request.param]
    model = family.make()
    if model is None:
        pytest.skip(f"this ComfyUI has no {request.param}")
    return family, model


@pytest.fixture
def family(made):
    return made[0]


@pytest.fixture
def model(made):
    """A MODEL of its own around the family's transformer."""
    return made[1].clone()


@pytest.fixture
def prompt(family):
    """Makes a CONDITIONING with what the family's text encoder gives: `prompt(seed)`."""

    def prompt(seed, rows=1, **values):
        generator = torch.Generator().manual_seed(seed)
        text = torch.randn(rows, family.tokens, family.width, generator=generator)
        return [[text, family.beside(seed) | values]]

    return prompt


@pytest.fixture
def draw(sample, family, prompt):
    """Samples 2 steps as a queue does: `draw(model, cfg=7.0, ...)`."""

    def draw(model, batch=1, positive=None, negative=None, steps=2, **options):
        latent = options.pop("latent", torch.zeros(batch, *family.latent))
        conds = {"positive": positive or prompt(1), "negative": negative or prompt(2)}
        with torch.inference_mode():
            return sample(model, latent=latent, steps=steps, **conds, **options).clone()

    return draw


@pytest.fixture(scope="module")
def drawn(made):
    """What was drawn with the default prompts, once for a family: what runs before and after must not change it."""
    return {}


@pytest.fixture
def plain(drawn, draw, model):
    """What a MODEL without the node draws with the default prompts."""
    return drawn["plain"] if "plain" in drawn else drawn.setdefault("plain", draw(model))


@pytest.fixture
def guided(drawn, draw, model):
    """What the node draws with the default prompts."""
    return drawn["guided"] if "guided" in drawn else drawn.setdefault("guided", draw(apply_negative(model, SETTINGS)))


@pytest.fixture
def evaluations(made):
    """The rows of each forward of the transformer so far."""
    rows: list[int] = []
    hook = made[1].model.diffusion_model.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    yield rows
    hook.remove()


@pytest.fixture
def read_by_layers(model, family, draw):
    """Finds what the transformer itself gives its layers for a prompt: `read_by_layers(prompt)`, (args, kwargs)."""

    def read_by_layers(conditioning):
        found = []
        layer = family.layers(model)[0][1]
        hook = layer.register_forward_pre_hook(lambda _, *given: found.append(given), with_kwargs=True)
        draw(model, positive=conditioning, steps=1)
        hook.remove()
        (_, *args), kwargs = found[0]
        return args, kwargs

    return read_by_layers


@contextmanager
def replaced(module, name, other):
    own = getattr(module, name)
    setattr(module, name, other)
    try:
        yield
    finally:
        setattr(module, name, own)


class Zeros(nn.Module):
    def forward(self, x):
        return torch.zeros(*x.shape[:-1], 128)


@pytest.fixture
def recomputed(model, family, read_by_layers):
    """A MODEL whose every layer is computed plainly for both prompts, then joined by the published formula."""

    def recomputed(onto, negative, nag=SETTINGS.nag):
        args, kwargs = read_by_layers(negative)

        def replacement(layer):
            own, project = type(layer).forward, getattr(layer, family.projection)

            def attended(*given, **named):
                with replaced(layer, family.projection, nn.Identity()):
                    out = own(layer, *given, **named)
                return out[0] if isinstance(out, tuple) else out

            def forward(x, *positive, **named):
                rows = [a.expand(len(x), *a.shape[1:]) if isinstance(a, torch.Tensor) else a for a in args]
                others = {k: v.expand(len(x), *v.shape[1:]) for k, v in kwargs.items() if k in ("context", "mask")}
                text = attended(x, *positive, **named)
                neg = attended(x, *rows, **{**named, **others})
                image = 0.0
                if hasattr(layer, "k_img"):  # both hold what the layer attended to in the image
                    with replaced(layer, "v", Zeros()):
                        image = attended(x, *positive, **named)
                text, neg = text - image, neg - image
                ext = nag.scale * text - (nag.scale - 1) * neg
                r = ext.abs().sum(-1, keepdim=True) / text.abs().sum(-1, keepdim=True)
                out = project(nag.alpha * ext * r.clamp(max=nag.tau) / r + (1 - nag.alpha) * text + image)
                return (out,) if family.returns_tuple else out

            return forward

        patched = onto.clone()
        for path, layer in family.layers(patched):
            patched.add_object_patch(f"{path}.forward", replacement(layer))
        return patched

    return recomputed


def test_sampling_equals_a_plain_re_computation(model, draw, recomputed, prompt, difference, plain, guided):
    assert difference(guided, draw(recomputed(model, prompt(2)))) < 1e-5
    assert difference(guided, plain) > 1e-3


def test_every_setting_of_nag_counts(model, draw, recomputed, prompt, difference):
    nag = NagSettings(scale=8.0, tau=1.2, alpha=0.9)
    found = draw(apply_negative(model, NegativeSettings(nag)))
    assert difference(found, draw(recomputed(model, prompt(2), nag))) < 1e-5


def test_cfg_becomes_1_with_one_evaluation_a_step(model, family, draw, evaluations):
    reports = []
    draw(apply_negative(model, SETTINGS, report=reports.append), cfg=7.0, steps=4)
    assert evaluations == [1, 1, 1, 1]
    count = len(family.layers(model))
    assert reports[0].facts == (
        f"4 steps · 4 evaluations · 4 rows · SUN in {count} of {count} layers · automatic: CFG 7 -> 1"
    )


def test_nothing_is_said_of_cuda_graphs(model, draw):
    """Those are for U-Nets: on a GPU, a report says why a forward was none."""
    reports = []
    negative = apply_negative(model, SETTINGS, report=reports.append)

    def as_on_a_gpu(executor, *args, **kwargs):
        samples = executor(*args, **kwargs)
        negative.load_device = torch.device("cuda")
        return samples

    negative.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE, "test", as_on_a_gpu)
    draw(negative)
    assert reports[0].evaluations and not reports[0].way


def test_keys_and_values_of_the_negative_are_made_once_per_run(model, family, draw):
    calls = []
    inputs = [child for name, child in family.layers(model)[0][1].named_modules() if name in family.text_inputs]
    hooks = [child.register_forward_pre_hook(lambda *_: calls.append(1)) for child in inputs]
    draw(apply_negative(model, SETTINGS), steps=5)
    for hook in hooks:
        hook.remove()
    assert inputs and len(calls) == len(inputs) * (5 + 1)


def test_second_run_has_its_own_prompts(model, draw, prompt, guided):
    negative = apply_negative(model, SETTINGS)
    other = draw(negative, negative=prompt(3))
    assert not torch.equal(guided, other)
    assert torch.equal(draw(negative), guided) and torch.equal(draw(negative, negative=prompt(3)), other)


def test_model_without_the_node_samples_as_before(model, draw, plain, guided):
    assert not torch.equal(guided, plain)
    assert torch.equal(draw(model), plain)


def test_interrupted_run_leaves_the_model_clean(model, draw, evaluations, plain, guided):
    negative = apply_negative(model, SETTINGS)

    def interrupt(executor, *args, **kwargs):
        if len(evaluations) == 1:
            raise comfy.model_management.InterruptProcessingException
        return executor(*args, **kwargs)

    interrupted = negative.clone()
    interrupted.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "test", interrupt)
    evaluations.clear()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        draw(interrupted)
    assert torch.equal(draw(model), plain) and torch.equal(draw(negative), guided)


def sampled(model, noises, positive, negative):
    sampler = comfy.samplers.sampler_object("euler")
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 2)
    with torch.inference_mode():
        return comfy.sample.sample_custom(
            model, noises, 1.0, sampler, sigmas, positive, negative, torch.zeros_like(noises), seed=0
        )


def test_batch_equals_its_singles(model, family, prompt, difference):
    """Each image with a noise and, where a batch can hold several texts, prompts of its own."""
    negative = apply_negative(model, SETTINGS)
    noises = torch.randn(2, *family.latent, generator=torch.Generator().manual_seed(0))
    rows = 1 if family.beside(1) else 2
    (positive, beside), (neg, beside_neg) = prompt(1, rows)[0], prompt(2, rows)[0]
    together = sampled(negative, noises, [[positive, beside]], [[neg, beside_neg]])
    for row in range(2):
        of_row = slice(row % rows, row % rows + 1)
        alone = sampled(negative, noises[row : row + 1], [[positive[of_row], beside]], [[neg[of_row], beside_neg]])
        assert difference(together[row : row + 1], alone) < 1e-5


@pytest.fixture
def lora(family, model):
    """A LoRA on what makes keys and values, as files name its keys."""
    generator, lora = torch.Generator().manual_seed(0), {}
    for path, layer in family.layers(model):
        for name in family.text_inputs:
            out_features, in_features = layer.get_submodule(name).weight.shape
            for part, shape in (("up", (out_features, 2)), ("down", (2, in_features))):
                lora[f"{path}.{name}.lora_{part}.weight"] = torch.randn(shape, generator=generator) * 0.1
    return lora


@pytest.fixture
def with_lora(lora):
    """Loads the LoRA as Load LoRA does: `with_lora(MODEL)`."""
    return lambda onto: comfy.sd.load_lora_for_models(onto, None, lora, 1.0, 0.0)[0]


def test_lora_on_cross_attention_counts_for_the_negative_too(
    model, draw, recomputed, with_lora, prompt, difference, guided
):
    expected = draw(recomputed(with_lora(model), prompt(2)))
    negative = apply_negative(model, SETTINGS)
    for patched in (apply_negative(with_lora(model), SETTINGS), with_lora(negative)):
        assert difference(draw(patched), expected) < 1e-5
    assert difference(expected, guided) > 1e-3


def test_lora_hook_on_the_positive_counts_for_the_negative_too(
    model, draw, lora, with_lora, prompt, difference, guided
):
    negative = apply_negative(model, SETTINGS)
    hooked = prompt(1, hooks=comfy.hooks.create_hook_lora(lora, 1.0, 0.0))
    assert difference(draw(negative, positive=hooked), draw(with_lora(negative))) < 1e-5
    assert difference(draw(negative), guided) < 1e-6, "and it is gone afterwards"


def test_lora_hook_whose_strength_changes_gives_other_keys_and_values(
    model, draw, recomputed, lora, prompt, difference
):
    hooks, keyframes = comfy.hooks.create_hook_lora(lora, 1.0, 0.0), comfy.hooks.HookKeyframeGroup()
    for strength, start in ((1.0, 0.0), (-1.0, 0.5)):
        keyframes.add(comfy.hooks.HookKeyframe(strength, start))
    hooks.set_keyframes_on_hooks(keyframes)
    positive = prompt(1, hooks=hooks)
    expected = draw(recomputed(model, prompt(2)), positive=positive)
    assert difference(draw(apply_negative(model, SETTINGS), positive=positive), expected) < 1e-5


def test_weights_that_stay_offloaded_give_the_same(model, draw, with_lora, difference):
    """As far as a CPU goes: every weight is fetched, and the LoRA added, when a layer is called."""
    negative = with_lora(apply_negative(model, SETTINGS))
    expected = draw(negative)
    offloaded = negative.clone()
    offloaded.detach()
    offloaded.partially_load = lambda device, *_, **__: type(offloaded).partially_load(offloaded, device, 1)
    assert difference(draw(offloaded), expected) < 1e-5
    assert offloaded.lowvram_patch_counter() > 0
    offloaded.detach()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_draws_what_fp32_draws(family, draw, difference, plain, guided, dtype):
    """Guidance carries the error of an attention on at most alpha * (2 * scale - 1) + 1 - alpha = 3 times."""
    half = family.make().model
    half.diffusion_model.to(dtype)
    half.manual_cast_dtype = dtype
    for module in half.diffusion_model.modules():
        if hasattr(module, "comfy_cast_weights"):  # some layers compute in fp32 in any case
            module.comfy_cast_weights = True
    model = comfy.model_patcher.ModelPatcher(half, CPU, CPU)
    own_error = difference(draw(model), plain)
    assert 1e-5 < own_error < 0.1
    assert difference(draw(apply_negative(model, SETTINGS)), guided) < 3 * own_error


@pytest.mark.slow
@pytest.mark.parametrize("made", ["Wan 2.1 text to video"], indirect=True)
def test_compiled_model_draws_the_same_with_one_graph_for_all_prompts(model, draw, difference, prompt):
    """Behind ComfyUI's TorchCompileModel, with its attention as on CUDA: its CPU one breaks the graph by itself."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    def as_on_cuda(function, *args, **kwargs):
        return attention_pytorch(*args, **kwargs)

    negative = apply_negative(model, SETTINGS)
    negative.model_options["transformer_options"]["optimized_attention_override"] = as_on_cuda
    compiled = negative.clone()
    set_torch_compile_wrapper(compiled, backend="eager")
    torch._dynamo.reset()
    counters.clear()
    for seed in (2, 3):
        expected = draw(negative, negative=prompt(seed))
        assert difference(draw(compiled, negative=prompt(seed)), expected) < 1e-5
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    torch._dynamo.reset()


def test_combined_negatives_count_by_their_strengths(model, draw, prompt, difference, guided):
    negative = apply_negative(model, SETTINGS)
    strong, weak = prompt(2, strength=1.0), prompt(3, strength=0.0)
    assert difference(draw(negative, negative=strong + weak), guided) < 1e-5
    assert difference(draw(negative, negative=strong + prompt(3)), guided) > 1e-3


def test_masked_negatives_count_in_their_places(model, family, draw, prompt, difference, guided):
    """In each frame of a video; an area is a mask."""
    negative = apply_negative(model, SETTINGS)
    height, width = family.latent[-2:]
    everywhere, nowhere = torch.ones(1, height, width), torch.zeros(1, height, width)
    only_first = prompt(2, mask=everywhere) + prompt(3, mask=nowhere)
    assert difference(draw(negative, negative=only_first), guided) < 1e-5
    left = torch.zeros(1, height, width)
    left[..., : width // 2] = 1.0
    half = draw(negative, negative=prompt(2, mask=left) + prompt(3))
    assert difference(half, draw(negative, negative=prompt(2) + prompt(3))) > 1e-4
    as_area = draw(negative, negative=prompt(2, area=(height, width // 2, 0, 0)) + prompt(3))
    assert torch.equal(as_area, half)


def test_negative_on_the_node_takes_the_place_of_the_samplers(model, draw, prompt, difference, guided):
    own, samplers = draw(apply_negative(model, SETTINGS, prompt(3))), apply_negative(model, SETTINGS)
    assert difference(own, draw(samplers, negative=prompt(3))) < 1e-6
    assert difference(own, guided) > 1e-3


def test_negative_counts_only_in_its_range(model, draw, prompt, difference, plain, guided):
    """Of the run, set on the node, and of an entry."""
    never = apply_negative(model, NegativeSettings(start_percent=0.999, end_percent=1.0))
    assert torch.equal(draw(never), plain)
    negative = apply_negative(model, SETTINGS)
    late = prompt(2) + prompt(3, start_percent=0.999, end_percent=1.0)
    assert difference(draw(negative, negative=late), guided) < 1e-5


def test_cfg_of_the_sampler_leaves_uncond_plain(model, draw, evaluations, difference, guided):
    """With a CFG of almost 1, a guided uncond row would show."""
    from_sampler = apply_negative(model, NegativeSettings(automatic=False))
    weighed_out = draw(from_sampler, cfg=1.0 + 1e-6)
    assert sum(evaluations[-2:]) == 4
    assert difference(weighed_out, guided) < 1e-4


def test_attention_of_another_pack_is_used_for_both_prompts(model, draw, difference, guided):
    calls = []

    def override(function, *args, **kwargs):
        calls.append(1)
        return function(*args, **kwargs)

    negative = apply_negative(model, SETTINGS)
    negative.model_options["transformer_options"]["optimized_attention_override"] = override
    assert difference(draw(negative), guided) < 1e-6
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    with_sun, _ = len(calls), calls.clear()
    draw(model)
    assert with_sun > len(calls)


def test_second_object_patch_is_refused(model, family):
    other = model.clone()
    other.add_object_patch(f"{family.layers(model)[0][0]}.forward", lambda x, context, **_: x)
    with pytest.raises(SunError, match="Another node on the MODEL line, such as WanVideoNAG, has replaced"):
        apply_negative(other, SETTINGS)


def test_layers_that_a_later_node_replaces_are_reported(model, family, draw):
    reports = []
    replaced = apply_negative(model, SETTINGS, report=reports.append).clone()
    for path, layer in family.layers(model):
        replaced.add_object_patch(f"{path}.forward", types.MethodType(type(layer).forward, layer))
    draw(replaced)
    count = len(family.layers(model))
    assert f"SUN acted in 0 of {count} layers, because another node replaces the others" in str(reports[0])


def test_batch_that_another_pack_widens_is_left_plain_and_found(model, draw, plain, difference):
    reports = []

    def twice(given):
        return torch.cat([given, given]) if isinstance(given, torch.Tensor) else given

    def widen(executor, *args, **kwargs):
        return executor(*map(twice, args), **{name: twice(given) for name, given in kwargs.items()})[:1]

    widened = apply_negative(model, SETTINGS, report=reports.append).clone()
    widened.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "test", widen)
    assert difference(draw(widened), plain) < 1e-5
    (finding,) = reports[0].findings
    assert "changes the batch (1 -> 2 rows) in a way that SUN cannot follow" in finding


@pytest.mark.parametrize("made", ["Wan 2.1 text to video"], indirect=True)
def test_steps_that_a_cache_answers_are_found(model, draw):
    from comfy_extras.nodes_easycache import EasyCacheNode

    reports = []
    negative = apply_negative(model, SETTINGS, report=reports.append)
    draw(EasyCacheNode.execute(negative, 3.0, 0.0, 1.0, False).args[0], steps=4)
    (finding,) = reports[0].findings
    assert "easycache" in finding and f"skipped {4 - reports[0].evaluations} step" in finding


@pytest.mark.parametrize("made", [name for name in FAMILIES if name != "Anima"], indirect=True)
def test_negative_of_another_text_width_is_told_apart(model, family, draw, prompt):
    (context, beside), *_ = prompt(2)
    with pytest.raises(SunError, match=f"encoded {family.width + 8} wide, but this MODEL reads"):
        draw(apply_negative(model, SETTINGS), negative=[[torch.nn.functional.pad(context, (0, 8)), beside]])


@pytest.mark.parametrize("made", ["LTX-Video"], indirect=True)
@pytest.mark.parametrize("sign", ["cross_attention_adaln", "caption_proj_before_connector"])
def test_ltx_video_whose_text_is_another_in_each_step_is_refused(model, monkeypatch, sign):
    """Marked as ComfyUI 0.33 marks LTX-2, which 0.3.75 has not."""
    monkeypatch.setattr(model.model.diffusion_model, sign, True, raising=False)
    with pytest.raises(SunError, match="LTXV, which Negative Prompt at CFG 1 does not work on"):
        apply_negative(model, SETTINGS)


@pytest.mark.parametrize("made", ["LTX-Video"], indirect=True)
def test_negative_that_outgrew_its_mask_is_refused(model, draw, prompt):
    """As behind Conditioning (Concat), which keeps the mask of the first text."""
    (first, beside), (second, _) = prompt(2)[0], prompt(3)[0]
    with pytest.raises(SunError, match="encode the whole negative prompt in one node"):
        draw(apply_negative(model, SETTINGS), negative=[[torch.cat([first, second], dim=1), beside]])


@pytest.mark.parametrize("made", ["LTX-Video"], indirect=True)
def test_negatives_of_different_lengths_in_one_batch_are_refused(model, draw, prompt):
    (first, beside), (second, other) = prompt(2)[0], prompt(3)[0]
    masks = {"attention_mask": torch.cat([beside["attention_mask"], other["attention_mask"]])}
    with pytest.raises(SunError, match="use one negative prompt for all images"):
        draw(apply_negative(model, SETTINGS), batch=2, negative=[[torch.cat([first, second]), masks]])


@pytest.mark.parametrize("made", ["Hunyuan-DiT"], indirect=True)
def test_long_negative_counts_as_a_whole(model, draw, recomputed, prompt, difference):
    """Learned padding takes the place of masked tokens among the last ones alone, as many as a short text has."""
    (first, beside), (second, _) = prompt(3)[0], prompt(2)[0]
    mask = torch.cat([torch.ones(1, 12), beside["attention_mask"]], dim=1)
    long = [[torch.cat([first, second], dim=1), beside | {"attention_mask": mask}]]
    found = draw(apply_negative(model, SETTINGS), negative=long)
    assert difference(found, draw(recomputed(model, long))) < 1e-5


@pytest.mark.parametrize("made", ["Hunyuan-DiT"], indirect=True)
def test_negative_of_a_single_encoder_is_refused(model, draw, prompt):
    """That of SD2.x is as wide as the CLIP of Hunyuan-DiT."""
    (context, _), *_ = prompt(2)
    with pytest.raises(SunError, match="was not encoded for Hunyuan-DiT"):
        draw(apply_negative(model, SETTINGS), negative=[[context, {}]])
