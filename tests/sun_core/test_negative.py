"""The negative prompt: whose it is, and what combined, masked, ranged and long ones mean."""

import functools

import comfy.samplers
import pytest
import torch
from sun_pack.sun_core.apply import apply_negative, apply_sun
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.settings import NegativeSettings, SunSettings


@pytest.fixture(params=["adapter", "no adapter"])
def with_sun(request, model, adapter):
    """Puts SUN on the reference MODEL, with an adapter and without: `with_sun(negative=...)`."""
    if request.param == "adapter":
        return functools.partial(apply_sun, model, adapter, SunSettings())
    return functools.partial(apply_negative, model, NegativeSettings())


@pytest.fixture
def sun(with_sun):
    return with_sun()


@pytest.fixture
def custom(conditioning):
    """Samples with a sampler node of ComfyUI at CFG 1 on the trailing sigmas: `custom(node, model, negative)`."""
    from comfy_extras import nodes_custom_sampler as samplers

    from nodes import KSamplerAdvanced

    def custom(node, model, negative):
        positive, latent = conditioning("pos0"), {"samples": torch.zeros(1, 4, 16, 16)}
        sampler = comfy.samplers.sampler_object("euler")
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 4)
        if node == "KSamplerAdvanced":
            return KSamplerAdvanced().sample(
                model, "enable", 0, 4, 1.0, "euler", "simple", positive, negative, latent, 0, 4, "disable"
            )[0]["samples"]
        if node == "SamplerCustom":
            return samplers.SamplerCustom.execute(
                model, True, 0, 1.0, positive, negative, sampler, sigmas, latent
            ).args[0]["samples"]
        guider = samplers.CFGGuider.execute(model, positive, negative, 1.0).args[0]
        noise = samplers.RandomNoise.execute(0).args[0]
        return samplers.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent).args[0]["samples"]

    return custom


@pytest.mark.parametrize("node", ["KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced"])
def test_every_sampler_node_uses_its_own_negative_at_cfg_1(sun, sample, custom, conditioning, node):
    """Each gives the KSampler's picture, so each read the negative that it holds."""
    for negative in (conditioning("neg0"), conditioning("neg1")):
        assert torch.equal(custom(node, sun, negative), sample(sun, negative=negative))
    assert not torch.equal(sample(sun), sample(sun, negative=conditioning("neg1")))


def test_explicit_negative_takes_the_place_of_the_samplers(with_sun, sample, conditioning):
    explicit = with_sun(negative=conditioning("neg1"))
    expected = sample(with_sun(), negative=conditioning("neg1"))
    assert torch.equal(sample(explicit, negative=conditioning("neg0")), expected)


def basic_guider(model, positive):
    from comfy_extras import nodes_custom_sampler as samplers

    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 4)
    guider, noise = samplers.BasicGuider.execute(model, positive).args[0], samplers.RandomNoise.execute(0).args[0]
    latent = {"samples": torch.zeros(1, 4, 16, 16)}
    sampler = comfy.samplers.sampler_object("euler")
    return samplers.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent).args[0]["samples"]


def test_guider_without_negative_is_told_to_get_one(sun, conditioning):
    with pytest.raises(SunError, match="SUN needs a negative prompt, which may be empty, and BasicGuider has none"):
        basic_guider(sun, conditioning("pos0"))


def test_empty_list_of_negatives_is_told_from_a_guider_without_one(with_sun, sample):
    with pytest.raises(SunError, match="conditioning that the sampler got is an empty list; connect a CLIP Text Enc"):
        sample(with_sun(), negative=[])


def test_empty_list_on_the_nodes_own_input_is_not_taken_for_no_list(with_sun, sample):
    named = "that (Apply SUN Adapter|Negative Prompt at CFG 1) got is an empty list; connect a CLIP Text Encode to its"
    with pytest.raises(SunError, match=named):
        sample(with_sun(negative=[]))


def test_guider_without_negative_works_with_an_explicit_one(with_sun, sample, conditioning):
    explicit = with_sun(negative=conditioning("neg0"))
    expected = sample(with_sun(), negative=conditioning("neg0"))
    assert torch.equal(basic_guider(explicit, conditioning("pos0")), expected)


def test_negative_without_text_is_told_to_get_one(sun, conditioning):
    """As ComfyUI's DualModelGuider gives one if its negative is not connected."""
    guider = comfy.samplers.CFGGuider(sun)
    guider.set_conds(conditioning("pos0"), [[None, {}]])
    latent = torch.zeros(1, 4, 16, 16)
    sigmas = comfy.samplers.calculate_sigmas(sun.get_model_object("model_sampling"), "simple", 4)
    with pytest.raises(SunError, match="negative conditioning holds no text; connect a CLIP Text Encode to"):
        guider.sample(latent, latent, comfy.samplers.sampler_object("euler"), sigmas)


def test_negative_of_another_text_width_is_told_apart(sun, sample):
    with pytest.raises(SunError, match="encoded 64 wide, but this MODEL reads 48"):
        sample(sun, negative=[[torch.zeros(1, 77, 64), {}]])


def test_combined_entry_that_is_the_same_twice_counts_as_one(sun, sample, conditioning, difference):
    once, twice = conditioning("neg0"), conditioning("neg0") + conditioning("neg0")
    assert difference(sample(sun, negative=twice), sample(sun, negative=once)) < 1e-5


def test_every_combined_entry_counts(sun, sample, conditioning):
    both = sample(sun, negative=conditioning("neg0") + conditioning("neg1"))
    swapped = sample(sun, negative=conditioning("neg1") + conditioning("neg0"))
    assert torch.allclose(both, swapped, atol=1e-3)
    for one in ("neg0", "neg1"):
        assert not torch.allclose(both, sample(sun, negative=conditioning(one)), atol=1e-1)


def test_strength_of_an_entry_is_its_share(sun, sample, conditioning, difference):
    first = sample(sun, negative=conditioning("neg0"))
    only_first = conditioning("neg0", strength=1.0) + conditioning("neg1", strength=0.0)
    assert difference(sample(sun, negative=only_first), first) < 1e-5
    mostly, evenly = (conditioning("neg0", strength=s) + conditioning("neg1", strength=1.0) for s in (9.0, 1.0))
    assert difference(sample(sun, negative=mostly), first) < difference(sample(sun, negative=evenly), first)


@pytest.mark.parametrize("places", [{}, {"mask": torch.ones(1, 16, 16)}], ids=["everywhere", "masked"])
def test_combined_entries_without_strength_do_not_count(model, adapter, sample, conditioning, places):
    def without_strength():
        return [entry for name in ("neg0", "neg1") for entry in conditioning(name, strength=0.0, **places)]

    no_negative = sample(apply_sun(model, adapter, SunSettings(negative_strength=0.0)))
    assert torch.equal(sample(apply_sun(model, adapter, SunSettings()), negative=without_strength()), no_negative)
    assert torch.equal(sample(apply_negative(model, NegativeSettings()), negative=without_strength()), sample(model))


def test_mask_gives_an_entry_its_place(sun, sample, conditioning, difference):
    """Where its mask is 0 an entry does not count, where all masks are 0 all do."""
    neg0 = sample(sun, negative=conditioning("neg0"))
    everywhere, nowhere = torch.ones(1, 16, 16), torch.zeros(1, 16, 16)
    only_first = conditioning("neg0", mask=everywhere) + conditioning("neg1", mask=nowhere)
    assert difference(sample(sun, negative=only_first), neg0) < 1e-5
    assert difference(sample(sun, negative=conditioning("neg0", mask=nowhere)), neg0) < 1e-5


def test_mask_strength_is_a_masks_share(sun, sample, conditioning, difference):
    everywhere = torch.ones(1, 16, 16)
    only_first = conditioning("neg0", mask=everywhere) + conditioning("neg1", mask=everywhere, mask_strength=0.0)
    assert difference(sample(sun, negative=only_first), sample(sun, negative=conditioning("neg0"))) < 1e-5


def test_masked_halves_are_each_nearer_to_their_own_negative(sun, sample, conditioning, difference):
    left = torch.zeros(1, 16, 16)
    left[:, :, :8] = 1.0
    halves = conditioning("neg0", mask=left) + conditioning("neg1", mask=1.0 - left)
    out, neg0, neg1 = (sample(sun, negative=n) for n in (halves, conditioning("neg0"), conditioning("neg1")))
    assert difference(out[..., :6], neg0[..., :6]) < difference(out[..., :6], neg1[..., :6])
    assert difference(out[..., 10:], neg1[..., 10:]) < difference(out[..., 10:], neg0[..., 10:])


@pytest.mark.parametrize("area", [(16, 8, 0, 0), ("percentage", 1.0, 0.5, 0.0, 0.0)])
@pytest.mark.parametrize("explicit", [False, True])
def test_area_is_a_mask(with_sun, sample, conditioning, evaluations, area, explicit):
    """Also in what it costs: ComfyUI would evaluate the positive once more for a negative's area."""
    left = torch.zeros(1, 16, 16)
    left[:, :, :8] = 1.0

    def run(**where):
        negative = conditioning("neg0", **where) + conditioning("neg1")
        if explicit:
            return sample(with_sun(negative=negative))
        return sample(with_sun(), negative=negative)

    assert torch.equal(run(area=area), run(mask=left))
    assert len(evaluations) == 8


def test_area_of_the_samplers_negative_costs_nothing_beside_an_explicit_one(
    with_sun, sample, conditioning, evaluations
):
    sun = with_sun(negative=conditioning("neg0"))
    sample(sun, negative=conditioning("neg1", area=(8, 8, 0, 0)))
    assert len(evaluations) == 4


def test_entry_counts_only_in_its_range_of_the_sampling(sun, sample, conditioning, difference):
    neg0, neg1 = (sample(sun, negative=conditioning(n)) for n in ("neg0", "neg1"))
    over_at_once = conditioning("neg0") + conditioning("neg1", start_percent=0.999, end_percent=1.0)
    assert difference(sample(sun, negative=over_at_once), neg0) < 1e-5, "neg1 counts at no step of four"
    first_step = conditioning("neg0", start_percent=0.0, end_percent=1e-6) + conditioning("neg1")
    out = sample(sun, negative=first_step)
    assert difference(out, neg1) > 1e-3, "neg0 counts at the first step"
    assert difference(out, sample(sun, negative=conditioning("neg0") + conditioning("neg1"))) > 1e-3, "and only there"
    later = conditioning("neg0", start_percent=0.999, end_percent=1.0)
    assert difference(sample(sun, negative=later), neg0) < 1e-5, "where none is in range, all count"


def test_long_negative_counts_as_a_whole(sun, sample, conditioning, reference, difference):
    first, second = reference.io["in.neg0"], reference.io["in.neg1"]

    def long(a, b):
        return sample(sun, negative=[[torch.cat([a, b], dim=1), {}]])

    neg0 = sample(sun, negative=conditioning("neg0"))
    assert difference(long(first, first), neg0) < 1e-5, "attention over the same tokens twice is the same"
    assert difference(long(first, second), neg0) > 1e-3


def test_negative_of_231_tokens_counts_as_a_whole(sun, sample, reference, difference):
    """Whatever its length is to the positive's: each is attended to alone."""
    first, second = reference.io["in.neg0"], reference.io["in.neg1"]
    found = [sample(sun, negative=[[torch.cat(order, dim=1), {}]]) for order in ([first, first, second], [second] * 3)]
    assert difference(found[1], sample(sun, negative=[[second, {}]])) < 1e-5
    assert difference(found[0], found[1]) > 1e-3


def test_each_image_has_its_own_negative(sun, sample, reference, conditioning, difference):
    """Told by the noise of a batch, which ComfyUI draws for all images at once: only the negatives differ."""
    negatives = torch.cat([reference.io["in.neg0"], reference.io["in.neg1"]])
    both = sample(sun, negative=[[negatives, {}]], batch=2)
    for image in range(2):
        alone = sample(sun, negative=conditioning(f"neg{image}"), batch=2)
        assert difference(both[image], alone[image]) < 1e-5


def test_positive_with_an_area_leaves_the_negative_working(sun, model, sample, conditioning):
    """ComfyUI runs an area as a cut-out, and gives the negative an entry with the positive's uuid for it."""
    positive = conditioning("pos0") + conditioning("pos1", area=(8, 8, 4, 4), strength=1.0)
    out = [sample(sun, positive=positive, negative=conditioning(negative)) for negative in ("neg0", "neg1")]
    assert all(o.isfinite().all() for o in out) and not torch.equal(*out)


def test_uncond_rows_stay_plain_beside_a_positive_with_an_area(model, adapter, sample, conditioning, difference):
    """With the same prompt as positive and negative, plain CFG is no CFG; a negative row that SUN took would show."""
    sun = apply_sun(model, adapter, SunSettings(0.0, 1.0, automatic=False))
    positive = conditioning("pos0") + conditioning("pos1", area=(8, 8, 4, 4), strength=1.0)
    weighed_out = sample(sun, cfg=1.0 + 1e-6, positive=positive, negative=conditioning("neg0"))
    assert difference(weighed_out, sample(sun, cfg=1.0, positive=positive, negative=conditioning("neg0"))) < 1e-4


def test_single_negative_counts_whatever_its_strength(with_sun, sample, conditioning):
    expected = sample(with_sun(), negative=conditioning("neg0"))
    assert torch.equal(sample(with_sun(), negative=conditioning("neg0", strength=0.0)), expected)


def test_single_negative_with_a_mask_counts_everywhere(with_sun, sample, conditioning):
    half = torch.zeros(1, 16, 16)
    half[:, :8] = 1
    expected = sample(with_sun(), negative=conditioning("neg0"))
    assert torch.equal(sample(with_sun(), negative=conditioning("neg0", mask=half)), expected)
