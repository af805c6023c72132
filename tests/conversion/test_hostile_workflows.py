"""Workflows that are damaged at random, in both formats: converted or explained, and never half of it."""

import copy
import json
import random
import time
from typing import Any

import pytest
from sun_pack.conversion.check import check
from sun_pack.conversion.graph import ConversionError
from sun_pack.conversion.models import Installed
from sun_pack.conversion.plan import convert, make_plan, read

from .hostile import TIMES, assert_is_one_sentence, hostile_workflow

SEEDS, CASES = 10, 100
SLOW = 20.0
"""Seconds; the corpus takes milliseconds, a busy machine its time."""


@pytest.mark.parametrize("seed", range(SEEDS))
def test_hostile_workflow_is_converted_whole_or_explained(seed: int) -> None:
    rng = random.Random(seed)
    converted = 0
    for _ in range(CASES * TIMES):
        workflow = hostile_workflow(rng)
        started = time.monotonic()
        converted += sum(is_converted(action, workflow) for action in ("speed_up", "restore", "fix"))
        assert time.monotonic() - started < SLOW
    assert converted > CASES // 10


def is_converted(action: str, workflow: Any) -> bool:
    """Whether there was something to do; whatever happens, the workflow that came in stays as it was."""
    before = copy.deepcopy(workflow)
    try:
        plan = make_plan(action, workflow)
        result, same_plan = convert(action, workflow)
        said = check(read(workflow), Installed())
    except ConversionError as error:
        assert_is_one_sentence(str(error))
        return False
    finally:
        assert repr(workflow) == repr(before)
    assert repr(plan) == repr(same_plan)
    json.dumps([plan.as_json(), said], allow_nan=False)
    if not plan.edits:
        assert repr(result) == repr(workflow)
        return False
    try:
        convert("restore", result)
    except ConversionError as error:
        assert_is_one_sentence(str(error))
    return True
