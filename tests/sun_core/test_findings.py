"""A run measures itself: what makes the picture another one than asked for is found in every run."""

from unittest import mock

import comfy.samplers
import pytest
import torch
from sun_pack.sun_core.adapter import SunAdapter
from sun_pack.sun_core.apply import apply_negative, apply_sun
from sun_pack.sun_core.errors import SunError, Text
from sun_pack.sun_core.measures import Measures
from sun_pack.sun_core.schedule import trailing_sigmas
from sun_pack.sun_core.settings import NegativeSettings, SunSettings


def test_an_ordinary_run_finds_nothing(sun, sample, reports):
    sample(sun, cfg=7.0, sampler="euler_ancestral", scheduler="karras", batch=2)
    assert list(reports[0].findings) == []


RANGES = [(0.99, 1.0), (0.6, 0.4)]


@pytest.mark.parametrize(("start", "end"), RANGES)
def test_range_in_which_no_step_lies_is_found(model, adapter, sample, reports, start, end):
    ranged = {"start_percent": start, "end_percent": end}
    for sun in (
        apply_sun(model, adapter, SunSettings(**ranged), report=reports.append),
        apply_negative(model, NegativeSettings(**ranged), report=reports.append),
    ):
        assert torch.equal(sample(sun), sample(model))
        (finding,) = reports.pop().findings
        assert finding.startswith("SUN had no effect, because no step of this run lies between its")


def test_range_whose_steps_alone_are_evaluated_is_no_finding(model, adapter, sample, reports):
    """A cache answers for the steps outside of it."""
    sun = apply_sun(model, adapter, SunSettings(end_percent=0.1), report=reports.append)
    calls = []

    def answered(executor, x, *args, **kwargs):
        calls.append(1)
        return executor(x, *args, **kwargs) if len(calls) == 1 else x

    sun.add_wrapper_with_key("diffusion_model", "cache", answered)
    sample(sun)
    assert reports[0].evaluations == 1 and "skipped 3 steps" in reports[0].findings[0]
    assert not any("SUN had no effect" in finding for finding in reports[0].findings)


@pytest.mark.parametrize("half_of_the_picture", [{"end_percent": 0.5}, {"start_percent": 0.5}], ids=["first", "second"])
def test_run_that_does_not_reach_into_the_range_is_no_finding(model, adapter, sample, reports, half_of_the_picture):
    """The other half of a picture of which one alone has SUN."""
    sun = apply_sun(model, adapter, SunSettings(**half_of_the_picture), report=reports.append)
    for first, last in ((0, 2), (2, 4)):
        sample(sun, start_step=first, last_step=last)
    assert [list(report.findings) for report in reports] == [[], []]


def test_range_between_the_steps_of_two_halves_is_found_once(model, adapter, sample, reports):
    sun = apply_sun(model, adapter, SunSettings(start_percent=0.3, end_percent=0.45), report=reports.append)
    for first, last in ((0, 2), (2, 4)):
        sample(sun, start_step=first, last_step=last)
    assert ["SUN had no effect" in " ".join(report.findings) for report in reports] == [True, False]


def test_strength_of_the_only_part_of_an_adapter_at_zero_is_found(model, sample, reports):
    adapter = SunAdapter.for_unet(model.model.diffusion_model, extra_positive=False)
    sun = apply_sun(model, adapter, SunSettings(negative_strength=0.0), report=reports.append)
    assert torch.equal(sample(sun), sample(model))
    (finding,) = reports.pop().findings
    assert "negative_strength" in finding and finding.startswith("SUN had no effect")
    sample(apply_sun(model, adapter, SunSettings(positive_strength=0.0), report=reports.append))
    assert list(reports[0].findings) == []


def test_range_in_which_a_step_lies_finds_nothing(model, adapter, sample, reports):
    sample(apply_sun(model, adapter, SunSettings(start_percent=0.0, end_percent=0.1), report=reports.append))
    assert list(reports[0].findings) == []


@pytest.fixture
def computed(reference_model):
    """One entry for each forward that the U-Net computed; a wrapper of ComfyUI may answer before that."""
    calls: list[int] = []
    first = reference_model.model.diffusion_model.time_embed
    hook = first.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    yield calls
    hook.remove()


@pytest.mark.parametrize("sun_first", [True, False])
@pytest.mark.parametrize("node", ["EasyCacheNode", "LazyCacheNode"])
def test_steps_that_a_cache_answers_are_found(model, adapter, sample, computed, reports, node, sun_first):
    from comfy_extras import nodes_easycache

    def cached(onto):
        return getattr(nodes_easycache, node).execute(onto, 3.0, 0.0, 1.0, False).args[0]

    def sped_up(onto):
        return apply_sun(onto, adapter, SunSettings(), report=reports.append)

    both = cached(sped_up(model)) if sun_first else sped_up(cached(model))
    for _ in range(2):
        computed.clear()
        sample(both)
        report = reports.pop()
        skipped = 4 - len(computed)
        assert skipped > 0 and report.evaluations == len(computed)
        (finding,) = report.findings
        assert f"skipped {skipped} step{'s' if skipped > 1 else ''}; remove it" in finding
        assert node.removesuffix("Node").lower() in finding and finding in str(report)


def test_layers_that_a_neighbour_takes_while_sampling_are_found(sun, sample, reports):
    """SUN wraps what it finds when sampling starts; what comes later takes its place."""

    def take(executor, x, t, c_concat, c_crossattn, control, transformer_options, **kwargs):
        replace = dict(transformer_options["patches_replace"]["attn2"])
        replace[("middle", 0)] = lambda q, k, v, extra_options: torch.zeros_like(q)
        options = {**transformer_options, "patches_replace": {"attn2": replace}}
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

    taken = sun.clone()
    taken.add_wrapper_with_key("apply_model", "taker", take)
    sample(taken)
    assert "SUN acted in 15 of 16 layers" in reports[0].findings[0]


@pytest.mark.parametrize("count", [1, 3])
def test_evaluations_that_a_cache_cuts_short_are_found(sun, sample, reports, count):
    """As First Block Cache does it: the U-Net is entered, and most of its layers do not run."""

    unet = sun.model.diffusion_model
    middles = iter([*[unet.middle_block] * (4 - count), *[None] * count])

    def cut(apply_model, args):
        with mock.patch.object(unet, "middle_block", next(middles)):
            return apply_model(args["input"], args["timestep"], **args["c"])

    patched = sun.clone()
    patched.set_model_unet_function_wrapper(cut)
    sample(patched)
    (finding,) = reports[0].findings
    assert f"answered for a part of the model in {count} of 4 evaluations" in finding
    assert "on the MODEL (test_evaluations_that" in finding


def test_guidance_that_evaluates_the_model_again_without_some_layers_is_no_cache(sun, sample, reports):
    """As skip-layer guidance does it: the whole model is evaluated too."""

    unet = sun.model.diffusion_model

    def guide(args):
        with mock.patch.object(unet, "middle_block", None):
            (cut,) = comfy.samplers.calc_cond_batch(
                args["model"], [args["cond"]], args["input"], args["sigma"], args["model_options"]
            )
        return args["denoised"] + (args["cond_denoised"] - cut)

    patched = sun.clone()
    patched.set_model_sampler_post_cfg_function(guide)
    sample(patched)
    assert reports[0].evaluations == 8 and not reports[0].findings


def test_node_that_evaluates_the_unet_without_sun_is_found(sun, model, sample, reports):
    """As DeepCache does it: the blocks are called in a function around the model, and nothing of ours is."""

    def evaluate(apply_model, args):
        base, sigma = model.model, args["timestep"]
        x = base.model_sampling.calculate_input(sigma, args["input"])
        timesteps = base.model_sampling.timestep(sigma).float()
        out = base.diffusion_model._forward(x, timesteps, args["c"]["c_crossattn"], transformer_options={})
        return base.model_sampling.calculate_denoised(sigma, out, args["input"])

    patched = sun.clone()
    patched.set_model_unet_function_wrapper(evaluate)
    assert torch.equal(sample(patched), sample(model))
    (finding,) = reports[0].findings
    assert finding.startswith("SUN had no effect, because another node (test_node_that") and "remove" in finding


def test_node_that_removes_wrappers_is_refused_behind_sun_and_works_before_it(model, adapter, sample):
    """As BrushNet does it: it puts dicts of its own in the place of all wrappers of two kinds."""

    def remove(onto):
        patched = onto.clone()
        own = {None: [lambda executor, *args, **kwargs: executor(*args, **kwargs)]}
        patched.wrappers.update({"outer_sample": own, "apply_model": dict(own)})
        return patched

    def sped_up(onto):
        return apply_sun(onto, adapter, SunSettings(), report=lambda report: None)

    with pytest.raises(SunError, match="put the SUN node behind that node"):
        sample(remove(sped_up(model)))
    assert torch.equal(sample(sped_up(remove(model))), sample(sped_up(model)))


@pytest.mark.parametrize("batch", [1, 2])
def test_negative_that_a_sampler_puts_among_the_keys_is_left_out_and_found_in_every_run(
    sun, sample, reference, reports, batch
):
    """As KSamplerWithNAG does it: the U-Net gets more rows of context than of pictures, its negative last."""

    def append_negative(executor, x, timesteps, context, *args, **kwargs):
        negative = reference.io["in.neg1"].expand_as(context)
        return executor(x, timesteps, torch.cat([context, negative]), *args, **kwargs)

    patched = sun.clone()
    patched.add_wrapper_with_key("diffusion_model", "nag", append_negative)
    expected = sample(sun, batch=batch)
    for _ in range(2):
        assert torch.equal(sample(patched, batch=batch), expected)
        (finding,) = reports.pop().findings
        assert "as KSamplerWithNAG does" in finding and "use KSampler" in finding


@pytest.mark.parametrize("automatic", [True, False])
def test_second_prompt_of_dual_cfg_is_found_to_have_no_effect_unless_it_is_evaluated(
    model, adapter, conditioning, reports, automatic
):
    import comfy.sample
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG

    guider = Guider_DualCFG(apply_sun(model, adapter, SunSettings(automatic=automatic), report=reports.append))
    guider.set_conds(conditioning("pos0"), conditioning("pos1"), conditioning("neg0"))
    guider.set_cfg(5.0, 3.0)
    sigmas = trailing_sigmas(model.get_model_object("model_sampling").sigmas, 4)
    noise = comfy.sample.prepare_noise(torch.zeros(1, 4, 16, 16), 0)
    guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, seed=0)
    if automatic:
        (finding,) = reports[0].findings
        assert '"middle" has no effect' in finding and "Conditioning (Combine)" in finding
    else:
        assert list(reports[0].findings) == []


@pytest.mark.parametrize("scheduler", ["karras", "exponential", "ddim_uniform"])
@pytest.mark.parametrize(("first", "last"), [(0, 2), (1, 2), (1, 3)])
def test_part_of_a_run_on_a_scheduler_with_other_steps_is_found(sun, sample, reports, scheduler, first, last):
    sample(sun, scheduler=scheduler, start_step=first, last_step=last)
    (finding,) = reports[0].findings
    assert finding.startswith("This run ends before the picture is done") and "set the scheduler to simple" in finding
    assert isinstance(finding, Text), "the page can show it in its language"


@pytest.mark.parametrize("scheduler", ["simple", "sgm_uniform"])
@pytest.mark.parametrize(("steps", "first", "last"), [(4, 0, 2), (4, 1, 3), (4, 2, 3), (7, 2, 4)])
def test_part_of_a_run_on_an_even_scheduler_finds_nothing(sun, sample, reports, scheduler, steps, first, last):
    sample(sun, scheduler=scheduler, steps=steps, start_step=first, last_step=last)
    assert list(reports[0].findings) == []


@pytest.mark.parametrize(
    ("measured", "found"),
    [
        ({"uncond_readers": ["APG"]}, "APG has no effect at CFG 1, because it changes what CFG does; remove it, or"),
        ({"uncond_readers": ["APG", "TCFG"]}, "APG and TCFG have no effect at CFG 1, because they change"),
        ({"unused_prompts": ["middle", "last"]}, 'prompts "middle" and "last" have no effect'),
        ({"skipped": 1, "evaluations": 3}, "skipped 1 step; remove"),
        ({"skipped": 2, "evaluations": 2}, "skipped 2 steps; remove"),
    ],
)
def test_finding_speaks_of_one_thing_or_of_several(measured, found):
    (finding,) = Measures(**measured).findings(automatic=True)
    assert found in finding


def test_remedy_for_missing_cfg_names_the_settings_of_the_node_only_if_they_are_automatic():
    measures = Measures(uncond_readers=["APG"])
    (automatic,), (from_sampler,) = (measures.findings(automatic=automatic) for automatic in (True, False))
    assert automatic.endswith('or set "settings" of the SUN node to "from sampler" and CFG above 1.')
    assert from_sampler.endswith("; remove it, or set CFG above 1.")
