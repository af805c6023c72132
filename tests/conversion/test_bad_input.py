"""Workflows that are malformed, hostile or very large: no crash, one sentence, and nothing half done."""

from typing import Any

import pytest
from sun_pack.conversion.graph import ConversionError
from sun_pack.conversion.plan import convert, make_plan

from .compare import canonical
from .test_corpus import load

Json = dict[str, Any]


def node(workflow: Json, node_type: str) -> Json:
    return next(node for node in workflow["nodes"] if node["type"] == node_type)


@pytest.mark.parametrize("data", [None, 3, "x", [], {}, {"nodes": 3}, {"nodes": {}}, {"a": {"class_type": 3}}])
def test_malformed_workflow_is_refused(data: Any) -> None:
    with pytest.raises(ConversionError, match=r"not a ComfyUI workflow"):
        make_plan("speed_up", data)


@pytest.mark.parametrize("action", ["", "drop", None, [], {}])
def test_unknown_action_is_refused(action: Any) -> None:
    with pytest.raises(ConversionError, match="action"):
        make_plan(action, load("text_to_image"))


@pytest.mark.parametrize("targets", [3, [3], [{"node": 99}], [{"graph": "no", "node": 1}], [{"graph": [], "node": []}]])
def test_missing_or_malformed_target_is_refused(targets: Any) -> None:
    with pytest.raises(ConversionError):
        make_plan("speed_up", load("text_to_image"), targets)


def test_model_line_in_a_circle_is_left_alone() -> None:
    workflow = load("lora_stack")
    loras = [entry for entry in workflow["nodes"] if entry["type"] == "LoraLoader"]
    number = loras[0]["inputs"][0]["link"]
    link = next(entry for entry in workflow["links"] if entry[0] == number)
    link[1], link[2] = loras[-1]["id"], 0
    plan = make_plan("speed_up", workflow)
    assert plan.edits == [] and "circle" in plan.detail


def test_missing_link_is_named() -> None:
    workflow = load("lora_stack")
    number = node(workflow, "LoraLoader")["inputs"][0]["link"]
    workflow["links"] = [link for link in workflow["links"] if link[0] != number]
    plan = make_plan("speed_up", workflow)
    assert plan.edits == [] and "LoraLoader (#3), which gets no MODEL" in plan.detail


@pytest.mark.parametrize("steps", [-5, 10**9, 1e300, "many", None, [], True])
def test_values_out_of_range_are_restored_as_they_were(steps: Any) -> None:
    workflow = load("text_to_image")
    node(workflow, "KSampler")["widgets_values"][2] = steps
    converted, _ = convert("speed_up", workflow)
    assert node(converted, "KSampler")["widgets_values"][2] == 4
    restored, _ = convert("restore", converted)
    if isinstance(steps, (int, float, str)):
        assert canonical(restored) == canonical(workflow)


def test_hostile_title_is_cut_and_kept_on_one_line() -> None:
    workflow = load("flux")
    node(workflow, "KSampler")["title"] = "<img onerror=alert(1)>\n\x1b[2J" + "x" * 10_000
    detail = make_plan("speed_up", workflow).detail
    assert "\x1b" not in detail and "\n" not in detail and len(detail) < 300


def forge(workflow: Json, record: Any) -> Json:
    node(workflow, "SUNSpeedUp")["properties"]["sun_restore"] = record
    node(workflow, "KSampler")["properties"]["sun_restore"] = {"version": 1, "former": {}}  # it would help out
    return workflow


@pytest.mark.parametrize(
    "settings",
    [
        3,
        [3],
        [{"node": 1, "widget": "ckpt_name", "value": "other.ckpt"}],
        [{"node": 5, "widget": "seed", "value": 1}],
        [{"node": 5, "widget": "steps", "value": {"a": 1}}],
        [{"node": 5, "widget": "sampler_name", "value": "x" * 10_000}],
        [{"node": "no", "widget": "steps", "value": 20}],
        [{"node": [], "widget": [], "value": []}],
    ],
)
def test_forged_record_sets_only_sampler_settings(settings: Any) -> None:
    workflow = forge(load("text_to_image.expected"), {"version": 1, "settings": settings})
    plan = make_plan("restore", workflow)
    assert [edit["op"] for edit in plan.edits] == ["connect", "remove"]


def test_restore_leaves_an_input_unplugged_if_the_recorded_node_is_gone() -> None:
    settings = [{"node": 5, "widget": "steps", "value": 20, "plug": [99, 0]}]
    workflow = forge(load("text_to_image.expected"), {"version": 1, "settings": settings})
    assert [edit["op"] for edit in make_plan("restore", workflow).edits] == ["connect", "remove", "set", "property"]


def test_deleted_sampler_does_not_prevent_restore() -> None:
    workflow = load("text_to_image.expected")
    workflow["nodes"] = [entry for entry in workflow["nodes"] if entry["type"] != "KSampler"]
    restored, plan = convert("restore", workflow)
    assert plan.edits and not any(entry["type"] == "SUNSpeedUp" for entry in restored["nodes"])


def test_too_many_nodes_are_refused() -> None:
    entry = {"type": "Note", "inputs": [], "outputs": []}
    with pytest.raises(ConversionError, match="nodes"):
        make_plan("speed_up", {"nodes": [{"id": i, **entry} for i in range(20_001)]})


def shifted(by: int) -> Json:
    workflow = load("text_to_image")
    for entry in workflow["nodes"]:
        entry["id"] += by
        entry["pos"][1] += by
        for slot in entry["inputs"]:
            slot["link"] = slot["link"] + by if slot["link"] else None
        for slot in entry["outputs"]:
            slot["links"] = [number + by for number in slot["links"]]
    workflow["links"] = [[a + by, b + by, c, d + by, e, kind] for a, b, c, d, e, kind in workflow["links"]]
    return workflow


def test_two_thousand_nodes_are_converted_and_restored() -> None:
    """The same workflow 286 times in one graph, under other ids."""
    parts = [shifted(1000 * i) for i in range(286)]
    nodes, links = ([entry for part in parts for entry in part[key]] for key in ("nodes", "links"))
    workflow = {**parts[0], "nodes": nodes, "links": links}
    converted, plan = convert("speed_up", workflow)
    assert len(nodes) > 2000 and sum(edit["op"] == "add" for edit in plan.edits) == 286
    assert canonical(convert("restore", converted)[0]) == canonical(workflow)
