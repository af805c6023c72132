"""Prompts of other packs: words that count negatively, as NegPip has them, and words for some of the steps."""

from decimal import Decimal

import pytest
import torch
from sun_pack.sun_core.apply import apply_negative, apply_sun
from sun_pack.sun_core.neighbours import with_ranges
from sun_pack.sun_core.settings import NegativeSettings, SunSettings


@pytest.fixture(params=["adapter", "no adapter"])
def sun(request, model, adapter):
    """Puts SUN on a MODEL, with an adapter and without; on the reference MODEL unless told otherwise."""
    if request.param == "adapter":
        return lambda onto=None: apply_sun(model if onto is None else onto, adapter, SunSettings())
    return lambda onto=None: apply_negative(model if onto is None else onto, NegativeSettings())


def negpip(n, context, value, extra_options):
    """Read two tokens for each word, as NegPip does: the key of the first, and the value of the second."""
    return n, context[:, 0::2], value[:, 1::2]


def with_negpip(model):
    patched = model.clone()
    patched.set_model_attn2_patch(negpip)
    return patched


@pytest.fixture
def pairs(reference):
    """A prompt as NegPip's encoder makes it; `pairs("pos0", values)` has other words (1, tokens, width) as values."""

    def pairs(name, values=None):
        words = reference.io[f"in.{name}"]
        values = words if values is None else values.expand_as(words)
        return [[torch.stack([words, values], dim=2).flatten(1, 2), {}]]

    return pairs


@pytest.mark.parametrize("sun_first", [True, False])
def test_words_that_count_positively_are_as_without_negpip(model, sun, sample, pairs, difference, sun_first):
    patched = with_negpip(sun()) if sun_first else sun(with_negpip(model))
    drawn = sample(patched, positive=pairs("pos0"), negative=pairs("neg0"))
    assert difference(drawn, sample(sun())) < 1e-5


def test_words_say_what_their_values_are(model, sun, sample, reference, pairs, difference):
    """Where all values are the same word, keys make no difference, in no branch either."""
    patched, word = sun(with_negpip(model)), reference.io["in.pos1"][:, :1]
    positive = [sample(patched, positive=pairs(name, word), negative=pairs("neg0")) for name in ("pos0", "pos1")]
    negative = [sample(patched, positive=pairs("pos0"), negative=pairs(name, word)) for name in ("neg0", "neg1")]
    assert difference(*positive) < 1e-5 and difference(*negative) < 1e-5
    assert difference(positive[0], negative[0]) > 0.02


def test_words_may_count_negatively(model, sun, sample, reference, pairs, difference):
    patched, words = sun(with_negpip(model)), reference.io["in.neg0"]
    plain, opposite = (sample(patched, positive=pairs("pos0"), negative=pairs("neg0", w)) for w in (words, -words))
    assert difference(plain, opposite) > 0.02


def test_negative_that_negpip_has_not_made_is_read_as_it_is(model, sun, sample, conditioning, pairs, difference):
    drawn = sample(sun(with_negpip(model)), positive=pairs("pos0"), negative=conditioning("neg0"))
    assert difference(drawn, sample(sun())) < 1e-5


def in_steps(cond, start, end):
    """As smZNodes writes a part of [this:that:0.5] into a conditioning; it looks at them in ComfyUI's batches."""
    return [[cond[0][0], {"start_perc": Decimal(start), "end_perc": Decimal(end), "init_steps": 4}]]


def test_negative_of_some_steps_counts_in_these(sun, sample, conditioning, difference):
    """Trailing sigmas are steps of equal length, so that ComfyUI's ranges mean the same."""
    edited = in_steps(conditioning("neg0"), "0", "0.5") + in_steps(conditioning("neg1"), "0.5", "1")
    ranged = conditioning("neg0", end_percent=0.5) + conditioning("neg1", start_percent=0.5)
    drawn = sample(sun(), negative=edited)
    assert difference(drawn, sample(sun(), negative=ranged)) < 1e-5
    assert difference(drawn, sample(sun(), negative=conditioning("neg0") + conditioning("neg1"))) > 1e-3


@pytest.mark.parametrize(
    ("start", "end", "counted"),
    [("0", "1", [0, 1, 2, 3]), ("0", "0.5", [0, 1]), ("0.3", "0.8", [2, 3]), ("0.5", "0.75", [2]), ("0.1", "0.2", [])],
)
def test_steps_are_those_that_begin_within_the_share(start, end, counted):
    sigmas = torch.tensor([14.6, 4.0, 1.6, 0.7, 0.0])
    share = {"start_perc": Decimal(start), "end_perc": Decimal(end), "init_steps": 4}
    (cond,) = with_ranges([share], sigmas)
    in_range = [cond["timestep_end"] <= sigma <= cond["timestep_start"] for sigma in sigmas[:4].tolist()]
    assert [step for step, is_in in enumerate(in_range) if is_in] == counted


def test_a_range_that_comfyui_knows_stays():
    share = {"start_perc": Decimal(0), "end_perc": Decimal(1), "init_steps": 4, "timestep_start": 5.0}
    plain = {"timestep_end": 1.0}
    found = with_ranges([share, plain], torch.tensor([14.6, 4.0, 0.0]))
    assert found == [share | {"timestep_start": 5.0, "timestep_end": 0.0}, plain]
