"""What the nodes of a workflow share, so that large graphs stay quick."""

from types import SimpleNamespace

import pytest
from sun_pack.conversion.surroundings import once, once_per_group


@pytest.mark.parametrize("shared", [once, once_per_group])
def test_what_is_shared_is_made_once_for_the_same_arguments_and_anew_for_others(shared) -> None:
    made = []

    @shared
    def make(subject, around, steps: int, *, is_off: bool = False) -> tuple[int, bool]:
        made.append((steps, is_off))
        return made[-1]

    partners: list[str] = ["sampler"]
    around = SimpleNamespace(kept={}, partners_of=lambda sampler: partners)
    for given in ((4, False), (4, True), (8, True), (4, False)):
        steps, is_off = given
        assert make("sampler", around, steps, is_off=is_off) == given
    assert made == [(4, False), (4, True), (8, True)]
