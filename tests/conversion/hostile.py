"""What the tests of hostile input share: how many cases, how workflows are spoilt, and how a sentence is judged.

SUN_TEST_HOSTILE multiplies the number of cases: SUN_TEST_HOSTILE=50 python3 scripts/test.py -k hostile
"""

import copy
import json
import os
import random
from typing import Any

from sun_pack.conversion.finite_json import parse

from .test_corpus import NAMES, load

TIMES = int(os.environ.get("SUN_TEST_HOSTILE", "1"))

Json = dict[str, Any]

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
    """A workflow of the corpus, or a request with one, spoilt in some of these ways."""
    workflow = load(rng.choice(NAMES) + rng.choice(["", ".expected"]))
    for spoil in rng.sample(SPOIL, rng.choice((0, 0, 1, 2))):
        spoil(workflow, rng)
    for _ in range(rng.choice((0, 1, 2, 8, 30))):
        damage(workflow, rng)
    if rng.random() < 0.1:
        workflow = {"prompt": workflow, "extra_data": rng.choice(({}, {"extra_pnginfo": {"workflow": workflow}}, 3))}
    return parse(json.dumps(workflow))


def assert_is_one_sentence(text: str) -> None:
    """What an artist can be shown: one line, of a length to read, without a name of Python's."""
    assert text.endswith((".", "。")), text
    assert text.isprintable(), text
    assert len(text) < 500, text
    assert "Error" not in text and "Traceback" not in text, text
