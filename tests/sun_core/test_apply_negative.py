"""A negative prompt at CFG 1 without an adapter, through ComfyUI's own U-Nets, ModelPatcher, hooks and samplers."""

import json

import comfy.cldm.cldm
import comfy.controlnet
import comfy.hooks
import comfy.lora
import comfy.model_base
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from sun_pack.sun_core.apply import apply_negative, apply_sun, has_sun
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.layers import cross_attention_layers
from sun_pack.sun_core.nag import NagSettings
from sun_pack.sun_core.settings import NegativeSettings, SunSettings
from torch.nn.functional import scaled_dot_product_attention

from .small_transformers import randomise
from .unet_configs import SD2, SD15, SDXL

CPU = torch.device("cpu")
FROM_SAMPLER = NegativeSettings(automatic=False)


@pytest.fixture
def negative(model):
    return apply_negative(model, NegativeSettings())


def recomputed(model, context, settings=FROM_SAMPLER.nag):
    """The same picture by a plain re-computation of every layer in every step."""

    def replacement(attention):
        def attend(q, k, v, heads):
            q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
            return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

        def replaced(q, k, v, extra_options):
            heads, c = extra_options["n_heads"], context.expand(len(q), -1, -1)
            text, neg = attend(q, k, v, heads), attend(q, attention.to_k(c), attention.to_v(c), heads)
            ext = settings.scale * text - (settings.scale - 1) * neg
            r = ext.abs().sum(-1, keepdim=True) / text.abs().sum(-1, keepdim=True)
            return settings.alpha * ext * r.clamp(max=settings.tau) / r + (1 - settings.alpha) * text

        return replaced

    patched = model.clone()
    for layer in cross_attention_layers(model.model.diffusion_model):
        patched.set_model_attn2_replace(replacement(layer.attention), *layer.block, layer.depth_index)
    return patched


def reference_runs(folder):
    runs = json.loads((folder / "nag.json").read_text())["runs"]
    return [(NagSettings(run["scale"], run["tau"], run["alpha"]), run) for run in runs]


@pytest.mark.parametrize("pack", ["ComfyUI-NAG", "sd-perturbed-attention"])
def test_pictures_are_those_of_the_public_packs(model, sample, difference, reference_folder, pack):
    for nag, run in reference_runs(reference_folder):
        found = sample(apply_negative(model, NegativeSettings(nag))).flatten()[::64]
        assert difference(found, torch.tensor(run[pack])) < 1e-5


@pytest.mark.parametrize("batch", [1, 3])
def test_picture_equals_a_plain_re_computation(model, negative, sample, difference, reference, batch):
    expected = sample(recomputed(model, reference.io["in.neg0"]), batch=batch)
    assert difference(sample(negative, batch=batch), expected) < 1e-5


def small(config, **changes):
    """A U-Net of that family's shape, narrow enough for a test."""
    return config | {"model_channels": 32, "context_dim": 48, "num_heads": 4, "dtype": torch.float32} | changes


class SmallSD2(comfy.supported_models.SD20):
    """SD2.x with narrow heads."""

    unet_extra_config = comfy.supported_models.SD20.unet_extra_config | {"num_head_channels": 8}


class KolorsUNet(UNetModel):
    """The text adapter of Kolors, as ComfyUI-Kolors-MZ puts it into a U-Net; ComfyUI itself cannot load Kolors."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.encoder_hid_proj = torch.nn.Linear(64, 48)

    def forward(self, *args, context, **kwargs):
        return super().forward(*args, context=self.encoder_hid_proj(context), **kwargs)


class Kolors(comfy.model_base.SDXL):
    """SDXL with the U-Net of Kolors."""

    def __init__(self, model_config, device):
        super().__init__(model_config, device=device)
        self.diffusion_model = KolorsUNet(**model_config.unet_config, device=device, operations=comfy.ops.manual_cast)


def of_depths(down, middle, up):
    """SDXL's shape with so many transformers in each block; a middle of -1 has none."""
    return small(SDXL, transformer_depth=down, transformer_depth_middle=middle, transformer_depth_output=up)


BASE, SUPPORTED = comfy.model_base, comfy.supported_models
FAMILIES = {
    "SD1.x inpaint": (BASE.BaseModel, SUPPORTED.SD15, small(SD15, in_channels=9)),
    "SD1.x instruct-pix2pix": (BASE.SD15_instructpix2pix, SUPPORTED.SD15_instructpix2pix, small(SD15, in_channels=8)),
    "SD2.x": (BASE.BaseModel, SmallSD2, small(SD2)),
    "SDXL": (BASE.SDXL, SUPPORTED.SDXL, of_depths([0, 0, 1, 1, 2, 2], 2, [0, 0, 0, 1, 1, 1, 2, 2, 2])),
    "SSD-1B": (BASE.SDXL, SUPPORTED.SSD1B, of_depths([0, 0, 2, 2, 4, 4], -1, [0, 0, 0, 1, 1, 2, 10, 4, 4])),
    "Segmind-Vega": (BASE.SDXL, SUPPORTED.Segmind_Vega, of_depths([0, 0, 1, 1, 2, 2], -1, [0, 0, 0, 1, 1, 1, 2, 2, 2])),
    "Kolors": (Kolors, SUPPORTED.SDXL, of_depths([0, 0, 1, 1, 2, 2], 2, [0, 0, 0, 1, 1, 1, 2, 2, 2])),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_unets_is_guided(family, sample, difference, evaluated):
    make, supported, config = FAMILIES[family]
    base = make(supported(config), device=CPU).eval().requires_grad_(False)
    randomise(base.diffusion_model)
    if "inpaint" in family:
        base.set_inpaint()
    model = comfy.model_patcher.ModelPatcher(base, CPU, CPU)
    width = 64 if family == "Kolors" else 48
    beside = {"pooled_output": torch.zeros(1, 1280), "concat_latent_image": torch.randn(1, 4, 16, 16)}
    positive, neg = ([[torch.randn(1, 77, width), beside]] for _ in range(2))
    conds = {"positive": positive, "negative": neg, "steps": 2}
    read = base.diffusion_model.encoder_hid_proj(neg[0][0]) if family == "Kolors" else neg[0][0]
    rows = evaluated(base.diffusion_model)
    found = sample(apply_negative(model, NegativeSettings()), cfg=7.0, **conds)
    assert rows == [1, 1]
    assert difference(found, sample(recomputed(model, read), **conds)) < 1e-5
    assert difference(found, sample(model, **conds)) > 1e-3


@pytest.fixture
def evaluated():
    """Counts the rows of a U-Net's forwards: `evaluated(unet)` is a list that grows."""
    hooks = []

    def evaluated(unet):
        rows: list[int] = []
        hooks.append(unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0]))))
        return rows

    yield evaluated
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize(
    ("sampler", "scheduler", "steps"), [("lcm", "sgm_uniform", 4), ("euler_ancestral", "karras", 6)]
)
def test_automatic_sets_cfg_1_and_leaves_sampler_scheduler_and_steps(
    model, sample, evaluations, sampler, scheduler, steps
):
    reports = []
    automatic = apply_negative(model, NegativeSettings(), report=reports.append)
    options = {"sampler": sampler, "scheduler": scheduler, "steps": steps}
    found = sample(automatic, cfg=7.0, **options)
    assert evaluations == [1] * steps, "one evaluation for each step, and no uncond beside it"
    assert torch.equal(found, sample(apply_negative(model, FROM_SAMPLER), cfg=1.0, **options))
    assert reports[0].changes == ["CFG 7 -> 1"] and reports[0].evaluations == steps


def test_report_calls_no_number_of_steps_too_large(model, sample):
    reports = []
    sample(apply_negative(model, NegativeSettings(), report=reports.append), steps=12)
    assert str(reports[0]).startswith("12 steps · 12 evaluations · ")


def test_cfg_of_the_sampler_guides_too_and_leaves_uncond_plain(model, sample, evaluations, difference):
    """With a positive that is the negative as well, plain CFG is no CFG: a guided uncond row would show."""
    from_sampler = apply_negative(model, FROM_SAMPLER)
    weighed_out = sample(from_sampler, cfg=1.0 + 1e-6)
    assert evaluations == [2] * 4
    assert difference(weighed_out, sample(from_sampler, cfg=1.0)) < 1e-4


@pytest.mark.parametrize("nag", [NagSettings(scale=1.0), NagSettings(alpha=0.0)])
def test_scale_1_and_alpha_0_equal_plain(model, sample, nag):
    assert torch.equal(sample(apply_negative(model, NegativeSettings(nag)), cfg=3.0), sample(model, cfg=3.0))


def test_range_of_the_sampling_is_resolved_from_the_runs_sigmas(model, negative, sample):
    def ranged(start, end):
        return sample(apply_negative(model, NegativeSettings(start_percent=start, end_percent=end)))

    assert torch.equal(ranged(0.0, 1.0), sample(negative))
    assert not torch.equal(ranged(0.0, 0.5), sample(negative)) and not torch.equal(ranged(0.0, 0.5), sample(model))
    assert torch.equal(ranged(0.99, 1.0), sample(model)), "no step of four lies in the last percent"


def test_batch_equals_its_singles(negative, reference, difference):
    io, sigmas = reference.io, torch.tensor([*reference.scheduler["sigmas_comfy"], 0.0])
    noises = torch.cat([io["in.latent0"], io["in.latent1"]])
    contexts = [torch.cat([io[f"in.{which}0"], io[f"in.{which}1"]]) for which in ("pos", "neg")]

    def sample(rows):
        conds = [[[context[rows], {}]] for context in contexts]
        sampler = comfy.samplers.sampler_object("euler")
        return comfy.sample.sample_custom(
            negative, noises[rows], 1.0, sampler, sigmas, *conds, torch.zeros_like(noises[rows]), seed=0
        )

    together = sample(slice(0, 2))
    for row in range(2):
        assert difference(together[row : row + 1], sample(slice(row, row + 1))) < 1e-5


def lora_of(model, seed=0):
    """A LoRA on every to_k and to_v of cross-attention, as files name its keys."""
    generator, lora = torch.Generator().manual_seed(seed), {}
    for key, weight in model.model.state_dict().items():
        if ".attn2.to_k." in key or ".attn2.to_v." in key:
            name = "lora_unet_" + key.removeprefix("diffusion_model.").removesuffix(".weight").replace(".", "_")
            for part, shape in (("up", (weight.shape[0], 2)), ("down", (2, weight.shape[1]))):
                lora[f"{name}.lora_{part}.weight"] = torch.randn(shape, generator=generator) * 0.1
    return lora


@pytest.fixture
def with_lora(model):
    """Loads a LoRA as Load LoRA does: `with_lora(MODEL)`."""
    return lambda onto: comfy.sd.load_lora_for_models(onto, None, lora_of(model), 1.0, 0.0)[0]


def test_lora_on_cross_attention_counts_for_the_negative_too(model, with_lora, negative, sample, difference, reference):
    before, after = apply_negative(with_lora(model), NegativeSettings()), with_lora(negative)
    expected = sample(recomputed(with_lora(model), reference.io["in.neg0"]))
    for patched in (before, after):
        assert difference(sample(patched), expected) < 1e-5
    assert difference(expected, sample(negative)) > 1e-3


def test_weights_that_stay_offloaded_give_the_same(with_lora, negative, sample, difference):
    """As far as a CPU goes: every weight is fetched, and the LoRA added, when a layer is called."""
    offloaded = with_lora(negative)
    expected = sample(offloaded.clone())
    offloaded.detach()
    offloaded.partially_load = lambda device, *_, **__: type(offloaded).partially_load(offloaded, device, 1)
    assert difference(sample(offloaded), expected) < 1e-5
    assert offloaded.lowvram_patch_counter() > 0
    offloaded.detach()


def test_lora_hook_on_the_positive_counts_for_the_negative_too(
    model, with_lora, negative, sample, conditioning, difference
):
    hooked = conditioning("pos0", hooks=comfy.hooks.create_hook_lora(lora_of(model), 1.0, 0.0))
    assert difference(sample(negative, positive=hooked), sample(with_lora(negative))) < 1e-5
    assert difference(sample(negative), sample(with_lora(negative))) > 1e-3, "and it is gone afterwards"


def test_lora_hook_whose_strength_changes_gives_other_keys_and_values(
    model, negative, sample, conditioning, difference, reference
):
    hooks, keyframes = comfy.hooks.create_hook_lora(lora_of(model), 1.0, 0.0), comfy.hooks.HookKeyframeGroup()
    for strength, start in ((1.0, 0.0), (-1.0, 0.5)):
        keyframes.add(comfy.hooks.HookKeyframe(strength, start))
    hooks.set_keyframes_on_hooks(keyframes)
    positive = conditioning("pos0", hooks=hooks)
    expected = sample(recomputed(model, reference.io["in.neg0"]), positive=positive)
    assert difference(sample(negative, positive=positive), expected) < 1e-5


def test_lora_hook_on_one_of_two_positives_is_gone_in_the_evaluation_of_the_other(
    model, negative, sample, conditioning, difference, reference
):
    hooks = comfy.hooks.create_hook_lora(lora_of(model), 1.0, 0.0)
    positive = conditioning("pos0", hooks=hooks) + conditioning("pos1")
    expected = sample(recomputed(model, reference.io["in.neg0"]), positive=positive)
    assert difference(sample(negative, positive=positive), expected) < 1e-5


@pytest.mark.parametrize("steps", [4, 7])
def test_keys_and_values_of_the_negative_are_made_once_per_run(model, negative, sample, steps):
    attention, contexts = cross_attention_layers(model.model.diffusion_model)[0].attention, []
    hooks = [
        linear.register_forward_pre_hook(lambda _, args: contexts.append(1))
        for linear in (attention.to_k, attention.to_v)
    ]
    sample(negative, steps=steps)
    for hook in hooks:
        hook.remove()
    assert len(contexts) == 2 * (steps + 1)


def test_input_model_stays_as_it_is(model, sample):
    before = sample(model)
    assert not torch.equal(sample(apply_negative(model, NegativeSettings())), before)
    assert torch.equal(sample(model), before)


def test_it_is_no_adapter(negative):
    assert not has_sun(negative)


def test_second_one_takes_the_place_of_the_first(model, negative, sample):
    strong = apply_negative(model, NegativeSettings(NagSettings(scale=8.0)))
    assert torch.equal(sample(apply_negative(strong, NegativeSettings())), sample(negative))


@pytest.mark.parametrize("adapter_last", [True, False])
def test_adapter_on_the_same_model_wins_and_the_report_says_so(model, adapter, sample, adapter_last):
    reports, of_adapter = [], []
    if adapter_last:
        both = apply_sun(
            apply_negative(model, NegativeSettings(), report=reports.append),
            adapter,
            SunSettings(),
            report=of_adapter.append,
        )
    else:
        both = apply_negative(
            apply_sun(model, adapter, SunSettings(), report=of_adapter.append),
            NegativeSettings(),
            report=reports.append,
        )
    assert torch.equal(sample(both), sample(apply_sun(model, adapter, SunSettings())))
    assert [str(report) for report in reports] == [
        "Negative Prompt at CFG 1 does nothing here: the SUN adapter on this MODEL reads the negative prompt already."
    ]
    assert len(of_adapter) == 1 and of_adapter[0].evaluations == 4


@pytest.mark.parametrize("adapter_last", [True, False])
def test_adapter_at_strength_0_leaves_the_negative_to_it(model, adapter, negative, sample, adapter_last):
    off = SunSettings(0.0, 0.0)
    if adapter_last:
        both = apply_sun(negative, adapter, off)
    else:
        both = apply_negative(apply_sun(model, adapter, off), NegativeSettings())
    assert torch.equal(sample(both), sample(negative))
    assert not torch.equal(sample(both), sample(model))


SD3 = {"in_channels": 16, "patch_size": 2, "depth": 1, "num_patches": 16, "qkv_bias": True}
WAN_WITH_SOUND = {"image_model": "wan2.1", "model_type": "s2v", "dim": 128, "num_heads": 1, "num_layers": 1}


@pytest.mark.parametrize(("family", "config"), [("SD3", SD3), ("WAN22_S2V", WAN_WITH_SOUND)])
def test_model_of_another_family_is_named_and_refused(family, config):
    base = getattr(comfy.supported_models, family)({**config, "dtype": torch.float32}).get_model({}, "", device=CPU)
    with pytest.raises(SunError, match=f"This MODEL is {family}, which Negative Prompt at CFG 1 does not work on; con"):
        apply_negative(comfy.model_patcher.ModelPatcher(base, CPU, CPU), NegativeSettings())


def test_control_net_on_the_positive_works_beside(reference, model, negative, sample, conditioning, difference):
    config = {k: v for k, v in reference.unet_config.items() if k not in ("out_channels", "transformer_depth_output")}
    net = comfy.cldm.cldm.ControlNet(hint_channels=3, dtype=torch.float32, device=CPU, **config).requires_grad_(False)
    randomise(net)
    control = comfy.controlnet.ControlNet(net, load_device=CPU).set_cond_hint(torch.rand(1, 3, 128, 128), 0.5)
    controlled = conditioning("pos0", control=control, control_apply_to_uncond=False)
    found = sample(negative, positive=controlled)
    assert difference(found, sample(recomputed(model, reference.io["in.neg0"]), positive=controlled)) < 1e-5
    assert difference(found, sample(negative)) > 1e-3


def test_control_net_on_the_negative_of_the_node_is_not_prepared(model, sample, conditioning):
    """ComfyUI frees what it prepared only for conditionings of the sampler's."""
    control, prepared = comfy.controlnet.ControlBase(), []
    control.pre_run = lambda *args: prepared.append(args)
    sample(apply_negative(model, NegativeSettings(), conditioning("neg0", control=control)))
    assert not prepared
