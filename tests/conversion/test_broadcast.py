"""A MODEL that a node sends to every input without a link: followed, and gone back to by Restore."""

from typing import Any

import pytest
from sun_pack.conversion.plan import convert, make_plan, read

from .compare import canonical
from .test_bad_input import node
from .test_pack_samplers import case

Json = dict[str, Any]
CASE = "E_broadcast_model"


def links_into(workflow: Json, target: int) -> set[Any]:
    return {(link[1], link[5]) for link in workflow["links"] if link[3] == target}


@pytest.mark.parametrize("properties", [{}, {"version": "7.0", "title_regex": "", "group_restricted": 0}])
def test_broadcast_model_is_sped_up_and_restored(properties: Json) -> None:
    workflow = case(CASE)
    node(workflow, "Anything Everywhere")["properties"] = {"ue_properties": properties}
    converted, plan = convert("speed_up", workflow)
    sun = node(converted, "SUNSpeedUp")["id"]
    assert plan.summary == "KSampler (#3) now needs 4 steps and no CFG pass"
    assert (sun, "MODEL") in links_into(converted, 3) and links_into(converted, sun) == {(1, "MODEL")}
    assert canonical(convert("restore", converted)[0]) == canonical(workflow)
    assert convert("speed_up", converted)[1].edits == []


def test_model_of_the_broadcast_is_judged() -> None:
    workflow = case(CASE)
    node(workflow, "CheckpointLoaderSimple")["widgets_values"] = ["flux1-dev.safetensors"]
    assert "its model is Flux" in make_plan("speed_up", workflow).detail


def test_link_counts_more_than_a_broadcast() -> None:
    workflow = case(CASE)
    other = {**node(workflow, "CheckpointLoaderSimple"), "id": 50, "widgets_values": ["flux1-dev.safetensors"]}
    other["outputs"] = [{"name": "MODEL", "type": "MODEL", "links": [50]}]
    workflow["nodes"].append(other)
    workflow["links"].append([50, 50, 0, 3, 0, "MODEL"])
    node(workflow, "KSampler")["inputs"][0]["link"] = 50
    assert "its model is Flux" in make_plan("speed_up", workflow).detail


@pytest.mark.parametrize("change", ["two", "condition", "group", "title", "muted"])
def test_unclear_broadcast_is_left_alone(change: str) -> None:
    workflow = case(CASE)
    sender = node(workflow, "Anything Everywhere")
    if change == "two":
        workflow["nodes"].append({**sender, "id": 50, "inputs": [{"name": "MODEL", "type": "*", "link": 50}]})
        workflow["links"].append([50, 1, 0, 50, 0, "MODEL"])
    elif change == "condition":
        sender["type"] = "Anything Everywhere?"
    elif change == "group":
        sender["properties"] = {"ue_properties": {"group_restricted": 1}}
    elif change == "title":
        sender["properties"] = {"ue_properties": {"title_regex": "Upscale"}}
    else:
        sender["mode"] = 2
    plan = make_plan("speed_up", workflow)
    said = (
        "nothing is connected to its model input" if change == "muted" else "SUN cannot tell what Anything Everywhere"
    )
    assert plan.edits == [] and said in plan.detail


def test_what_leads_to_the_sender_is_not_fed_by_it() -> None:
    """Two LoraLoaders before the sender, the first of them without a link."""
    workflow = case(CASE)
    for number, link, onward in ((50, None, 50), (51, 50, 1)):
        workflow["nodes"].append({
            "id": number, "type": "LoraLoaderModelOnly", "pos": [0, 0], "size": [300, 80], "mode": 0, "properties": {},
            "inputs": [{"name": "model", "type": "MODEL", "link": link}], "widgets_values": ["style.safetensors", 1.0],
            "outputs": [{"name": "MODEL", "type": "MODEL", "links": [onward]}],
        })  # fmt: skip
    workflow["links"][0][1] = 51
    workflow["links"].append([50, 50, 0, 51, 0, "MODEL"])
    assert "LoraLoaderModelOnly (#50), which gets no MODEL" in make_plan("speed_up", workflow).detail


def test_broadcast_model_goes_to_no_input_of_another_type() -> None:
    workflow = case(CASE)
    node(workflow, "KSampler")["inputs"][2]["link"] = None
    assert read(workflow).root.nodes[3].feed("negative") is None


@pytest.mark.parametrize("unlinked", [3, [3], [[3]], [["3", "model"]], [[[], {}]]])
def test_malformed_list_of_unlinked_inputs_is_ignored(unlinked: Any) -> None:
    converted, _ = convert("speed_up", case(CASE))
    node(converted, "SUNSpeedUp")["properties"]["sun_restore"]["unlinked"] = unlinked
    restored, _ = convert("restore", converted)
    assert (1, "MODEL") in links_into(restored, 3)
