"""A SUN node that was put in by hand and turned off or deleted: what its samplers show, and what Fix gives them."""

import copy
from typing import Any

import pytest
from sun_pack.conversion.check import check
from sun_pack.conversion.plan import convert, read
from sun_pack.conversion.restore import take_out
from sun_pack.conversion.samplers import find_samplers
from sun_pack.conversion.surroundings import Surroundings
from sun_pack.conversion.ui_edits import apply_to_ui

from .compare import canonical
from .test_bad_input import node
from .test_corpus import LEFT, NAMES, load
from .test_findings import SD15, here
from .test_left_behind import SUN, Json, badges, off, pair, values

WITH_SUN = [name for name in NAMES if name not in LEFT and not name.startswith(("api_", "sun_sampler"))]


def placed_by_hand(name: str = "text_to_image", **settings: Any) -> Json:
    """A graph with SUN in which nothing says what its samplers had before. Each KSampler gets the settings."""
    workflow, _ = convert("speed_up", load(name), None, here(SD15))
    for one in (one for graph in graphs_of(workflow) for one in graph["nodes"]):
        one.get("properties", {}).pop("sun_restore", None)
        for setting, value in settings.items() if one["type"] == "KSampler" else ():
            one["widgets_values"][["steps", "cfg", "sampler", "scheduler"].index(setting) + 2] = value
    return workflow


def graphs_of(workflow: Json) -> list[Json]:
    return [workflow, *workflow.get("definitions", {}).get("subgraphs", [])]


def deleted(workflow: Json, most: int | None = None) -> Json:
    """Delete the SUN nodes as the page does, or so many of them."""
    here_now = read(workflow)
    suns = [one for one in here_now.nodes() if one.type == SUN][:most]
    gone = {(sun.graph.id, sun.id) for sun in suns}
    found = [entry for entry in check(here_now, here(SD15)) if (entry["graph"], entry["node"]) in gone]
    edits = [edit for entry in found for edit in entry["on_delete"]]
    return apply_to_ui(workflow, [*edits, *take_out(suns)], {})


@pytest.mark.parametrize("name", WITH_SUN)
def test_samplers_whose_sun_of_ones_own_was_deleted_say_so_and_get_plain_settings(name: str) -> None:
    workflow = placed_by_hand(name)
    assert badges(workflow) == {}
    around = Surroundings(read(workflow), here(SD15))
    behind = {sampler.node.id for sampler in around.samplers if around.has_sun(sampler)}
    left = deleted(workflow)
    found = badges(left)
    assert found.keys() == behind and all(badge["text"] == "SUN is gone" and badge["fix"] for badge in found.values())
    back, _ = convert("fix", left, None, here(SD15))
    assert badges(back) == {} and "sun_restore" not in str(back)
    for sampler in find_samplers(read(back)):
        if sampler.node.id in behind:
            assert sampler.value("cfg") == 7.0 and sampler.value("sampler") in ("dpmpp_2m", None)
            assert sampler.value("steps") == 25 or sampler.all_of("boundary")
    assert canonical(convert("restore", left, None, here(SD15))[0]) == canonical(back)


@pytest.mark.parametrize("cfg", [1.0, 7.0])
def test_sampler_at_any_cfg_is_told_that_sun_is_gone(cfg: float) -> None:
    (badge,) = badges(deleted(placed_by_hand(cfg=cfg))).values()
    assert f"is still set to 4 steps at CFG {cfg:g}, and SUN is gone" in badge["detail"]


def test_sun_that_was_placed_by_hand_is_told_when_it_is_off_whatever_the_cfg() -> None:
    workflow = placed_by_hand(cfg=7.0)
    assert badges(workflow) == {}
    found = badges(off(workflow, SUN))
    assert len(found) == 2 and {badge["text"] for badge in found.values()} == {"SUN is off"}


def test_settings_that_sun_only_overrides_for_the_run_stay_as_the_artist_set_them() -> None:
    workflow = placed_by_hand(cfg=6.0, sampler="euler_ancestral", scheduler="normal")
    for left in (off(workflow, SUN), deleted(workflow)):
        assert values(convert("fix", left, None, here(SD15))[0])[0][2:6] == [25, 6.0, "euler_ancestral", "normal"]


def test_sun_that_was_placed_by_hand_leaves_no_note_that_is_not_needed() -> None:
    sped_up, _ = convert("speed_up", load("text_to_image"), None, here(SD15))
    for workflow in (sped_up, placed_by_hand(steps=20)):
        assert [entry["on_delete"] for entry in check(read(workflow), here(SD15)) if entry["on_delete"]] == []


def test_partners_whose_suns_of_ones_own_are_deleted_one_by_one_get_the_same_plain_settings() -> None:
    _, workflow = pair()
    for one in workflow["nodes"]:
        one["properties"].pop("sun_restore", None)
    back, _ = convert("fix", deleted(deleted(workflow, 1)), None, here(SD15))
    assert [one[3:7] for one in values(back)] == [[25, 7.0, "dpmpp_2m", "karras"]] * 2 and badges(back) == {}


def with_lora(workflow: Json, name: str, before: str) -> Json:
    """Put a LoRA on the MODEL line before the node of the type `before`."""
    workflow = copy.deepcopy(workflow)
    target = node(workflow, before)
    (into,) = (link for link in workflow["links"] if link[3] == target["id"] and link[5] == "MODEL")
    workflow["nodes"].append(
        {
            "id": 70,
            "type": "LoraLoaderModelOnly",
            "properties": {},
            "inputs": [{"name": "model", "type": "MODEL", "link": 900}],
            "outputs": [{"name": "MODEL", "type": "MODEL", "links": [into[0]]}],
            "widgets_values": [name, 1.0],
        }
    )
    workflow["links"].append([900, *into[1:3], 70, 0, "MODEL"])
    into[1:3] = 70, 0
    return workflow


@pytest.mark.parametrize("before", [SUN, "KSampler"])
def test_few_steps_that_a_lora_needs_are_not_taken_for_those_of_a_sun_that_is_off_or_gone(before: str) -> None:
    for name in ("lcm-lora-sdv1-5.safetensors", "lightning_style.safetensors"):
        workflow = with_lora(placed_by_hand(cfg=1.0), name, before)
        assert badges(off(workflow, SUN)) == badges(deleted(workflow)) == {}
    muted = with_lora(placed_by_hand(cfg=1.0), "lcm-lora-sdv1-5.safetensors", before)
    node(muted, SUN)["mode"] = 2
    assert badges(muted) == {}


def test_muted_sun_is_no_matter_to_a_sampler_that_needs_none_or_has_another() -> None:
    flux, slow, twice = placed_by_hand(), placed_by_hand(steps=25), with_lora(placed_by_hand(), "style", "KSampler")
    node(flux, "CheckpointLoaderSimple")["widgets_values"] = ["flux1-dev.safetensors"]
    below = node(twice, "LoraLoaderModelOnly")
    below |= {"type": SUN, "widgets_values": node(twice, SUN)["widgets_values"]}
    for workflow in (flux, slow, twice):
        node(workflow, SUN)["mode"] = 2
        assert "SUN is off" not in {badge["text"] for badge in badges(workflow).values()}


@pytest.mark.parametrize(("checkpoint", "is_told"), [("dreamshaper_8", True), ("dreamshaper_8LCM", False)])
def test_sampler_behind_a_muted_sun_and_another_model_is_judged_by_that_one(checkpoint: str, is_told: bool) -> None:
    workflow = load("model_merge")
    node(workflow, "KSampler")["widgets_values"][2:4] = [4, 1.0]
    first, second = (one for one in workflow["nodes"] if one["type"] == "CheckpointLoaderSimple")
    first["widgets_values"] = [f"{checkpoint}.safetensors"]
    second |= {"type": SUN, "mode": 2, "widgets_values": [SD15.name, 1.0, "automatic"]}
    assert ({badge["text"] for badge in badges(workflow).values()} == {"SUN is off"}) == is_told


def test_sampler_that_is_sped_up_after_a_sun_of_ones_own_was_deleted_is_restored_to_plain_settings() -> None:
    again, _ = convert("speed_up", deleted(placed_by_hand()), None, here(SD15))
    back, _ = convert("restore", again)
    assert values(back)[0][2:6] == [25, 7.0, "dpmpp_2m", "karras"]


def test_sun_that_is_off_is_not_called_gone_because_another_one_was_deleted() -> None:
    left = deleted(placed_by_hand())
    off_again = off(placed_by_hand(), SUN)
    node(off_again, "KSampler")["properties"] = node(left, "KSampler")["properties"]
    found = badges(off_again)
    assert {badge["text"] for badge in found.values()} == {"SUN is off"} and all(b["fix"] for b in found.values())
