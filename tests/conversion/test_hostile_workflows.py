"""Workflows that are damaged at random, in both formats: converted or explained, and never half of it."""

import copy
import json
import random
import time
from typing import Any

import pytest
from sun_pack.conversion.check import check
from sun_pack.conversion.finite_json import parse
from sun_pack.conversion.graph import ConversionError
from sun_pack.conversion.models import Installed
from sun_pack.conversion.plan import convert, make_plan, read

from .hostile import JUNK, TIMES, assert_is_one_sentence, damage
from .test_corpus import NAMES, load

SEEDS, CASES = 10, 100
SLOW = 20.0
"""Seconds; the corpus takes milliseconds, a busy machine its time."""

Json = dict[str, Any]


def nodes_of(workflow: Json) -> list[Json]:
    nodes = workflow.get("nodes") if "nodes" in workflow else list(workflow.values())
    return [node for node in nodes if isinstance(node, dict)] if isinstance(nodes, list) else []


def same_ids(workflow: Json, rng: random.Random) -> None:
    """Two nodes get the same id."""
    nodes = nodes_of(workflow)
    if len(nodes) > 1 and "nodes" in workflow:
        one, other = rng.sample(nodes, 2)
        one["id"] = other.get("id")


def links_in_circles(workflow: Json, rng: random.Random) -> None:
    """Links get other ends, most of which no node has."""
    for link in workflow["links"] if isinstance(workflow.get("links"), list) else []:
        if isinstance(link, list) and len(link) > 4 and rng.random() < 0.3:
            link[rng.choice((1, 2, 3, 4))] = rng.choice((0, 1, 2, 3, 4, 5, -1, 10**9))
    for node in nodes_of(workflow) if "nodes" not in workflow else []:
        for name, value in node.get("inputs", {}).items():
            if isinstance(value, list) and rng.random() < 0.3:
                node["inputs"][name] = [rng.choice(list(workflow)), rng.choice((0, 1, -1, "0"))]


def subgraph_in_itself(workflow: Json, rng: random.Random) -> None:
    """A subgraph holds an instance of itself, or is called what another one is called."""
    definitions = workflow.get("definitions")
    graphs = definitions.get("subgraphs") if isinstance(definitions, dict) else None
    if isinstance(graphs, list) and graphs and isinstance(graphs[0], dict) and isinstance(graphs[0].get("nodes"), list):
        graphs[0]["nodes"].append({"id": 9000, "type": graphs[0].get("id"), "inputs": [], "outputs": []})
        graphs[-1]["id"] = graphs[0].get("id")


def deep(workflow: Json, rng: random.Random) -> None:
    """A value is nested a thousand times."""
    value: Any = "x"
    for _ in range(rng.choice((50, 400))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    nodes = nodes_of(workflow)
    if nodes:
        rng.choice(nodes)[rng.choice(("inputs", "properties", "widgets_values", "type", "title"))] = value


def forged_record(workflow: Json, rng: random.Random) -> None:
    """What Restore needs is forged."""
    for node in nodes_of(workflow):
        if node.get("type") == "SUNSpeedUp" and isinstance(node.get("properties"), dict):
            record = node["properties"].setdefault("sun_restore", {})
            node["properties"]["sun_restore"] = rng.choice((*JUNK, {"version": 99}, {"version": 1, "settings": JUNK}))
            if isinstance(record, dict) and rng.random() < 0.5:
                damage(record, rng)
                node["properties"]["sun_restore"] = record


SPOIL = [same_ids, links_in_circles, subgraph_in_itself, deep, forged_record]


def hostile_workflow(rng: random.Random) -> Any:
    workflow = load(rng.choice(NAMES) + rng.choice(["", ".expected"]))
    for spoil in rng.sample(SPOIL, rng.choice((0, 0, 1, 2))):
        spoil(workflow, rng)
    for _ in range(rng.choice((0, 1, 2, 8, 30))):
        damage(workflow, rng)
    if rng.random() < 0.1:
        workflow = {"prompt": workflow, "extra_data": rng.choice(({}, {"extra_pnginfo": {"workflow": workflow}}, 3))}
    return parse(json.dumps(workflow))


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
