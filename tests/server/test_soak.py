"""The soak finds what changes or grows, and a short one goes through."""

import pytest
from workshop.soak.resources import Resources
from workshop.soak.soaking import ALLOWED_GROWTH, Soak, soak


def measured(*held: Resources) -> Soak:
    return Soak(runs=len(held), measured=list(held))


def test_a_few_runs_draw_the_same_pictures_again() -> None:
    done = soak(9, seed=0)
    assert done.runs == len(done.measured) == 9 and done.changed == []
    assert all(held.memory > 10**8 and held.files > 0 and held.threads > 0 for held in done.measured)
    assert done.interrupted + done.drawn_again + len(done.seen) >= 9


@pytest.mark.parametrize("what", Resources._fields)
def test_what_grows_is_named(what: str) -> None:
    level = Resources(10**9, 10, 5)
    grown = level._replace(**{what: getattr(level, what) + getattr(ALLOWED_GROWTH, what) + 1})
    assert measured(*[level] * 9).failures() == []
    assert measured(*[level] * 3, *[grown] * 6).failures() == []  # while it warmed up
    (sentence,) = measured(*[level] * 6, *[grown] * 3).failures()
    assert f"The server's {what} grew" in sentence


def test_a_picture_that_changes_is_named() -> None:
    done = measured(*[Resources(10**9, 10, 5)] * 9)
    done.compare(3, "a picture", after_interrupt=False)
    done.compare(3, "a picture", after_interrupt=True)
    assert (done.drawn_again, done.drawn_again_after_interrupt, done.failures()) == (1, 1, [])
    done.compare(3, "another one", after_interrupt=False)
    assert done.failures() == ["A picture drawn again was another one: run 9, drawing 3."]
