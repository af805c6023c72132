"""Automatic settings: whatever the sampler says, the run is CFG 1 on trailing sigmas with a deterministic sampler."""

import importlib

import comfy.k_diffusion.sampling
import comfy.sample
import comfy.samplers
import pytest
import torch
from sun_pack.sun_core.apply import apply_sun
from sun_pack.sun_core.schedule import trailing_sigmas
from sun_pack.sun_core.settings import SunSettings


@pytest.fixture
def sun(model, adapter):
    """A MODEL with automatic settings; what it reports is in `sun.reports`."""
    reports = []
    patched = apply_sun(model, adapter, SunSettings(), report=reports.append)
    patched.reports = reports
    return patched


@pytest.fixture
def explicit(model, adapter):
    """The same, but for the sampler being in charge."""
    return apply_sun(model, adapter, SunSettings(automatic=False))


@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [
        ("euler_ancestral", "karras"),
        ("dpmpp_2m_sde", "exponential"),
        ("lcm", "sgm_uniform"),
        ("heun", "normal"),
        ("uni_pc", "beta"),
        ("ddim", "kl_optimal"),
        ("ddim", "ddim_uniform"),
        ("euler", "linear_quadratic"),
        ("euler", "simple"),
    ],
)
def test_picture_is_bit_for_bit_that_of_the_right_settings(sun, explicit, sample, evaluations, sampler, scheduler):
    out = sample(sun, cfg=7.0, sampler=sampler, scheduler=scheduler)
    assert evaluations == [1, 1, 1, 1], "one evaluation per step, and no uncond beside it"
    assert torch.equal(out, sample(explicit, cfg=1.0, sampler="euler", scheduler="simple"))


def test_dpmpp_2m_is_deterministic_and_stays(sun, explicit, sample, evaluations):
    out = sample(sun, cfg=7.0, sampler="dpmpp_2m", scheduler="karras")
    assert evaluations == [1, 1, 1, 1]
    assert torch.equal(out, sample(explicit, cfg=1.0, sampler="dpmpp_2m", scheduler="simple"))
    assert "sampler" not in str(sun.reports[0])


def test_dpmpp_2m_stays_after_a_pack_has_reloaded_comfyuis_samplers(sun, explicit, sample):
    """RES4LYF does so when it is loaded."""
    module = comfy.k_diffusion.sampling
    before = dict(vars(module))
    try:
        importlib.reload(module)
        assert module.sample_dpmpp_2m is not before["sample_dpmpp_2m"]
        out = sample(sun, sampler="dpmpp_2m")
    finally:
        vars(module).update(before)
    assert torch.equal(out, sample(explicit, sampler="dpmpp_2m"))
    assert list(sun.reports[0].changes) == []


def test_sampler_of_another_pack_with_comfyuis_name_is_not_taken_for_it(sun, sample, monkeypatch):
    def sample_euler(model, x, sigmas, extra_args=None, callback=None, disable=None):
        raise AssertionError("never runs")

    monkeypatch.setattr(comfy.samplers.k_diffusion_sampling, "sample_heun", sample_euler)
    sample(sun, sampler="heun")
    assert list(sun.reports[0].changes) == ["sampler sample_euler of another pack -> euler"]


def test_euler_with_churn_is_not_deterministic(sun, explicit, sample, conditioning):
    sampler = comfy.samplers.ksampler("euler", {"s_churn": 1.0})
    sigmas = trailing_sigmas(sun.get_model_object("model_sampling").sigmas, 4)
    noise = comfy.sample.prepare_noise(torch.zeros(1, 4, 16, 16), 0)
    conds = conditioning("pos0"), conditioning("neg0")
    out = comfy.sample.sample_custom(sun, noise, 1.0, sampler, sigmas, *conds, torch.zeros_like(noise), seed=0)
    assert torch.equal(out, sample(explicit))


def test_what_was_overridden_is_told(sun, sample):
    sample(sun, cfg=7.0, sampler="euler_ancestral", scheduler="karras")
    (report,) = sun.reports
    told = str(report)
    assert told.startswith("4 steps · 4 evaluations · ")
    assert told.endswith(" s · automatic: CFG 7 -> 1, sampler euler_ancestral -> euler, scheduler -> trailing")


def test_nothing_overridden_is_told_too(sun, sample):
    sample(sun)
    (report,) = sun.reports
    assert (report.steps, report.evaluations, report.changes) == (4, 4, [])
    assert 0 < report.seconds < 60 and "automatic" not in str(report)


def test_a_run_with_the_samplers_own_settings_is_told_with_its_evaluations(model, adapter, sample):
    reports = []
    sample(apply_sun(model, adapter, SunSettings(automatic=False), report=reports.append), sampler="heun")
    assert [(report.steps, report.evaluations, report.changes) for report in reports] == [(4, 7, ())]


def test_an_interrupted_run_leaves_no_trace_in_the_next_report(sun, sample, monkeypatch):
    def interrupt(*args, **kwargs):
        raise RuntimeError("interrupted")

    with monkeypatch.context() as context, pytest.raises(RuntimeError):
        context.setattr(comfy.samplers, "sampling_function", interrupt)
        sample(sun)
    assert sun.reports == []
    sample(sun)
    assert [report.evaluations for report in sun.reports] == [4]


def test_more_steps_than_an_adapter_needs_are_said_to_be_many(sun, sample):
    sample(sun, steps=9)
    assert str(sun.reports[0]).startswith("9 steps (4 are enough) · 9 evaluations · ")


@pytest.mark.parametrize(("distilled", "hint"), [("8", ""), ("2", " (2 are enough)"), ("1", " (1 is enough)")])
def test_steps_that_are_enough_are_those_that_the_adapter_was_distilled_for(model, adapter, sample, distilled, hint):
    own, reports = adapter.copy(), []
    own.metadata = {"steps": distilled}
    sample(apply_sun(model, own, SunSettings(), report=reports.append), steps=9)
    assert str(reports[0]).startswith(f"9 steps{hint} · 9 evaluations · ")


def test_number_of_steps_is_the_runs_own(sun, explicit, sample, evaluations):
    out = sample(sun, cfg=7.0, steps=5, scheduler="karras")
    assert len(evaluations) == 5
    assert torch.equal(out, sample(explicit, steps=5))


def test_guider_gets_its_cfg_back(sun, conditioning):
    guider = comfy.samplers.CFGGuider(sun)
    guider.set_conds(conditioning("pos0"), conditioning("neg0"))
    guider.set_cfg(7.0)
    noise, sampler = torch.randn(1, 4, 16, 16), comfy.samplers.sampler_object("euler")
    guider.sample(noise, torch.zeros_like(noise), sampler, torch.tensor([14.0, 1.0, 0.0]))
    assert guider.cfg == 7.0


def test_dual_cfg_guider_runs_without_guidance(sun, sample, conditioning, evaluations):
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG

    guider = Guider_DualCFG(sun)
    guider.set_conds(conditioning("pos0"), conditioning("pos1"), conditioning("neg0"))
    guider.set_cfg(5.0, 3.0)
    noise = comfy.sample.prepare_noise(torch.zeros(1, 4, 16, 16), 0)
    sigmas = trailing_sigmas(sun.get_model_object("model_sampling").sigmas, 4)
    out = guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, seed=0)
    assert evaluations == [1, 1, 1, 1] and (guider.cfg1, guider.cfg2) == (5.0, 3.0)
    assert torch.equal(out, sample(sun))
    assert "CFG 3 -> 1, CFG 5 -> 1" in str(sun.reports[0])


@pytest.mark.parametrize("scheduler", ["simple", "karras"])
def test_image_to_image_starts_at_the_noise_level_that_the_sampler_chose(
    sun, explicit, sample, reference, evaluations, conditioning, scheduler
):
    latent = reference.io["in.latent1"]
    out = sample(sun, cfg=7.0, scheduler=scheduler, denoise=0.5, latent=latent)
    assert evaluations == [1, 1, 1, 1]

    ms = sun.get_model_object("model_sampling")
    if scheduler == "simple":
        sigmas = trailing_sigmas(ms.sigmas, 4, denoise=0.5)
    else:
        start = comfy.samplers.calculate_sigmas(ms, scheduler, 8)[4]
        below = int(ms.timestep(start)) + 1
        inner = ms.sigmas[[round(below - i * below / 4) - 1 for i in (1, 2, 3)]]
        sigmas = torch.cat([start[None], inner, torch.zeros(1)])
    noise = comfy.sample.prepare_noise(latent, 0)
    conds = conditioning("pos0"), conditioning("neg0")
    sampler = comfy.samplers.sampler_object("euler")
    assert torch.equal(out, comfy.sample.sample_custom(explicit, noise, 1.0, sampler, sigmas, *conds, latent, seed=0))


def test_two_ksamplers_advanced_make_the_picture_of_one(sun, sample, evaluations, difference):
    """Steps 0-2 of 4 with leftover noise, then 2-4 of 4 without new noise."""
    settings = {"cfg": 7.0, "sampler": "euler_ancestral"}
    first = sample(sun, **settings, start_step=0, last_step=2)
    second = sample(sun, **settings, start_step=2, last_step=4, disable_noise=True, latent=first)
    assert evaluations == [1, 1, 1, 1]
    assert difference(second, sample(sun)) < 1e-5


def test_two_ksamplers_advanced_meet_on_any_scheduler(sun, explicit, sample, evaluations):
    settings = {"cfg": 7.0, "sampler": "lcm", "scheduler": "karras"}
    first = sample(sun, **settings, start_step=0, last_step=2)
    second = sample(sun, **settings, start_step=2, last_step=4, disable_noise=True, latent=first)
    assert evaluations == [1, 1, 1, 1] and second.isfinite().all()
    forced = sample(sun, **settings, start_step=0, last_step=2, force_full_denoise=True)
    assert torch.equal(forced, sample(explicit, steps=2)), "without leftover noise it is a whole run of two steps"


@pytest.mark.parametrize("steps", [4, 7])
def test_ddim_uniform_begins_below_the_top_and_is_a_whole_run_all_the_same(sun, explicit, sample, steps):
    """At 4 steps it begins at timestep 751; asked for 7 it gives 8."""
    out = sample(sun, sampler="ddim", scheduler="ddim_uniform", steps=steps)
    evaluated = sun.reports[0].evaluations
    assert torch.equal(out, sample(explicit, steps=evaluated))


def test_a_run_from_the_highest_sigma_is_compared_with_no_ddim_uniform(sun, sample, monkeypatch):
    """A GPU would wait for each value of these schedules."""
    made, ddim_scheduler = [], comfy.samplers.ddim_scheduler
    monkeypatch.setattr(comfy.samplers, "ddim_scheduler", lambda *args: made.append(args) or ddim_scheduler(*args))
    sample(sun, scheduler="simple")
    assert made == []
    sample(sun, scheduler="simple", denoise=0.5)
    assert made


def test_image_to_image_on_ddim_uniform_starts_where_the_sampler_chose(sun, sample, reference):
    ms = sun.get_model_object("model_sampling")
    seen = []
    hook = sun.model.diffusion_model.register_forward_pre_hook(lambda _, args: seen.append(float(args[1][0])))
    sample(sun, scheduler="ddim_uniform", denoise=0.5, latent=reference.io["in.latent1"])
    hook.remove()
    assert seen[0] == ms.timestep(comfy.samplers.calculate_sigmas(ms, "ddim_uniform", 8)[4])


@pytest.mark.slow
@pytest.mark.parametrize("denoise", [0.15, 0.3, 0.55, 0.6, 0.65, 0.9])
def test_image_to_image_on_simple_is_trailing_already(sun, explicit, sample, reference, denoise):
    latent = reference.io["in.latent1"]
    out = sample(sun, denoise=denoise, latent=latent)
    assert torch.equal(out, sample(explicit, denoise=denoise, latent=latent)) and sun.reports[0].changes == []


def test_strength_0_leaves_the_samplers_own_settings_alone(model, adapter, sample):
    off = apply_sun(model, adapter, SunSettings(0.0, 0.0))
    settings = {"cfg": 7.0, "sampler": "euler_ancestral", "scheduler": "karras"}
    assert torch.equal(sample(off, **settings), sample(model, **settings))


def test_from_sampler_changes_nothing(explicit, sample, evaluations):
    first = sample(explicit, cfg=7.0, sampler="heun", scheduler="karras")
    assert evaluations == [2] * 7, "heun evaluates twice in all steps but the last, CFG two rows each time"
    assert not torch.equal(first, sample(explicit))


def test_inpainting_keeps_what_the_mask_keeps(sun, model, sample, reference, conditioning):
    import nodes

    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8:] = 1.0
    latent = {"samples": reference.io["in.latent1"], "noise_mask": mask}
    out = nodes.common_ksampler(
        sun, 0, 4, 7.0, "euler_ancestral", "karras", conditioning("pos0"), conditioning("neg0"), latent
    )[0]["samples"]
    assert torch.allclose(out[..., :8], latent["samples"][..., :8], atol=1e-4)
    assert not torch.allclose(out[..., 8:], latent["samples"][..., 8:], atol=1e-1)
