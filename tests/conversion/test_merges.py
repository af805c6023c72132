"""SUN beside nodes that merge two MODELs: only what is on the first one stays."""

from typing import Any

import pytest
from sun_pack.conversion.check import check
from sun_pack.conversion.plan import convert, make_plan, read
from sun_pack.conversion.rules import NEGATIVE

from .test_corpus import load
from .test_findings import SD15, here

Json = dict[str, Any]
SUN = {"adapter_name": SD15.name, "strength": 1.0, "settings": "automatic"}


def merged(kind: str = "ModelMergeSimple", sun: str = "SUNSpeedUp", **models: Any) -> Json:
    """Merge two checkpoints before the KSampler of a text to image graph in the API's format.

    Node 8 is a second loader, 9 the merge, 10 a SUN node behind the second loader.
    """
    workflow = load("api_text_to_image")
    workflow["5"]["inputs"] |= {"model": ["9", 0], "steps": 4, "cfg": 1.0}
    workflow["8"] = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "dreamshaper_8.safetensors"}}
    workflow["9"] = {"class_type": kind, "inputs": {"model1": ["1", 0], "model2": ["10", 0], **models}}
    workflow["10"] = {"class_type": sun, "inputs": {"model": ["8", 0], **(SUN if sun == "SUNSpeedUp" else {})}}
    return workflow


def badges(workflow: Json) -> dict[str, str]:
    return {entry["node"]: entry["badge"]["text"] for entry in check(read(workflow), here(SD15)) if entry["badge"]}


@pytest.mark.parametrize("sun", ["SUNSpeedUp", NEGATIVE])
@pytest.mark.parametrize("kind", ["ModelMergeSimple", "ModelMergeBlocks", "ModelMergeAdd", "ModelMergeSD1"])
def test_sun_on_the_second_model_is_told_to_go_behind_the_merge(kind: str, sun: str) -> None:
    (entry,) = (one for one in check(read(merged(kind, sun)), here(SD15)) if one["badge"])
    assert entry["node"] == "10" and entry["samplers"] == []
    assert entry["badge"] == {
        "text": "lost in a merge",
        "detail": f"{sun} (#10) is on model2 of {kind} (#9), which takes only the weights from there; put it behind "
        "the merge.",
        "fix": False,
    }


@pytest.mark.parametrize("sun", ["SUNSpeedUp", NEGATIVE])
def test_sun_on_the_first_model_or_before_both_stays(sun: str) -> None:
    first = merged(sun=sun, model1=["10", 0], model2=["1", 0])
    both = merged(sun=sun, model1=["10", 0], model2=["10", 0])
    assert badges(first) == badges(both) == {}


def test_sun_in_a_merge_of_merges_is_lost_above_any_second_input() -> None:
    inner = {"class_type": "ModelMergeSimple", "inputs": {"model1": ["10", 0], "model2": ["1", 0]}}
    kept = merged(model1=["11", 0], model2=["1", 0]) | {"11": inner}
    lost = merged(model1=["1", 0], model2=["11", 0]) | {"11": inner}
    assert badges(kept) == {} and badges(lost) == {"10": "lost in a merge"}


def test_another_node_with_two_models_loses_nothing() -> None:
    assert badges(merged("SomeSwitch")) == {}


def test_lost_sun_is_neither_served_nor_in_the_way_of_another() -> None:
    after, plan = convert("speed_up", merged(), None, here(SD15))
    (new,) = (edit for edit in plan.edits if edit["op"] == "add")
    assert after["5"]["inputs"]["model"] == [str(new["id"]), 0] and after[str(new["id"])]["inputs"]["model"] == ["9", 0]
    assert (
        "SUNSpeedUp (#10) has no effect on model2 of ModelMergeSimple (#9), which takes only the weights from there; "
        "remove it." in plan.detail
    )
    assert badges(after) == {}
    assert convert("restore", after, None, here(SD15))[0] == merged()


def test_negative_prompt_counts_behind_a_merge_that_loses_another_node() -> None:
    after, plan = convert("negative", merged(sun=NEGATIVE), None, here(SD15))
    (new,) = (edit["id"] for edit in plan.edits if edit["op"] == "add")
    assert after["5"]["inputs"]["model"] == [str(new), 0] and badges(after) == {}


def test_sun_is_never_put_above_a_merge() -> None:
    plain = merged(model2=["8", 0])
    after, plan = convert("speed_up", plain, None, here(SD15))
    new = str(next(edit["id"] for edit in plan.edits if edit["op"] == "add"))
    assert after[new]["inputs"]["model"] == ["9", 0] and after["9"] == plain["9"]


def test_sun_that_came_on_the_second_model_later_is_restored_from_the_sampler() -> None:
    """The user drew a merge behind the SUN of the click."""
    workflow = load("api_text_to_image")
    sped_up, plan = convert("speed_up", workflow, None, here(SD15))
    sun = str(next(edit["id"] for edit in plan.edits if edit["op"] == "add"))
    sped_up["20"] = {"class_type": "ModelMergeSimple", "inputs": {"model1": ["1", 0], "model2": [sun, 0]}}
    sped_up["5"]["inputs"]["model"] = ["20", 0]
    assert badges(sped_up) == {sun: "lost in a merge"}
    restored, _ = convert("restore", sped_up, [{"graph": None, "node": "5"}], here(SD15))
    assert sun not in restored and restored["5"]["inputs"]["steps"] == workflow["5"]["inputs"]["steps"]


def test_few_step_model_counts_with_its_weights_on_either_side() -> None:
    workflow = merged(model2=["8", 0])
    workflow["8"]["inputs"]["ckpt_name"] = "dreamshaper_8LCM.safetensors"
    assert "few-step" in make_plan("speed_up", workflow, None, here(SD15)).detail
