"""Other packs in the same cross-attention blocks, before SUN and after it."""

import copy

import comfy.ldm.modules.attention
import pytest
import torch
from sun_pack.sun_core.apply import apply_negative, apply_sun
from sun_pack.sun_core.attention_patch import SunAttention
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.settings import NegativeSettings, SunSettings

ALWAYS = {"sigma_start": 1e9, "sigma_end": 0.0}


class PackPatch:
    """A stand-in for the patch of IP-Adapter packs, which cannot be had here: their protocol, in few words."""

    def __init__(self, callback, **kwargs):
        self.callbacks = [(callback, kwargs)]

    def add(self, callback, **kwargs):
        self.callbacks.append((callback, kwargs))

    def __call__(self, q, k, v, extra_options):
        out = comfy.ldm.modules.attention.optimized_attention(q, k, v, extra_options["n_heads"])
        sigma = extra_options["sigmas"][0].item()
        for callback, kwargs in self.callbacks:
            if kwargs["sigma_end"] <= sigma <= kwargs["sigma_start"]:
                out = out + callback(out, q, k, v, extra_options, **kwargs)
        return out


def add_pack(model, callback, key=("input", 4), **kwargs):
    """As IP-Adapter packs do it: add to what is there, else put a patch of one's own."""
    patched = model.clone()
    replace = patched.model_options["transformer_options"].setdefault("patches_replace", {}).setdefault("attn2", {})
    if key in replace:
        replace[key].add(callback, **kwargs)
    else:
        replace[key] = PackPatch(callback, **kwargs)
    return patched


def delta(out, q, k, v, extra_options, **kwargs):
    return 0.5 * q


def other_delta(out, q, k, v, extra_options, **kwargs):
    return -0.3 * q


@pytest.fixture(params=["adapter", "no adapter"])
def sun(request, model, adapter):
    """Puts SUN on a MODEL, with an adapter and without; on the reference MODEL unless told otherwise."""
    if request.param == "adapter":
        return lambda onto=None: apply_sun(model if onto is None else onto, adapter, SunSettings())
    return lambda onto=None: apply_negative(model if onto is None else onto, NegativeSettings())


@pytest.mark.parametrize("key", [("input", 4), ("middle", 0), ("input", 4, 0)])
def test_order_makes_no_difference(model, sun, sample, difference, key):
    before = sample(sun(add_pack(model, delta, key, **ALWAYS)))
    after = sample(add_pack(sun(), delta, key, **ALWAYS))
    assert difference(before, after) < 1e-5
    assert difference(before, sample(sun())) > 1e-3, "the neighbour works"
    assert difference(before, sample(add_pack(model, delta, key, **ALWAYS))) > 1e-3, "SUN works"


def test_neighbours_on_both_sides_work(model, sun, sample, difference):
    around = sample(add_pack(sun(add_pack(model, delta, **ALWAYS)), other_delta, **ALWAYS))
    both_after = sample(add_pack(add_pack(sun(), delta, **ALWAYS), other_delta, **ALWAYS))
    assert difference(around, both_after) < 1e-5
    assert difference(around, sample(sun(add_pack(model, delta, **ALWAYS)))) > 1e-3


def test_neighbour_with_a_long_key_does_not_switch_off_one_with_a_short(sun, sample, difference):
    short = add_pack(sun(), delta, ("input", 4), **ALWAYS)
    both = add_pack(short, other_delta, ("input", 4, 0), **ALWAYS)
    together = add_pack(short, other_delta, ("input", 4), **ALWAYS)
    assert difference(sample(both), sample(together)) < 1e-5


def test_neighbour_that_takes_suns_place_is_wrapped_when_sampling_starts(model, sun, sample, difference):
    """A second set_model_attn2_replace on a key silently takes the first one's place."""
    replaced = sun()
    replaced.set_model_attn2_replace(PackPatch(delta, **ALWAYS), "input", 4)
    assert difference(sample(replaced), sample(sun(add_pack(model, delta, **ALWAYS)))) < 1e-5


def wrap_layers(model, scale):
    """As NAG of sd-perturbed-attention does it: a replacement that calls the one that it found, on every layer."""
    patched = model.clone()
    replace = patched.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    for key, found in dict(replace).items():

        def wrapper(q, k, v, extra_options, found=found):
            text = found(q, k, v, extra_options)
            return text + scale * q

        patched.set_model_attn2_replace(wrapper, *key)
    return patched


def test_neighbour_that_wraps_sun_does_not_count_it_twice(sun, sample, difference):
    assert difference(sample(wrap_layers(sun(), 0.0)), sample(sun())) < 1e-5


def test_neighbour_that_wraps_sun_still_works_and_so_does_what_was_there_before(model, sun, sample, difference):
    """An IP-Adapter before SUN, SUN, another on SUN's patch, and NAG around it all."""
    packed = add_pack(sun(add_pack(model, delta, **ALWAYS)), other_delta, **ALWAYS)
    assert difference(sample(wrap_layers(packed, 0.0)), sample(packed)) < 1e-5
    assert difference(sample(wrap_layers(packed, 0.1)), sample(packed)) > 1e-3


def test_ip_adapter_of_2023_behind_sun_is_told_to_go_before_it(sun):
    """It calls set_new_condition on whatever patch it finds."""
    patch = sun().model_options["transformer_options"]["patches_replace"]["attn2"][("input", 4)]
    with pytest.raises(SunError, match="put it before the SUN node, or use ComfyUI_IPAdapter_plus"):
        patch.set_new_condition(weight=1.0, ipadapter=None, cond=None, uncond=None)


def test_callback_runs_only_within_its_sigmas(sun, sample):
    late = add_pack(sun(), delta, sigma_start=1.0, sigma_end=0.0)
    never = add_pack(sun(), delta, sigma_start=0.01, sigma_end=0.001)
    assert not torch.equal(sample(late), sample(sun()))
    assert torch.equal(sample(never), sample(sun()))


def test_callback_may_give_zero(sun, sample):
    nothing = add_pack(sun(), lambda *args, **kwargs: 0, **ALWAYS)
    assert torch.equal(sample(nothing), sample(sun()))


def test_what_a_neighbour_adds_to_a_clone_does_not_reach_the_model_it_came_from(sun, sample):
    patched = sun()
    before = sample(patched)
    add_pack(patched, delta, **ALWAYS)
    assert torch.equal(sample(patched), before)


def test_clone_shares_the_weights_of_neighbours(sun):
    weights = torch.nn.Linear(4, 4)
    patched = add_pack(sun(), delta, weights=weights, **ALWAYS)
    for clone in (patched.clone(), patched.clone().clone()):
        patch = clone.model_options["transformer_options"]["patches_replace"]["attn2"][("input", 4)]
        assert isinstance(patch, SunAttention) and patch.callbacks[0][1]["weights"] is weights
    assert copy.deepcopy(patch).callbacks[0][1]["weights"] is weights


def test_neighbours_work_on_without_suns_strength(model, adapter, sample, difference):
    idle = apply_sun(model, adapter, SunSettings(0.0, 0.0))
    assert difference(sample(add_pack(idle, delta, **ALWAYS)), sample(add_pack(model, delta, **ALWAYS))) < 1e-6


def test_lora_may_be_before_sun_or_after_it(model, sun, sample):
    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    difference = torch.randn_like(model.model.state_dict()[key], dtype=torch.float32)

    def with_lora(onto):
        patched = onto.clone()
        assert patched.add_patches({key: ("diff", (difference,))}) == [key]
        return patched

    before, after = sample(sun(with_lora(model))), sample(with_lora(sun()))
    assert torch.equal(before, after) and not torch.equal(after, sample(sun()))


@pytest.mark.parametrize("batch", [1, 2])
def test_attention_override_sees_the_rows_that_the_batch_has(sun, sample, difference, batch):
    """A pack may split rows by `cond_or_uncond`, here to give each image of a chunk a weight of its own."""
    weights = torch.tensor([0.5, 1.0])[-batch:]

    def weigh_images(attention, q, *args, transformer_options=None, **kwargs):
        out = attention(q, *args, transformer_options=transformer_options, **kwargs)
        chunks = out.chunk(len(transformer_options["cond_or_uncond"]))
        assert all(len(chunk) == batch for chunk in chunks)
        return torch.cat([chunk * weights[:, None, None] for chunk in chunks])

    overridden = sun()
    overridden.model_options["transformer_options"]["optimized_attention_override"] = weigh_images
    both, alone = sample(overridden, batch=batch), sample(sun(), batch=batch)
    assert difference(both[-1:], alone[-1:]) < 1e-5, "the last image's weight is 1"
    assert batch == 1 or difference(both[:1], alone[:1]) > 1e-3


def in_tiles(model, at_once):
    """As packs of tiled diffusion do it: the picture is evaluated in halves, `at_once` of them in one batch."""

    def evaluate(apply_model, given):
        x, timestep, conds = given["input"], given["timestep"], given["c"]
        tiles = x.split(x.shape[-1] // 2, dim=-1)
        outs = []
        for start in range(0, 2, at_once):
            batch = torch.cat(tiles[start : start + at_once])
            beside = conds | {"c_crossattn": conds["c_crossattn"].repeat(at_once, 1, 1)}
            outs += apply_model(batch, timestep.repeat(at_once), **beside).chunk(at_once)
        return torch.cat(outs, dim=-1)

    patched = model.clone()
    patched.set_model_unet_function_wrapper(evaluate)
    return patched


@pytest.mark.slow
@pytest.mark.parametrize("sun_first", [True, False])
@pytest.mark.parametrize("batch", [1, 2])
def test_tiles_in_one_batch_are_drawn_as_one_by_one(model, sun, sample, reference, difference, batch, sun_first):
    """Each tile gets the negative of its image."""
    negatives = torch.cat([reference.io["in.neg0"], reference.io["in.neg1"]])[:batch]

    def drawn(at_once, negatives=negatives):
        tiled = in_tiles(sun(), at_once) if sun_first else sun(in_tiles(model, at_once))
        return sample(tiled, negative=[[negatives, {}]], latent=torch.zeros(batch, 4, 8, 16))

    found = drawn(2)
    assert difference(found, drawn(1)) < 1e-5
    assert difference(drawn(2, negatives / 2), found) > 0.05, "the negative counts"
