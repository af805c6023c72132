"""CFG that lives outside of the guider, and functions that need a prediction for the negative."""

import comfy.sample
import comfy.samplers
import pytest
import torch
from sun_pack.sun_core.apply import apply_sun
from sun_pack.sun_core.guidance import CfgReader, Guidance, PostCfgReader
from sun_pack.sun_core.measures import Measures
from sun_pack.sun_core.schedule import trailing_sigmas
from sun_pack.sun_core.settings import SunSettings
from workshop.speed.operations import Operations

from .test_operations import WAITS


@pytest.fixture
def from_sampler(model, adapter, reports):
    """The same, but for the sampler being in charge."""
    return apply_sun(model, adapter, SunSettings(automatic=False), report=reports.append)


def cfg_override(model, cfg):
    """As ComfyUI 0.33's CFGOverride does it, which 0.3.75 has not."""

    def predict_noise(executor, *args, **kwargs):
        guider = executor.class_obj
        saved, guider.cfg = guider.cfg, cfg
        try:
            return executor(*args, **kwargs)
        finally:
            guider.cfg = saved

    patched = model.clone()
    patched.add_wrapper("predict_noise", predict_noise)
    return patched


def guide(guider, cfg, model):
    guider.set_cfg(cfg)
    sigmas = trailing_sigmas(model.get_model_object("model_sampling").sigmas, 4)
    noise = comfy.sample.prepare_noise(torch.zeros(1, 4, 16, 16), 0)
    return guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, seed=0)


class TableGuider(comfy.samplers.CFGGuider):
    """A guider that keeps its CFG scale in a table of its own, as RES4LYF's and Inspire's do."""

    def set_cfg(self, cfg):
        self.table = {"cfg": cfg}

    def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006 (ComfyUI's own signature)
        conds = self.conds["negative"], self.conds["positive"]
        return comfy.samplers.sampling_function(
            self.inner_model, x, timestep, *conds, self.table["cfg"], model_options=model_options, seed=seed
        )


def test_cfg_of_a_wrapper_on_the_model_has_no_effect(sun, sample, evaluations, reports):
    out = sample(cfg_override(sun, 7.0), sampler="heun")
    assert evaluations == [1, 1, 1, 1]
    assert torch.equal(out, sample(sun))
    assert reports[0].changes == ["CFG -> 1", "sampler heun -> euler"] and list(reports[0].findings) == []


def test_cfg_that_a_guider_keeps_to_itself_has_no_effect(sun, sample, conditioning, evaluations, reports):
    guider = TableGuider(sun)
    guider.set_conds(conditioning("pos0"), conditioning("neg0"))
    out = guide(guider, 5.5, sun)
    assert evaluations == [1, 1, 1, 1]
    assert torch.equal(out, sample(sun))
    assert reports[0].changes == ["CFG -> 1"]


def test_perp_neg_guider_runs_without_guidance(sun, sample, conditioning, evaluations, difference):
    from comfy_extras.nodes_perpneg import Guider_PerpNeg

    guider = Guider_PerpNeg(sun)
    guider.set_conds(conditioning("pos0"), conditioning("neg0"), conditioning("neg1"))
    guider.set_cfg = lambda cfg: Guider_PerpNeg.set_cfg(guider, cfg, 1.0)
    out = guide(guider, 7.0, sun)
    assert evaluations == [1, 1, 1, 1] and difference(out, sample(sun)) < 1e-2


def test_from_sampler_leaves_every_cfg_alone(from_sampler, sample, evaluations, reports, difference):
    out = sample(cfg_override(from_sampler, 7.0))
    assert evaluations == [2, 2, 2, 2] and list(reports[0].findings) == []
    assert difference(out, sample(from_sampler, cfg=7.0)) < 1e-6


def test_cfg_pass_that_bypasses_comfyui_is_found_in_every_run(sun, sample, conditioning, evaluations, reports):
    """A pack may evaluate the U-Net by a batch function of its own."""

    def own_batch(args):
        model, x, sigma, options = args["model"], args["input"], args["sigma"], args["model_options"]
        conds = [args["conds"][0], model.current_patcher.negative]
        return comfy.samplers._calc_cond_batch(model, conds, x, sigma, options)

    patched = sun.clone()
    patched.set_model_sampler_calc_cond_batch_function(own_batch)

    def keep_negative(executor, guider, *args, **kwargs):
        guider.model_patcher.negative = guider.conds["negative"]
        return executor(guider, *args, **kwargs)

    patched.add_wrapper_with_key("sampler_sample", "own", keep_negative)
    for _ in range(2):
        sample(patched)
        (finding,) = reports.pop().findings
        assert "evaluated the negative prompt too, in 4 of 8 rows" in finding and "set CFG to 1" in finding


def test_self_attention_guidance_gets_its_uncond(sun, from_sampler, sample, evaluations, reports):
    """It asks ComfyUI for the negative at CFG 1 too."""
    from comfy_extras.nodes_sag import SelfAttentionGuidance

    def guided(onto):
        return SelfAttentionGuidance.execute(onto, 0.5, 2.0).args[0]

    out = sample(guided(sun), cfg=7.0)
    assert sum(evaluations) == 4 * 3
    assert torch.equal(out, sample(guided(from_sampler))) and not torch.equal(out, sample(sun))
    assert list(reports[0].findings) == []


def test_cfg_beside_a_node_that_asks_for_the_uncond_is_found(sun, sample, reports):
    from comfy_extras.nodes_sag import SelfAttentionGuidance

    sample(cfg_override(SelfAttentionGuidance.execute(sun, 0.5, 2.0).args[0], 7.0))
    assert "evaluated the negative prompt too with CFG 7, in" in reports[0].findings[0]


def test_perturbed_attention_guidance_needs_no_uncond(sun, sample, reports):
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    guided = PerturbedAttentionGuidance.execute(sun, 3.0).args[0]
    assert not torch.equal(sample(guided), sample(sun))
    assert [list(report.findings) for report in reports] == [[], []]


def apg(model):
    from comfy_extras.nodes_apg import APG

    return APG.execute(model, 1.0, 5.0, 0.0).args[0]


def rescale_cfg(model):
    from comfy_extras.nodes_model_advanced import RescaleCFG

    return RescaleCFG().patch(model, 0.7)[0]


def mahiro(model):
    from comfy_extras.nodes_mahiro import Mahiro

    return Mahiro.execute(model).args[0]


def tcfg(model):
    from comfy_extras.nodes_tcfg import TCFG

    return TCFG.execute(model).args[0]


def fresca(model):
    from comfy_extras.nodes_fresca import FreSca

    return FreSca.execute(model, 1.0, 1.25, 20).args[0]


def cfg_norm(model, strength=1.0):
    from comfy_extras.nodes_cfg import CFGNorm

    return CFGNorm.execute(model, strength).args[0]


@pytest.mark.parametrize(
    ("guided", "name"),
    [
        *[(apg, "APG"), (rescale_cfg, "RescaleCFG"), (mahiro, "Mahiro"), (tcfg, "TCFG"), (fresca, "FreSca")],
        (cfg_norm, "CFGNorm"),
    ],
)
def test_function_that_needs_an_uncond_has_no_effect_and_is_named_in_every_run(
    sun, sample, reports, difference, guided, name
):
    plain = sample(sun)
    for _ in range(2):
        assert difference(sample(guided(sun), cfg=7.0), plain) < 1e-5
        (finding,) = reports.pop().findings
        assert finding.startswith(f"{name} has no effect at CFG 1, because") and "remove it" in finding


def test_function_behind_cfg_that_acts_is_not_named(sun, sample, reports):
    """CFGNorm at another strength than 1 scales the prediction."""
    assert not torch.equal(sample(cfg_norm(sun, 0.9)), sample(sun))
    assert [list(report.findings) for report in reports] == [[], []]


def test_guidance_of_another_kind_at_scale_0_is_not_said_to_need_cfg(sun, sample, reports):
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    assert torch.equal(sample(PerturbedAttentionGuidance.execute(sun, 0.0).args[0]), sample(sun))
    assert [list(report.findings) for report in reports] == [[], []]


def test_evaluations_that_a_function_without_effect_makes_are_found(sun, sample, conditioning, evaluations, reports):
    from comfy_extras.nodes_perpneg import PerpNeg

    sample(PerpNeg.execute(sun, conditioning("neg1"), 1.0).args[0], cfg=7.0)
    (finding,) = reports[0].findings
    assert finding.startswith("PerpNeg has no effect at CFG 1, wasting 4 of 8 evaluations, because")
    assert len(evaluations) == 8


def zero_init(onto, steps=1):
    """As CFGZeroStarAndInit of KJNodes does it: it gives zeros for the noise in the first steps."""
    first_sigmas = set(onto.get_model_object("model_sampling").sigmas[[-1, 749]][:steps].tolist())

    def init(args):
        return args["cond"] * 0 if float(args["sigma"][0]) in first_sigmas else args["cond"]

    patched = onto.clone()
    patched.set_model_sampler_cfg_function(init)
    return patched


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("of", ["sun", "from_sampler"])
def test_prediction_that_a_function_discards_is_found_in_every_run(request, sample, reports, of, steps):
    patched = zero_init(request.getfixturevalue(of), steps)
    for _ in range(2):
        sample(patched)
        (finding,) = reports.pop().findings
        assert finding.startswith(f"zero_init discards what the model predicts in {steps} of 4 steps")
        assert "noise stays" in finding and "remove it" in finding


@pytest.mark.parametrize("place", ["set_model_sampler_post_cfg_function", "set_model_sampler_pre_cfg_function"])
def test_function_around_cfg_that_gives_the_noisy_latents_back_discards_the_prediction(sun, sample, reports, place):
    def give_back(args):
        return [args["input"]] * 2 if "conds_out" in args else args["input"]

    patched = sun.clone()
    getattr(patched, place)(give_back)
    sample(patched)
    assert "discards what the model predicts in 4 of 4 steps" in reports[0].findings[0]


def test_prediction_that_is_discarded_twice_is_one(sun, sample, conditioning, reports):
    """A guider may combine several times for one prediction, as nested guidance of two prompts does."""

    class TwiceGuider(TableGuider):
        def predict_noise(self, *args, **kwargs):
            super().predict_noise(*args, **kwargs)
            return super().predict_noise(*args, **kwargs)

    guider = TwiceGuider(zero_init(sun))
    guider.set_conds(conditioning("pos0"), conditioning("neg0"))
    guide(guider, 1.0, sun)
    assert "in 1 of 4 steps" in reports[0].findings[0]


def test_comparing_predictions_waits_for_no_device():
    guidance = Guidance(Measures(), frozenset(), frozenset(), automatic=True)
    x = torch.ones(1, 4, 8, 8)
    args = {"cond": x, "uncond": x, "cond_denoised": x, "uncond_denoised": x, "input_uncond": None}
    with Operations() as operations:
        CfgReader(lambda args: args["cond"] * 0, guidance)(args)
    assert operations.counts["mul"] and not any(operations.counts[name] for name in WAITS)


@pytest.mark.parametrize("cfg", [1.0, 7.0])
def test_function_that_is_not_told_the_negative_still_gets_a_stand_in(sun, sample, monkeypatch, reports, cfg):
    """Automatic CFG has a sampling function of its own, which gives functions other arguments than ComfyUI's."""

    def sampling_function(model, x, timestep, uncond, cond, cond_scale, model_options={}, seed=None):  # noqa: B006
        conds = [cond, uncond if cond_scale != 1.0 else None]
        cond_pred, uncond_pred = comfy.samplers.calc_cond_batch(model, conds, x, timestep, model_options)
        args = {"cond": x - cond_pred, "uncond": x - uncond_pred, "cond_denoised": cond_pred}
        args |= {"uncond_denoised": uncond_pred, "cond_scale": cond_scale, "sigma": timestep, "input": x}
        return x - model_options["sampler_cfg_function"](args)

    monkeypatch.setattr(comfy.samplers, "sampling_function", sampling_function)
    patched = sun.clone()
    patched.set_model_sampler_cfg_function(lambda args: args["uncond"] + 7.0 * (args["cond"] - args["uncond"]))
    drawn = sample(cfg_override(patched, cfg))
    monkeypatch.undo()
    assert torch.equal(drawn, sample(sun))
    assert "has no effect" in reports[0].findings[0]


def by_zero(args):
    """As "linear interpolation" of Skimmed CFG begins."""
    cond, uncond = args["conds_out"]
    weight = 4.0 / (args["cond_scale"] - 1)
    return [cond, cond * (1 - weight) + uncond * weight]


def no_number(args):
    """As "Difference CFG" of Skimmed CFG does it by a norm."""
    cond, uncond = args["conds_out"]
    weight = (cond.norm() / uncond.norm() - 1) / (args["cond_scale"] - 1)
    return [cond, cond * (1 - weight) + uncond * weight]


def flip(args):
    """As "flip flop" of the same author."""
    return args["conds_out"][::-1]


@pytest.mark.parametrize("function", [by_zero, no_number, flip])
def test_function_before_cfg_that_cannot_be_without_it_has_no_effect_and_is_named(
    sun, sample, reports, difference, function
):
    patched = sun.clone()
    patched.set_model_sampler_pre_cfg_function(function)
    drawn = sample(patched, cfg=7.0)
    (finding,) = reports.pop().findings
    assert finding.startswith(f"test_guidance.{function.__name__} has no effect at CFG 1")
    assert difference(drawn, sample(sun)) < 1e-5


@pytest.mark.parametrize("evaluates_negative", [True, False])
def test_division_by_zero_with_cfg_from_the_sampler_stays_the_packs_own(model, adapter, sample, evaluates_negative):
    patched = apply_sun(model, adapter, SunSettings(automatic=False))
    patched.model_options["disable_cfg1_optimization"] = evaluates_negative
    patched.set_model_sampler_pre_cfg_function(by_zero)
    with pytest.raises(ZeroDivisionError):
        sample(patched, cfg=1.0)


def test_function_before_cfg_gets_what_the_plain_model_gives_it_with_cfg_from_the_sampler(model, adapter, sample):
    """Skimmed CFG leaves predictions alone if the negative's are zeros, as they are at CFG 1."""

    def unless_zeros(args):
        return by_zero(args) if args["conds_out"][1].any() else args["conds_out"]

    sun = apply_sun(model, adapter, SunSettings(automatic=False))
    patched = sun.clone()
    patched.set_model_sampler_pre_cfg_function(unless_zeros)
    assert torch.equal(sample(patched, cfg=1.0), sample(sun, cfg=1.0))


def test_function_before_cfg_may_make_its_result_of_the_class_that_it_is_given(sun, sample):
    """As bleh's BlehContrastiveOrthoCFG does."""
    patched = sun.clone()
    patched.set_model_sampler_pre_cfg_function(lambda args: args["conds_out"].__class__(tuple(args["conds_out"])))
    assert torch.equal(sample(patched), sample(sun))


def test_function_that_divides_by_the_distance_to_an_uncond_has_no_effect(sun, sample, reports, difference):
    """As Latent Modifiers do it."""

    def divide(args):
        guided = args["cond"] - args["uncond"]
        return args["uncond"] + guided * (guided.norm() / guided.norm())

    patched = sun.clone()
    patched.set_model_sampler_cfg_function(divide)
    drawn = sample(patched, cfg=7.0)
    assert "has no effect" in reports.pop().findings[0]
    assert difference(drawn, sample(sun)) < 1e-5


@pytest.mark.parametrize("place", ["pre_cfg", "post_cfg", "cfg"])
def test_function_that_changes_what_it_is_given_is_not_said_to_have_no_effect(sun, sample, reports, difference, place):
    """It gives back the tensor that it was given, and has looked for the negative."""

    def change(args):
        if place == "pre_cfg":
            args["conds_out"][0].mul_(0.9), args["conds_out"][1].any()
            return args["conds_out"]
        args["uncond_denoised"].any()
        return args["denoised" if place == "post_cfg" else "cond"].mul_(0.9)

    patched = sun.clone()
    getattr(patched, f"set_model_sampler_{place}_function")(change)
    drawn = sample(patched)
    assert list(reports.pop().findings) == []
    assert difference(drawn, sample(sun)) > 0.02


@pytest.mark.parametrize("place", ["pre_cfg", "cfg"])
def test_function_that_changes_its_uncond_in_place_leaves_the_cond_alone(sun, sample, difference, place):
    def change(args):
        if place == "pre_cfg":
            args["conds_out"][1].mul_(0.9)
            return args["conds_out"]
        args["uncond"].mul_(0.9), args["uncond_denoised"].mul_(0.9)
        return (args["cond"] + args["input"] - args["cond_denoised"]) / 2  # twice the same

    patched = sun.clone()
    getattr(patched, f"set_model_sampler_{place}_function")(change)
    assert difference(sample(patched), sample(sun)) < 1e-5


def test_guider_that_does_not_say_what_it_combines_tells_functions_its_cfg_with_settings_from_the_sampler():
    told = []
    guidance = Guidance(Measures(), frozenset(), frozenset(), automatic=False)
    reader = PostCfgReader(lambda args: told.append(args["cond_scale"]) or args["denoised"], guidance)
    prediction = torch.ones(1)
    reader(
        {"denoised": prediction, "uncond": None, "uncond_denoised": prediction, "cond_scale": 7, "input": prediction}
    )
    assert told == [7]


def test_function_that_needs_an_uncond_works_with_cfg_from_the_sampler(from_sampler, sample, reports):
    assert not torch.equal(sample(apg(from_sampler), cfg=7.0), sample(from_sampler, cfg=7.0))
    assert list(reports[0].findings) == []


@pytest.mark.parametrize("place", ["cfg", "post_cfg"])
def test_function_that_combines_as_comfyui_does_gives_its_picture_with_cfg_from_the_sampler(
    from_sampler, sample, difference, place
):
    def combine(args):
        of = "_denoised" if place == "post_cfg" else ""
        return args["uncond" + of] + args["cond_scale"] * (args["cond" + of] - args["uncond" + of])

    patched = from_sampler.clone()
    getattr(patched, f"set_model_sampler_{place}_function")(combine)
    assert difference(sample(patched, cfg=7.0), sample(from_sampler, cfg=7.0)) < 1e-5


def test_two_functions_are_named_in_one_sentence(sun, sample, reports):
    sample(rescale_cfg(apg(sun)))
    assert reports[0].findings[0].startswith("RescaleCFG and APG have no effect at CFG 1")


def test_function_behind_cfg_that_knows_a_run_without_cfg_by_zeros_still_does(sun, sample, difference):
    """Perturbed-attention packs choose their formula so; a hidden CFG does not change it."""

    def add(args):
        return args["denoised"] * (1.0 if args["uncond_denoised"].any() else 0.5)

    patched = sun.clone()
    patched.set_model_sampler_post_cfg_function(add)
    assert torch.equal(sample(cfg_override(patched, 7.0)), sample(patched))
    assert difference(sample(patched), sample(sun)) > 0.1
