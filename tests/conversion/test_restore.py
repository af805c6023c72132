"""Restore gives back exactly what was there, also where something was missing or malformed."""

import copy
from typing import Any

import pytest
from sun_pack.conversion.check import check
from sun_pack.conversion.models import Adapter, Installed
from sun_pack.conversion.plan import convert, read

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
    node(converted, "KSampler")["properties"]["sun_restore"] = {"version": 1, "former": {}}  # it would help out
    entry["value"] = copy.deepcopy(value)
    restored, _ = convert("restore", converted)
    assert node(restored, "KSampler")["widgets_values"][2] in (4, value)


def without_sun(workflow: Json) -> Json:
    """Delete the SUN node as the page does: what it fed is left without a link, and is linked to the loader again."""
    workflow = copy.deepcopy(workflow)
    sun = node(workflow, "SUNSpeedUp")
    (into,) = (link for link in workflow["links"] if link[3] == sun["id"])
    for link in workflow["links"]:
        if link[1] == sun["id"]:
            link[1:3] = into[1:3]
    workflow["nodes"].remove(sun)
    workflow["links"].remove(into)
    return workflow


@pytest.mark.parametrize("name", ["text_to_image", "primitives_drive_steps_and_cfg", "split_sigmas"])
def test_deleted_sun_leaves_a_badge_on_its_sampler_and_a_fix(name: str) -> None:
    before = load(name)
    left = without_sun(convert("speed_up", before)[0])
    entries = check(read(left), Installed())
    assert entries and {entry["badge"]["text"] for entry in entries} == {"SUN is gone"}
    assert all(entry["badge"]["fix"] and entry["face"] == [] for entry in entries)
    targets = [{"graph": entry["graph"], "node": entry["node"]} for entry in entries]
    for action in ("fix", "restore"):
        fixed, _ = convert(action, left, targets)
        values = [(one["id"], one.get("widgets_values"), one["properties"]) for one in fixed["nodes"]]
        assert values == [(one["id"], one.get("widgets_values"), one["properties"]) for one in before["nodes"]]
        assert check(read(fixed), Installed()) == []


def test_sampler_that_was_set_anew_after_sun_was_deleted_has_no_badge() -> None:
    left = without_sun(convert("speed_up", load("text_to_image"))[0])
    node(left, "KSampler")["widgets_values"][2:4] = [20, 7.0]
    assert check(read(left), Installed()) == []


@pytest.mark.parametrize("off", [2, 4, "strength"])
def test_sun_placed_by_hand_that_is_off_gets_a_fix_with_plain_settings(off: Any) -> None:
    workflow = convert("speed_up", load("text_to_image"))[0]
    sun, sampler = node(workflow, "SUNSpeedUp"), node(workflow, "KSampler")
    for each in (sun, sampler):
        del each["properties"]["sun_restore"]
    if off == "strength":
        sun["widgets_values"][1] = 0
    else:
        sun["mode"] = off
    here = Installed([Adapter(sun["widgets_values"][0])])
    badges = {entry["node"]: entry["badge"] for entry in check(read(workflow), here)}
    assert badges[sampler["id"]]["text"] == badges[sun["id"]]["text"] == "SUN is off"
    for number in (sun["id"], sampler["id"]):
        fixed, _ = convert("fix", workflow, [{"graph": None, "node": number}], here)
        assert node(fixed, "KSampler")["widgets_values"][2:6] == [25, 7.0, "dpmpp_2m", "karras"]
        assert node(fixed, "SUNSpeedUp")["mode"] == (0 if off == "strength" else 4), (
            "a muted node would break the MODEL line"
        )
        assert not any(entry["badge"] for entry in check(read(fixed), here))


@pytest.mark.parametrize("mode", [2, 4])
def test_sun_of_the_click_that_is_off_is_told_at_its_sampler_and_can_be_turned_on_again(mode: int) -> None:
    before = load("text_to_image")
    workflow = convert("speed_up", before)[0]
    sun, sampler = node(workflow, "SUNSpeedUp"), node(workflow, "KSampler")
    sun["mode"] = mode
    badges = {entry["node"]: entry["badge"] for entry in check(read(workflow), Installed())}
    assert badges[sampler["id"]]["text"] == "SUN is off" and badges[sampler["id"]]["fix"]
    fixed, _ = convert("fix", workflow, [{"graph": None, "node": sampler["id"]}])
    assert node(fixed, "KSampler")["widgets_values"] == node(before, "KSampler")["widgets_values"]
    assert not any(entry["badge"] for entry in check(read(fixed), Installed()))
    node(fixed, "SUNSpeedUp")["mode"] = 0
    again, _ = convert("fix", fixed)
    assert node(again, "KSampler")["widgets_values"][2] == 4, "SUN is on again, so that its few steps are"
    assert canonical(convert("restore", again)[0]) == canonical(before)


@pytest.mark.parametrize("is_below", [False, True], ids=["before SUN", "behind SUN"])
def test_fix_bypasses_another_few_step_lora_and_restore_brings_it_back(is_below: bool) -> None:
    before = load("two_samplers_on_one_line")
    after = convert("speed_up", before)[0]
    lora = node(after, "LoraLoader")
    lora["widgets_values"][0] = "lcm-lora-sdv1-5.safetensors"
    sun = node(after, "SUNSpeedUp")
    if is_below:  # SUN goes to the LoRA's place, and the LoRA to SUN's
        links = {(link[3], link[4]): link for link in after["links"]}
        into_lora, into_sun = links[lora["id"], 0], links[sun["id"], 0]
        for link in after["links"]:
            if link[1] == sun["id"]:
                link[1] = lora["id"]
        into_lora[1:3], into_sun[1:3] = [sun["id"], 0], into_lora[1:3]
    (found,) = (entry for entry in check(read(after), Installed([Adapter(sun["widgets_values"][0])])))
    assert found["badge"]["fix"], found
    fixed, plan = convert("fix", after, None, Installed([Adapter(sun["widgets_values"][0])]))
    assert node(fixed, "LoraLoader")["mode"] == 4 and {edit["op"] for edit in plan.edits} == {"mode", "property"}
    assert [entry["badge"] for entry in check(read(fixed), Installed([Adapter(sun["widgets_values"][0])]))] == [None]
    restored, plan = convert("restore", fixed)
    assert node(restored, "LoraLoader")["mode"] == 0 and "LoraLoader" in plan.detail
    assert "sun_restore" not in node(restored, "LoraLoader")["properties"]


@pytest.mark.parametrize("action", ["fix", "restore"])
def test_note_on_a_sampler_of_an_api_graph_is_followed_too(action: str) -> None:
    workflow = load("api_text_to_image")
    sampler = next(entry for entry in workflow.values() if entry["class_type"] == "KSampler")
    sampler["inputs"] |= {"steps": 4, "cfg": 1}
    sampler["_meta"] = {"title": "Mine", "sun_restore": {"version": 1, "former": {"steps": 25, "cfg": 7}}}
    after, _ = convert(action, workflow)
    (restored,) = (entry for entry in after.values() if entry["class_type"] == "KSampler")
    assert (restored["inputs"]["steps"], restored["inputs"]["cfg"]) == (25, 7)
    assert restored["_meta"] == {"title": "Mine"}


@pytest.mark.parametrize("is_deleted", [False, True], ids=["SUN is there", "SUN is deleted"])
@pytest.mark.parametrize("name", ["primitives_drive_steps_and_cfg", "primitive_int_through_a_reroute"])
def test_primitive_that_was_changed_stands_for_its_samplers(name: str, is_deleted: bool) -> None:
    before = load(name)
    after, _ = convert("speed_up", before)
    after = without_sun(after) if is_deleted else after
    (primitive, *_) = (one for one in after["nodes"] if one["type"].startswith("Primitive"))
    assert "sun_restore" in primitive["properties"], "by which the page offers Restore on it"
    restored, _ = convert("restore", after, [{"graph": None, "node": primitive["id"]}])
    values = {one["id"]: one.get("widgets_values") for one in restored["nodes"]}
    assert values == {one["id"]: one.get("widgets_values") for one in before["nodes"]}


def test_few_step_lora_that_another_sampler_needs_is_not_bypassed() -> None:
    workflow, _ = convert("speed_up", load("two_samplers_on_one_line"), [{"graph": None, "node": 6}])
    node(workflow, "LoraLoader")["widgets_values"][0] = "lcm-lora-sdv1-5.safetensors"
    here = Installed([Adapter(node(workflow, "SUNSpeedUp")["widgets_values"][0])])
    (found,) = (entry["badge"] for entry in check(read(workflow), here) if entry["badge"])
    assert "LoraLoader" in found["detail"] and not found["fix"]
