"""What the tests of hostile input share: how many cases, how JSON is spoilt, and how a sentence is judged.

SUN_TEST_HOSTILE multiplies the number of cases: SUN_TEST_HOSTILE=50 python3 scripts/test.py -k hostile
"""

import copy
import os
import random
from typing import Any

TIMES = int(os.environ.get("SUN_TEST_HOSTILE", "1"))

JUNK = [None, True, -1, 0, 2.5, 10**30, float("nan"), -10, "", "<img onerror=alert(1)>", "\ud800", [], {}, [[]]]


def damage(value: Any, rng: random.Random) -> None:
    """Replace or remove a random value somewhere in JSON, which changes in place."""
    places: list[tuple[Any, Any]] = []
    waiting: list[Any] = [value]
    while waiting:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        places += [(holder, key) for key in keys]
        waiting += [holder[key] for key in keys]
    if not places:
        return
    holder, key = rng.choice(places)
    if rng.random() < 0.3:
        del holder[key]
    elif rng.random() < 0.2:
        other, place = rng.choice(places)
        holder[key] = copy.deepcopy(other[place])
    else:
        holder[key] = copy.deepcopy(rng.choice(JUNK))


def assert_is_one_sentence(text: str) -> None:
    """What an artist can be shown: one line, of a length to read, without a name of Python's."""
    assert text.endswith("."), text
    assert text.isprintable(), text
    assert len(text) < 500, text
    assert "Error" not in text and "Traceback" not in text, text
