"""SUN on a MODEL, through ComfyUI's own U-Net, ModelPatcher and samplers."""

import comfy.sample
import comfy.samplers
import pytest
import torch
from sun_pack.sun_core.adapter import SunAdapter, load_adapter, save_adapter
from sun_pack.sun_core.apply import apply_sun, has_sun
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.settings import SunSettings

FROM_SAMPLER = SunSettings(automatic=False)
TIMESTEPS = (999, 749, 499, 249)


def run(model, conditioning, item, noise, sampler, sigmas, latent=None, positive=None):
    """One run without CFG; in and out in the scale that the U-Net sees."""
    latent = torch.zeros_like(noise) if latent is None else latent / 0.18215
    out = comfy.sample.sample_custom(
        model,
        noise,
        1.0,
        comfy.samplers.sampler_object(sampler),
        torch.tensor(sigmas),
        conditioning(f"pos{item}") if positive is None else positive,
        conditioning(f"neg{item}"),
        latent,
        seed=0,
    )
    return out * 0.18215


@pytest.mark.parametrize("t", TIMESTEPS)
@pytest.mark.parametrize("item", [0, 1])
def test_eps_equals_official_code(model, adapter, reference, conditioning, difference, item, t):
    """One Euler step from sigma to 0 gives x - sigma * eps."""
    x, sigma = reference.io[f"in.latent{item}"], reference.scheduler["sigmas_comfy"][TIMESTEPS.index(t)]
    # ComfyUI gives the U-Net (noise * sigma + latent) / sqrt(1 + sigma^2), which is to be x.
    whole = x * (1 + sigma**2) ** 0.5
    sun = apply_sun(model, adapter, FROM_SAMPLER)
    x0 = run(sun, conditioning, item, torch.zeros_like(x), "euler", [sigma, 0.0], latent=whole)
    eps = (whole - x0) / sigma
    official = reference.io[f"out.sun_eps{item}.t{t}"]
    assert difference(eps, official) < reference.tolerances["eps_rel"]
    assert (eps - official).abs().max() < reference.tolerances["eps_max_abs"]


def test_eps_with_154_tokens_equals_official_code(model, adapter, reference, conditioning, difference):
    x, sigma = reference.io["in.latent0"], reference.scheduler["sigmas_comfy"][1]
    whole = x * (1 + sigma**2) ** 0.5
    sun = apply_sun(model, adapter, FROM_SAMPLER)
    long = conditioning("pos_long")
    x0 = run(sun, conditioning, 0, torch.zeros_like(x), "euler", [sigma, 0.0], latent=whole, positive=long)
    assert difference((whole - x0) / sigma, reference.io["out.sun_eps_long.t749"]) < reference.tolerances["eps_rel"]


@pytest.mark.parametrize("item", [0, 1])
@pytest.mark.parametrize("sampler", ["euler", "ddim"])
def test_four_ddim_steps_equal_official_code(model, adapter, reference, conditioning, difference, item, sampler):
    scheduler = reference.scheduler
    sigmas = [*scheduler["sigmas_comfy"], scheduler["sigma_final"]]
    sun = apply_sun(model, adapter, FROM_SAMPLER)
    out = run(sun, conditioning, item, reference.io[f"in.latent{item}"], sampler, sigmas)
    out = out * scheduler["alpha_cumprod_final"] ** 0.5
    official = reference.io[f"out.ddim4.latent{item}"]
    assert difference(out, official) < reference.tolerances["final_latent_rel"]
    assert (out - official).abs().max() < reference.tolerances["final_latent_max_abs"]


@pytest.mark.parametrize("item", [0, 1])
def test_four_dpmpp_2m_steps_equal_official_code(model, adapter, reference, conditioning, difference, item):
    """diffusers' last step is of first order and ends at sigma(0): DDIM, run here as a second stage of one step."""
    scheduler = reference.scheduler
    sigmas = [*scheduler["sigmas_comfy"], scheduler["sigma_final"]]
    sun = apply_sun(model, adapter, FROM_SAMPLER)
    noise = reference.io[f"in.latent{item}"]
    three = run(sun, conditioning, item, noise, "dpmpp_2m", sigmas[:4])
    out = run(sun, conditioning, item, torch.zeros_like(noise), "euler", sigmas[3:], latent=three)
    out = out * scheduler["alpha_cumprod_final"] ** 0.5
    official = reference.io[f"out.dpm4.latent{item}"]
    assert difference(out, official) < reference.tolerances["final_latent_rel"]
    assert (out - official).abs().max() < reference.tolerances["final_latent_max_abs"]


def test_batch_of_three_equals_three_singles(model, adapter, reference, conditioning, difference):
    """Three noises, three positives and three negatives, as a batched conditioning gives them."""
    io, sigmas = reference.io, [*reference.scheduler["sigmas_comfy"], 0.0]
    noises = torch.cat([io["in.latent0"], io["in.latent1"], io["in.latent0"].flip(-1)])
    positives = torch.cat([io["in.pos0"], io["in.pos1"], io["in.pos1"].flip(1)])
    negatives = torch.cat([io["in.neg0"], io["in.neg1"], io["in.neg0"].flip(1)])
    sun = apply_sun(model, adapter, FROM_SAMPLER)

    def sample(rows):
        conds = [[[context[rows], {}]] for context in (positives, negatives)]
        sampler = comfy.samplers.sampler_object("euler")
        return comfy.sample.sample_custom(
            sun, noises[rows], 1.0, sampler, torch.tensor(sigmas), *conds, torch.zeros_like(noises[rows]), seed=0
        )

    together = sample(slice(0, 3))
    for row in range(3):
        assert difference(together[row : row + 1], sample(slice(row, row + 1))) < 1e-5


def test_latent_batch_shares_one_prompt(model, adapter, reference, conditioning, difference):
    io, sigmas = reference.io, [*reference.scheduler["sigmas_comfy"], 0.0]
    sun = apply_sun(model, adapter, FROM_SAMPLER)
    noises = torch.cat([io["in.latent0"], io["in.latent1"]])
    together = run(sun, conditioning, 0, noises, "euler", sigmas)
    for row in range(2):
        single = run(sun, conditioning, 0, noises[row : row + 1], "euler", sigmas)
        assert difference(together[row : row + 1], single) < 1e-5


def test_strength_zero_equals_plain(model, adapter, sample):
    sun = apply_sun(model, adapter, SunSettings(0.0, 0.0, automatic=False))
    assert torch.equal(sample(sun), sample(model))


def test_strengths_act_on_their_own_terms(model, adapter, sample, conditioning):
    def run(negative_strength, positive_strength, negative="neg0"):
        sun = apply_sun(model, adapter, SunSettings(negative_strength, positive_strength))
        return sample(sun, negative=conditioning(negative))

    assert not torch.equal(run(1.0, 1.0), run(0.5, 1.0))
    assert not torch.equal(run(1.0, 1.0), run(1.0, 0.5))
    assert torch.equal(run(0.0, 1.0, "neg0"), run(0.0, 1.0, "neg1")), "without strength the negative does nothing"
    assert not torch.equal(run(1.0, 0.0, "neg0"), run(1.0, 0.0, "neg1"))


def test_input_model_stays_as_it_is(model, adapter, sample):
    before, weights = sample(model), {key: w.clone() for key, w in model.model.state_dict().items()}
    sun = apply_sun(model, adapter, SunSettings())
    changed = sample(sun)
    assert not torch.equal(changed, before)
    assert torch.equal(sample(model), before)
    assert not has_sun(model) and has_sun(sun)
    assert all(torch.equal(weight, weights[key]) for key, weight in model.model.state_dict().items())


def test_range_of_the_sampling_is_resolved_from_the_runs_sigmas(model, adapter, sample):
    plain, whole = sample(model), sample(apply_sun(model, adapter, SunSettings()))

    def ranged(start, end):
        return sample(apply_sun(model, adapter, SunSettings(start_percent=start, end_percent=end)))

    assert torch.equal(ranged(0.0, 1.0), whole)
    assert not torch.equal(ranged(0.0, 0.5), whole) and not torch.equal(ranged(0.0, 0.5), plain)
    assert torch.equal(ranged(0.99, 1.0), plain), "no step of four lies in the last percent"


def test_range_follows_a_later_model_sampling_node(model, adapter, sample, evaluations):
    """percent 0.5 means another sigma on another noise schedule; the adapter must go by the run's own."""
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    settings = SunSettings(start_percent=0.4, end_percent=0.6)
    patch = ModelSamplingDiscrete().patch
    before = patch(model, "eps", True)[0]
    sun_last, sun_first = (
        apply_sun(before, adapter, settings),
        patch(apply_sun(model, adapter, settings), "eps", True)[0],
    )
    assert torch.equal(sample(sun_first), sample(sun_last))
    assert not torch.equal(sample(sun_first), sample(before))


def test_second_adapter_takes_the_place_of_the_first(model, adapter, sample):
    other = SunAdapter.for_unet(model.model.diffusion_model)
    once = apply_sun(model, adapter, SunSettings())
    assert torch.equal(
        sample(apply_sun(apply_sun(model, other, SunSettings(0.5, 0.5)), adapter, SunSettings())), sample(once)
    )


def test_uncond_rows_are_left_plain_where_a_guider_asks_for_them(model, adapter, reference, conditioning, difference):
    """CFG 3 by hand: cond with SUN, uncond from the plain MODEL."""
    sun = apply_sun(model, adapter, FROM_SAMPLER)
    sigma = reference.scheduler["sigmas_comfy"][1]
    x = torch.cat([reference.io["in.latent0"], reference.io["in.latent1"]])

    def denoised(model, cfg, positive):
        sampler, sigmas = comfy.samplers.sampler_object("euler"), torch.tensor([sigma, 0.0])
        negative = conditioning("neg0")
        return comfy.sample.sample_custom(
            model, x, cfg, sampler, sigmas, positive, negative, torch.zeros_like(x), seed=0
        )

    cond, uncond = denoised(sun, 1.0, conditioning("pos0")), denoised(model, 1.0, conditioning("neg0"))
    assert difference(denoised(sun, 3.0, conditioning("pos0")), uncond + 3.0 * (cond - uncond)) < 1e-5


def test_long_positive_beside_a_short_negative_under_cfg(model, adapter, sample, conditioning, difference):
    """ComfyUI repeats 77 tokens to 154 where both run in one batch; that must not change what SUN reads."""
    sun = apply_sun(model, adapter, FROM_SAMPLER)
    long = conditioning("pos_long")
    assert sample(sun, cfg=3.0, positive=long).isfinite().all()
    together = sample(sun, cfg=1.0 + 1e-6, positive=long)  # uncond is evaluated, and weighs nothing
    assert difference(together, sample(sun, cfg=1.0, positive=long)) < 1e-4


def test_adapter_without_extra_positive_branch(tmp_path, model, adapter, sample):
    """Equals the whole adapter with the positive term at strength 0."""
    from safetensors.torch import save_file

    path = tmp_path / "no_pos.safetensors"
    save_file({key: t for key, t in adapter.state_dict().items() if "extra_pos" not in key}, path)
    without = apply_sun(model, load_adapter(path), SunSettings())
    assert torch.equal(sample(without), sample(apply_sun(model, adapter, SunSettings(positive_strength=0.0))))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-6), (torch.bfloat16, 1e-2), (torch.float32, 1e-6)])
def test_adapter_file_of_every_dtype(tmp_path, model, adapter, sample, difference, dtype, tolerance):
    """The reference adapter is fp16, so that fp16 and fp32 hold the same numbers; bf16 keeps 8 bits of them."""
    path = tmp_path / "a.safetensors"
    save_adapter(adapter, path, {}, dtype)
    expected = sample(apply_sun(model, adapter, SunSettings()))
    assert difference(sample(apply_sun(model, load_adapter(path), SunSettings())), expected) < tolerance


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 5e-2), (torch.float16, 1e-2)])
def test_unet_of_half_precision(
    new_model, model, adapter, sample, reference, reference_weights, difference, dtype, tolerance
):
    half = new_model(reference.unet_config, dtype=dtype)
    half.model.diffusion_model.load_state_dict(reference_weights)
    out = sample(apply_sun(half, adapter, SunSettings()))
    assert difference(out, sample(apply_sun(model, adapter, SunSettings()))) < tolerance
    assert difference(out, sample(half)) > 3 * tolerance, "SUN makes more of a difference than the precision"


def test_model_that_does_not_fit_is_refused_and_stays_whole(model, adapter, new_model, reference, sample):
    other = new_model({**reference.unet_config, "context_dim": 64})
    options = repr(other.model_options)
    with pytest.raises(SunError, match="does not fit"):
        apply_sun(other, adapter, SunSettings())
    assert repr(other.model_options) == options and not other.wrappers and not other.additional_models


def test_clone_shares_the_adapters_weights(model, adapter):
    sun = apply_sun(model, adapter, SunSettings())
    for patched in (sun, sun.clone(), sun.clone().clone()):
        assert patched.get_additional_models_with_key("sun")[0].model is adapter


def test_copy_of_an_adapter_in_use_is_an_adapter_alone(model, adapter):
    apply_sun(model, adapter, SunSettings())
    copied = adapter.copy()
    assert copied.patcher is None and copied.metadata == adapter.metadata
    assert all(torch.equal(a, b) for a, b in zip(copied.parameters(), adapter.parameters(), strict=True))


def test_pack_that_takes_all_replacements_away_does_not_stop_a_clone(model, adapter, sample):
    sun = apply_sun(model, adapter, SunSettings())
    expected = sample(sun)
    del sun.model_options["transformer_options"]["patches_replace"]
    assert torch.equal(sample(sun.clone()), expected)
