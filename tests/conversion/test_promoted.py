"""Settings that stand on a subgraph's node: where their values are, and what becomes of them when the graph changes."""

import copy
from typing import Any

import pytest
from sun_pack.conversion.plan import convert, read
from sun_pack.conversion.samplers import find_samplers

from .compare import canonical
from .test_corpus import load

NAME = "subgraph_with_promoted_settings"
SAMPLER, INNER_STEPS = 100, 2


def host_of(workflow: dict[str, Any]) -> dict[str, Any]:
    (definition,) = workflow["definitions"]["subgraphs"]
    return next(node for node in workflow["nodes"] if node["type"] == definition["id"])


def sampler_of(workflow: dict[str, Any]) -> dict[str, Any]:
    return next(node for node in workflow["definitions"]["subgraphs"][0]["nodes"] if node["id"] == SAMPLER)


def test_only_the_settings_change_on_the_node_of_the_subgraph() -> None:
    assert host_of(load(NAME))["widgets_values"] == [7, 30, 6.5, 0.6]
    converted, plan = convert("speed_up", load(NAME))
    assert host_of(converted)["widgets_values"] == [7, 4, 1, 0.6]
    assert "steps 30 -> 4, cfg 6.5 -> 1" in plan.detail


@pytest.mark.parametrize(
    ("name", "steps"), [(NAME, 30), ("subgraph_with_proxies_of_settings", 30), (f"{NAME}_in_a_subgraph", 30)]
)
def test_current_value_is_that_on_the_node_of_the_subgraph(name: str, steps: int) -> None:
    assert [sampler.value("steps") for sampler in find_samplers(read(load(name)))] == [steps]


def test_value_is_unknown_if_the_nodes_of_the_subgraph_differ() -> None:
    assert [sampler.value("steps") for sampler in find_samplers(read(load(f"{NAME}_used_twice")))] == [None]


@pytest.mark.parametrize("values", [None, [], [7], {"seed": 7}])
def test_node_of_the_subgraph_without_saved_steps_is_left_to_the_node_inside(values: Any) -> None:
    workflow = load(NAME)
    host_of(workflow)["widgets_values"] = values
    converted, _ = convert("speed_up", workflow)
    assert host_of(converted)["widgets_values"] == values
    assert sampler_of(converted)["widgets_values"][INNER_STEPS] == 4
    assert canonical(convert("restore", converted)[0]) == canonical(workflow)


def test_copy_of_the_subgraphs_node_gets_back_what_the_first_one_had() -> None:
    converted, _ = convert("speed_up", load(NAME))
    converted["nodes"].append({**copy.deepcopy(host_of(converted)), "id": 50})
    restored, _ = convert("restore", converted)
    (copied,) = (node for node in restored["nodes"] if node["id"] == 50)
    assert copied["widgets_values"] == [7, 30, 6.5, 0.6]


def test_sampler_of_a_subgraph_that_was_taken_apart_gets_back_what_its_node_showed() -> None:
    converted, _ = convert("speed_up", load(NAME))
    (definition,) = converted["definitions"]["subgraphs"]
    converted["nodes"] += definition["nodes"]
    converted["definitions"]["subgraphs"] = []
    for node in definition["nodes"]:
        for slot in node["inputs"]:
            slot["link"] = None
    restored, _ = convert("restore", converted)
    (sampler,) = (node for node in restored["nodes"] if node["type"] == "KSampler")
    assert sampler["widgets_values"][INNER_STEPS] == 30


def test_values_that_a_newer_page_keeps_of_an_older_one_are_converted_too() -> None:
    workflow = load(NAME)
    kept = [{"originalEntry": ["-1", name], "hostValue": value} for name, value in (("seed", 7), ("steps", 30))]
    host_of(workflow)["properties"]["proxyWidgetErrorQuarantine"] = kept
    converted, _ = convert("speed_up", workflow)
    entries = host_of(converted)["properties"]["proxyWidgetErrorQuarantine"]
    assert [entry["hostValue"] for entry in entries] == [7, 4]
    assert canonical(convert("restore", converted)[0]) == canonical(workflow)


@pytest.mark.parametrize(
    "proxies", [{}, [[]], [["100"]], [[100, "steps"]], [["100", ["steps"]]], [["x", "y"]] * 9, [7]]
)
def test_malformed_promoted_widgets_are_ignored(proxies: Any) -> None:
    workflow = load(NAME)
    host_of(workflow)["properties"]["proxyWidgets"] = proxies
    converted, _ = convert("speed_up", workflow)
    assert sampler_of(converted)["widgets_values"][INNER_STEPS] == 4
    assert canonical(convert("restore", converted)[0]) == canonical(workflow)


def test_two_subgraphs_that_share_a_promoted_setting_stay_linked_to_it() -> None:
    workflow = load(f"{NAME}_in_a_subgraph")
    inner, outer = workflow["definitions"]["subgraphs"]
    first = next(node for node in outer["nodes"] if node["type"] == inner["id"])
    second = copy.deepcopy(first)
    outer["nodes"].append({**second, "id": 250, "outputs": []})
    for index, slot in enumerate(second["inputs"]):
        link = next(link for link in outer["links"] if link["id"] == slot["link"])
        slot["link"] = 100 + index
        outer["links"].append({**link, "id": 100 + index, "target_id": 250})
    converted, _ = convert("speed_up", workflow)
    around = converted["definitions"]["subgraphs"][1]
    hosts = [node for node in (*converted["nodes"], *around["nodes"]) if node["type"] in (inner["id"], outer["id"])]
    assert [host["widgets_values"] for host in hosts] == [[7, 4, 1, 0.6]] * 3
    assert around["links"] == outer["links"]
    assert canonical(convert("restore", converted)[0]) == canonical(workflow)


@pytest.mark.parametrize("is_used", [True, False])
def test_subgraph_within_itself_ends(is_used: bool) -> None:
    workflow = load(NAME)
    (definition,) = workflow["definitions"]["subgraphs"]
    inside = {**copy.deepcopy(host_of(workflow)), "id": 150}
    definition["nodes"].append(inside)
    for slot in inside["inputs"]:
        slot["link"] = next((i["link"] for i in sampler_of(workflow)["inputs"] if i["name"] == slot["name"]), None)
    for link in list(definition["links"]):
        if link["origin_id"] == -10:
            number = 1000 + link["id"]
            definition["links"].append({**link, "id": number, "target_id": 150, "target_slot": link["origin_slot"]})
            inside["inputs"][link["origin_slot"]]["link"] = number
    if not is_used:
        workflow["nodes"].remove(host_of(workflow))
    converted, plan = convert("speed_up", workflow)
    added = [edit["graph"] for edit in plan.edits if edit["op"] == "add"]
    assert added == ([definition["id"]] if is_used else [])
    assert sampler_of(converted)["widgets_values"][INNER_STEPS] == (4 if is_used else 25)


@pytest.mark.parametrize("hosts", [7, [7], [{}], [{"graph": [], "node": {}, "value": [], "plug": [[], 0]}]])
def test_malformed_record_of_subgraph_nodes_is_ignored(hosts: Any) -> None:
    converted, _ = convert("speed_up", load(NAME))
    nodes = converted["definitions"]["subgraphs"][0]["nodes"]
    (sun,) = (node for node in nodes if node["type"] == "SUNSpeedUp")
    for entry in sun["properties"]["sun_restore"]["settings"]:
        entry["hosts"] = hosts
    restored, _ = convert("restore", converted)
    assert sampler_of(restored)["widgets_values"][INNER_STEPS] == 25
