"""The positives and negatives that are drawn."""

import random
from collections import Counter

import pytest
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.training.prompt_pairs import NegativeMix, PromptPairs, attributes

CAPTIONS = ["a cat, red, in snow", "a dog, blue", "a green fish"]
DRAWS = 4000


def drawn(mix, listed=("ugly",), captions=CAPTIONS):
    pairs, rng = PromptPairs(captions, mix, listed), random.Random(0)
    return [(caption, *pairs.draw(caption, rng)) for caption in captions for _ in range(DRAWS // len(captions))]


def test_negatives_come_in_the_shares_that_the_mix_says():
    counted = Counter()
    for caption, positive, negative in drawn(NegativeMix(empty=0.1, listed=0.2, captions=0.3, attributes=0.4)):
        kind = {"": "empty", "ugly": "listed"}.get(negative)
        counted[kind or ("captions" if positive == caption else "attributes")] += 1
    total = sum(counted.values())
    for kind, share in {"empty": 0.1, "listed": 0.2, "captions": 0.3, "attributes": 0.4}.items():
        assert counted[kind] / total == pytest.approx(share, abs=0.03), kind  # 4 standard deviations


def test_another_caption_is_never_that_of_the_picture():
    assert all(c != negative for c, _, negative in drawn(NegativeMix(empty=0, listed=0, captions=1, attributes=0)))


def test_an_attribute_in_the_negative_is_left_out_of_the_positive():
    for caption, positive, negative in drawn(NegativeMix(empty=0, listed=0, captions=0, attributes=1)):
        assert negative in caption and negative not in positive


def test_attributes_are_parts_between_commas_or_words():
    assert {attribute for _, attribute in attributes("a cat, red, in snow")} == {"red", "in snow"}
    assert {attribute for _, attribute in attributes("a fish in the sea")} == {"fish", "sea"}
    assert attributes("cat") == []
    assert attributes("") == []


def test_the_share_of_an_empty_source_goes_to_the_others():
    only_listed = drawn(NegativeMix(empty=0, listed=0.1, captions=0.9, attributes=0), captions=["cat"])
    assert {negative for _, _, negative in only_listed} == {"ugly"}
    nothing = drawn(NegativeMix(empty=0, listed=1, captions=0, attributes=0), listed=())
    assert {negative for _, _, negative in nothing} == {""}


def test_texts_lists_everything_that_can_be_drawn():
    pairs = PromptPairs(CAPTIONS, NegativeMix(), ["ugly"])
    texts = set(pairs.texts())
    for _, positive, negative in drawn(NegativeMix()):
        assert {positive, negative} <= texts


@pytest.mark.parametrize("shares", [(-0.1, 1, 1, 1), (0, 0, 0, 0)])
def test_an_invalid_mix_is_refused(shares):
    with pytest.raises(SunError):
        NegativeMix(*shares)
