"""Another number of steps behind SUN, by one click."""

import pytest
from sun_pack.conversion.plan import convert, make_plan
from sun_pack.conversion.steps import OFFERED

from .test_bad_input import node
from .test_corpus import load
from .test_findings import SD15, Json, here, sped_up
from .test_left_behind import off, pair, without, without_inner
from .test_negative import at_cfg
from .test_promoted import NAME, host_of, sampler_of
from .test_put_in_by_hand import with_lora


def values(workflow: Json, node_type: str) -> list[list]:
    return [one["widgets_values"] for one in workflow["nodes"] if one["type"] == node_type]


@pytest.mark.parametrize("steps", OFFERED)
def test_only_the_steps_change_and_no_badge_comes(steps: int) -> None:
    before = sped_up(sampler=[42, "fixed", 4, 7.0, "euler_ancestral", "karras", 1.0])
    after, plan = convert(f"steps_{steps}", before, [{"graph": None, "node": 8}], here(SD15))
    (sampler,) = values(before, "KSampler")
    assert values(after, "KSampler") == [[*sampler[:2], steps, *sampler[3:]]]
    assert plan.summary == f"KSampler (#5): {steps} steps"
    assert make_plan("fix", after, None, here(SD15)).edits == []


def test_restore_still_brings_back_what_was_before_speed_up() -> None:
    after, _ = convert("steps_8", sped_up(), None, here(SD15))
    restored, _ = convert("restore", after, None, here(SD15))
    assert values(restored, "KSampler") == values(load("text_to_image"), "KSampler")


def test_parts_of_a_schedule_keep_their_share() -> None:
    after, _ = convert("steps_8", load("three_advanced_passes.expected"), None, here(SD15))
    passes = values(after, "KSamplerAdvanced")
    assert {one[3] for one in passes} == {8}
    assert [one[7:9] for one in passes] == [[0, 2], [2, 4], [4, 10000]]


def test_message_names_the_steps_that_a_schedule_in_more_parts_needs() -> None:
    after, plan = convert("steps_2", load("three_advanced_passes.expected"), None, here(SD15))
    assert {one[3] for one in values(after, "KSamplerAdvanced")} == {3}
    assert plan.summary.endswith(": 3 steps")


def test_sampler_of_our_own_takes_the_steps_itself() -> None:
    workflow = load("sun_sampler_without_sun.expected")
    sampler = node(workflow, "SUNSampler")
    after, _ = convert("steps_6", workflow, [{"graph": None, "node": sampler["id"]}], here(SD15))
    assert 6 in node(after, "SUNSampler")["widgets_values"]


def test_partner_of_a_sampler_whose_sun_is_off_keeps_its_steps() -> None:
    plan = make_plan("steps_6", off(pair()[1], "SUNSpeedUp"), None, here(SD15))
    assert plan.edits == [] and "because a sampler without SUN shares its schedule" in plan.detail


def test_without_sun_nothing_changes() -> None:
    plan = make_plan("steps_6", load("text_to_image"), None, here(SD15))
    assert plan.edits == [] and plan.summary == "There is no sampler behind SUN here"


def four_steps() -> Json:
    """A workflow that has 4 steps before "Speed up", which therefore leaves them."""
    workflow = load("text_to_image")
    node(workflow, "KSampler")["widgets_values"][2] = 4
    return workflow


@pytest.mark.parametrize("copied", [False, True], ids=["the node itself", "a copy of it"])
def test_restore_brings_back_steps_that_speed_up_found_and_left(copied: bool) -> None:
    sped_up, _ = convert("speed_up", four_steps(), None, here(SD15))
    if copied:
        node(sped_up, "SUNSpeedUp")["properties"]["sun_restore"]["sun"] = 77
    eight, plan = convert("steps_8", sped_up, None, here(SD15))
    restored, _ = convert("restore", convert("steps_6", eight, None, here(SD15))[0], None, here(SD15))
    assert plan.edits and values(restored, "KSampler") == values(four_steps(), "KSampler")


def test_restore_brings_back_steps_that_speed_up_left_in_an_api_graph() -> None:
    """It has no notes, so that the record alone has them."""
    before = at_cfg(7.5, steps=4)
    sped_up, _ = convert("speed_up", before, None, here(SD15))
    restored, _ = convert("restore", convert("steps_8", sped_up, None, here(SD15))[0], None, here(SD15))
    assert restored == before


def test_steps_that_speed_up_left_come_back_after_sun_was_deleted_too() -> None:
    sped_up, _ = convert("speed_up", four_steps(), None, here(SD15))
    left = without(convert("steps_8", sped_up, None, here(SD15))[0], "SUNSpeedUp")
    restored, _ = convert("restore", left, None, here(SD15))
    assert values(restored, "KSampler") == values(four_steps(), "KSampler")


def test_note_on_the_node_of_a_subgraph_keeps_its_cfg_beside_the_steps() -> None:
    workflow = load(NAME)
    sampler_of(workflow)["widgets_values"][2] = host_of(workflow)["widgets_values"][1] = 4
    sped_up, _ = convert("speed_up", workflow, None, here(SD15))
    left = without_inner(convert("steps_8", sped_up, None, here(SD15))[0])
    restored, _ = convert("restore", left, None, here(SD15))
    assert host_of(restored)["widgets_values"] == host_of(workflow)["widgets_values"]


def test_steps_that_the_record_names_leave_no_note_of_what_sun_set() -> None:
    """A file's node without properties has no note of what was before."""
    workflow = sped_up()
    del node(workflow, "KSampler")["properties"]["sun_restore"]
    _, plan = convert("steps_8", workflow, None, here(SD15))
    assert [edit["op"] for edit in plan.edits] == ["set"]


def test_steps_behind_a_sun_of_ones_own_leave_no_note() -> None:
    workflow = sped_up()
    for kind in ("SUNSpeedUp", "KSampler"):
        del node(workflow, kind)["properties"]["sun_restore"]
    _, plan = convert("steps_8", workflow, None, here(SD15))
    assert [edit["op"] for edit in plan.edits] == ["set"]


def test_sampler_behind_sun_or_a_part_of_it_can_be_the_target() -> None:
    workflow = load("custom_advanced.expected")
    for kind in ("SamplerCustomAdvanced", "CFGGuider", "SUNSpeedUp"):
        after, _ = convert("steps_6", workflow, [{"graph": None, "node": node(workflow, kind)["id"]}], here(SD15))
        assert 6 in node(after, "BasicScheduler")["widgets_values"]


@pytest.mark.parametrize("action", ["steps_6", "fix"])
def test_targets_that_have_nothing_to_do_with_sun_leave_the_rest_alone(action: str) -> None:
    workflow = sped_up(sampler=[42, "fixed", 25, 1.0, "ddim", "simple", 1.0])
    for targets in ([], [{"graph": None, "node": node(workflow, "SaveImage")["id"]}]):
        assert make_plan(action, workflow, targets, here(SD15)).edits == []


def test_bypassed_sun_does_not_stand_for_a_sampler_behind_another_one() -> None:
    workflow = with_lora(sped_up(), "style.safetensors", "SUNSpeedUp")
    other = node(workflow, "LoraLoaderModelOnly")
    other |= {"type": "SUNSpeedUp", "mode": 4}
    assert make_plan("steps_6", workflow, [{"graph": None, "node": other["id"]}], here(SD15)).edits == []
