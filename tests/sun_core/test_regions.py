"""Regional prompts that widen the batch inside cross-attention, as attention couple does."""

import pytest
import torch
from sun_pack.sun_core.adapter import SunAdapter
from sun_pack.sun_core.apply import apply_negative, apply_sun
from sun_pack.sun_core.settings import NegativeSettings, SunSettings

UNCOND = 1


@pytest.fixture
def sun(model, adapter, reports):
    """Puts SUN on a MODEL; what it reports is in `reports`."""
    return lambda onto=None, **settings: apply_sun(
        model if onto is None else onto, adapter, SunSettings(**settings), report=reports.append
    )


@pytest.fixture(params=["extra positive", "negative alone", "no adapter"])
def any_sun(request, model, adapter, reports):
    """A MODEL with SUN of each kind; what it reports is in `reports`."""
    if request.param == "no adapter":
        return apply_negative(model, NegativeSettings(), report=reports.append)
    if request.param == "negative alone":
        adapter = SunAdapter.for_unet(model.model.diffusion_model, extra_positive=False)
    return apply_sun(model, adapter, SunSettings(), report=reports.append)


def regions(model, context, mask, values=None):
    """Give `mask` (height, width) of the picture to another prompt, by the protocol of attention couple.

    This is a small pack of our own: it repeats the positive's chunks, leaves the negative's single, and sums behind.
    `values` (1, tokens, context_dim) are other words for them.
    """

    def widen(q, k, v, extra_options):
        chunks = extra_options["cond_or_uncond"]
        qs, ks = [], []
        for chunk, q_chunk, k_chunk in zip(chunks, q.chunk(len(chunks)), k.chunk(len(chunks)), strict=True):
            qs.append(q_chunk if chunk == UNCOND else q_chunk.repeat(2, 1, 1))
            ks.append(k_chunk if chunk == UNCOND else torch.cat([k_chunk, context.expand_as(k_chunk)]))
        keys = torch.cat(ks)
        return torch.cat(qs), keys, keys if values is None else values.expand_as(keys)

    def narrow(out, extra_options):
        chunks = extra_options["cond_or_uncond"]
        rows = len(out) // sum(1 if chunk == UNCOND else 2 for chunk in chunks)
        size = extra_options["activations_shape"][2:]
        weight = torch.nn.functional.interpolate(mask[None, None], size=tuple(size)).view(1, -1, 1)
        parts = list(out.split(rows))
        narrowed = []
        for chunk in chunks:
            part = parts.pop(0)
            narrowed.append(part if chunk == UNCOND else part * (1 - weight) + parts.pop(0) * weight)
        return torch.cat(narrowed)

    patched = model.clone()
    patched.set_model_attn2_patch(widen)
    patched.set_model_attn2_output_patch(narrow)
    return patched


@pytest.fixture
def left():
    mask = torch.zeros(16, 16)
    mask[:, :8] = 1.0
    return mask


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("sun_first", [True, False])
def test_region_that_is_the_whole_picture_is_as_its_prompt_alone(
    model, sun, sample, conditioning, reference, difference, batch, sun_first
):
    """The region's prompt also reaches SUN's extra positive."""
    context, everywhere = reference.io["in.pos1"], torch.ones(16, 16)
    patched = regions(sun(), context, everywhere) if sun_first else sun(regions(model, context, everywhere))
    alone = sample(sun(), positive=conditioning("pos1"), batch=batch)
    assert difference(sample(patched, positive=conditioning("pos0"), batch=batch), alone) < 1e-5


def test_values_of_their_own_reach_the_extra_positive(sun, sample, reference, difference):
    """As those of NegPip: where all are the same word, keys make no difference."""
    contexts, everywhere = [reference.io[f"in.{name}"] for name in ("pos0", "pos1")], torch.ones(16, 16)
    word = reference.io["in.neg1"][:, :1]
    first, second = (sample(regions(sun(), context, everywhere, word)) for context in contexts)
    assert difference(first, second) < 1e-5


def test_negative_counts_beside_regions(model, any_sun, sample, conditioning, reference, reports, left, difference):
    patched = regions(any_sun, reference.io["in.pos1"], left)
    one, other = (sample(patched, negative=conditioning(which)) for which in ("neg0", "neg1"))
    assert difference(one, other) > 0.05
    assert difference(one, sample(regions(model, reference.io["in.pos1"], left))) > 0.05
    assert all(list(report.findings) == [] for report in reports)


def test_regions_that_come_while_sampling_leave_the_negative_counting(
    model, sun, sample, reference, left, reports, difference
):
    """SUN is not told their contexts, so its extra positive reads that of the sampler, which is theirs too here."""
    patches = regions(model, reference.io["in.pos0"], left).model_options["transformer_options"]["patches"]

    def later(executor, x, t, c_concat, c_crossattn, control, transformer_options, **kwargs):
        return executor(x, t, c_concat, c_crossattn, control, transformer_options | {"patches": patches}, **kwargs)

    patched = sun()
    patched.add_wrapper_with_key("apply_model", "regions", later)
    assert difference(sample(patched), sample(sun())) < 1e-5
    assert list(reports[0].findings) == []


def test_each_image_keeps_its_own_negative_beside_regions(sun, sample, reference, left, difference):
    context, negatives = reference.io["in.pos1"], torch.cat([reference.io["in.neg0"], reference.io["in.neg1"]])
    patched = regions(sun(), context, left)
    both = sample(patched, negative=[[negatives, {}]], batch=2)
    swapped = sample(patched, negative=[[negatives.flip(0), {}]], batch=2)
    for which in (0, 1):
        same = sample(patched, negative=[[negatives[which : which + 1], {}]], batch=2)
        assert difference(both[which], same[which]) < 1e-5
        assert difference(swapped[which], same[which]) > 1e-3


def test_masked_negatives_keep_their_places_beside_regions(sun, sample, conditioning, reference, left, difference):
    context = reference.io["in.pos1"]
    negative = conditioning("neg0", mask=left[None]) + conditioning("neg1", mask=1 - left[None])
    same = regions(sun(), reference.io["in.pos0"], left)
    assert difference(sample(same, negative=negative), sample(sun(), negative=negative)) < 1e-5
    swapped = conditioning("neg1", mask=left[None]) + conditioning("neg0", mask=1 - left[None])
    patched = regions(sun(), context, left)
    assert difference(sample(patched, negative=negative), sample(patched, negative=swapped)) > 1e-2


@pytest.mark.parametrize("names", [["pos0"], ["pos0", "pos1"]], ids=["one positive", "combined"])
def test_uncond_rows_stay_plain_beside_regions(sun, sample, conditioning, reference, left, difference, names):
    """With the same prompt on both sides and nothing of the negative, plain CFG is no CFG."""
    patched = regions(sun(negative_strength=0.0, automatic=False), reference.io["in.pos1"], left)
    positive = [entry for name in names for entry in conditioning(name)]
    without = sample(patched, cfg=1.0, positive=positive)
    assert difference(sample(patched, cfg=1.0 + 1e-6, positive=positive), without) < 1e-4
    assert difference(sample(patched, cfg=3.0, positive=positive), without) > 1e-2


def test_batch_that_is_no_multiple_is_left_plain_and_found_in_every_run(model, sun, sample, reports):
    def add_one(n, context, value, extra_options):
        return tuple(torch.cat([t, t[:1]]) for t in (n, context, value))

    plain, patched = model.clone(), sun()
    for each in (plain, patched):
        each.set_model_attn2_patch(add_one)
        each.set_model_attn2_output_patch(lambda n, extra_options: n[:-1])
    for _ in range(2):
        assert torch.equal(sample(patched, batch=2), sample(plain, batch=2))
        (finding,) = reports.pop().findings
        assert "changes the batch (2 -> 3 rows) in a way that SUN cannot follow" in finding
