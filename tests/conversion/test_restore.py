"""Restore gives back exactly what was there, also where something was missing or malformed."""

import copy
from typing import Any

import pytest
from sun_pack.conversion.plan import convert

from .compare import canonical
from .test_bad_input import node
from .test_corpus import load
from .test_pack_samplers import case

Json = dict[str, Any]


def test_entry_of_an_api_graph_that_is_no_node_keeps_its_id() -> None:
    workflow = case("R_api_entry_overwritten")
    converted, _ = convert("speed_up", workflow)
    assert converted["8"] == workflow["8"] and "SUNSpeedUp" in {n.get("class_type") for n in converted.values()}
    assert convert("restore", converted)[0] == workflow


def test_entry_of_a_workflow_that_is_no_node_keeps_its_id() -> None:
    workflow = case("R_ui_entry_same_id")
    converted, _ = convert("speed_up", workflow)
    ids = [entry["id"] for entry in converted["nodes"]]
    assert len(ids) == len(set(ids)) and {"id": 8} in [{"id": entry["id"]} for entry in converted["nodes"]]
    assert canonical(convert("restore", converted)[0]) == canonical(workflow)


def test_promoted_settings_of_a_sampler_without_values_are_restored() -> None:
    workflow = case("R_promoted_absent_not_restored")
    converted, _ = convert("speed_up", workflow)
    hosts = [entry for entry in converted["nodes"] if entry["id"] in (5, 12)]
    assert [entry["widgets_values"] for entry in hosts] == [[7, 4, 1.0, 0.6], [8, 4, 1.0, 0.9]]
    assert canonical(convert("restore", converted)[0]) == canonical(workflow)


def test_sampler_without_values_gets_defaults_and_loses_them_again() -> None:
    workflow = load("text_to_image")
    del node(workflow, "KSampler")["widgets_values"]
    converted, _ = convert("speed_up", workflow)
    assert node(converted, "KSampler")["widgets_values"] == [0, "randomize", 4, 1.0, "ddim", "simple", 1.0]
    assert canonical(convert("restore", converted)[0]) == canonical(workflow)


def test_value_that_was_changed_since_is_not_lost_with_the_others() -> None:
    workflow = load("text_to_image")
    del node(workflow, "KSampler")["widgets_values"]
    converted, _ = convert("speed_up", workflow)
    node(converted, "KSampler")["widgets_values"][0] = 77
    restored = node(convert("restore", converted)[0], "KSampler")["widgets_values"]
    assert restored == [77, "randomize", 20, 8.0, "euler", "normal", 1.0]


def test_setting_that_an_api_graph_lacks_is_lacking_again() -> None:
    workflow = load("api_text_to_image")
    sampler = next(entry for entry in workflow.values() if entry["class_type"] == "KSampler")
    del sampler["inputs"]["cfg"]
    converted, _ = convert("speed_up", workflow)
    assert convert("restore", converted)[0] == workflow


@pytest.mark.parametrize("value", [[], {}, True, {"a": 1}])
def test_forged_value_is_neither_set_nor_taken_away(value: Any) -> None:
    converted, _ = convert("speed_up", load("text_to_image"))
    entry = node(converted, "SUNSpeedUp")["properties"]["sun_restore"]["settings"][0]
    entry["value"] = copy.deepcopy(value)
    restored, _ = convert("restore", converted)
    assert node(restored, "KSampler")["widgets_values"][2] in (4, value)
