"""Workflow files from the UI's format to the API's, as the page itself does it."""

from typing import Any

import pytest
from workflows import Workflow

OBJECT_INFO: dict[str, Any] = {
    "Sampler": {
        "input": {
            "required": {
                "model": ["MODEL", {}],
                "seed": ["INT", {"control_after_generate": True}],
                "steps": ["INT", {"default": 4}],
                "scheduler": [["simple", "karras"], {}],
            },
            "optional": {"mode": ["COMBO", {"options": ["a", "b"]}], "sigma": ["FLOAT", {"forceInput": True}]},
        },
        "input_order": {"required": ["model", "seed", "steps", "scheduler"], "optional": ["mode", "sigma"]},
    },
    "Loader": {"input": {"required": {}}, "input_order": {"required": []}},
}
GRAPH: dict[str, Any] = {
    "nodes": [
        {"id": 7, "type": "Loader", "inputs": [], "widgets_values": []},
        {
            "id": 3,
            "type": "Sampler",
            "title": "My sampler",
            "inputs": [
                {"name": "model", "type": "MODEL", "link": 1},
                {"name": "steps", "type": "INT", "widget": {"name": "steps"}, "link": None},
            ],
            "widgets_values": [42, "fixed", 4, "karras", "b"],
        },
        {"id": 9, "type": "MarkdownNote", "widgets_values": ["read me"]},
    ],
    "links": [[1, 7, 0, 3, 0, "MODEL"]],
}


def graph(**changed: Any) -> dict[str, Any]:
    return {**GRAPH, "nodes": [GRAPH["nodes"][0], {**GRAPH["nodes"][1], **changed}, GRAPH["nodes"][2]]}


def inputs(workflow: Workflow) -> dict[str, Any]:
    return workflow.to_api()["3"]["inputs"]


def test_widget_values_find_their_inputs_past_the_seeds_control() -> None:
    assert inputs(Workflow(GRAPH, OBJECT_INFO)) == {
        "model": ["7", 0],
        "seed": 42,
        "steps": 4,
        "scheduler": "karras",
        "mode": "b",
    }


def test_a_link_takes_the_place_of_a_widgets_value() -> None:
    linked = graph(inputs=[{"name": "steps", "type": "INT", "widget": {"name": "steps"}, "link": 1}])
    assert inputs(Workflow(linked, OBJECT_INFO))["steps"] == ["7", 0]


def test_notes_are_not_queued() -> None:
    assert set(Workflow(GRAPH, OBJECT_INFO).to_api()) == {"7", "3"}


def test_a_widget_is_set_by_title_and_name_and_the_original_stays() -> None:
    workflow = Workflow(GRAPH, OBJECT_INFO)
    workflow.set("My sampler", seed=1, scheduler="simple")
    assert inputs(workflow)["seed"] == 1
    assert inputs(workflow)["scheduler"] == "simple"
    assert inputs(Workflow(GRAPH, OBJECT_INFO))["seed"] == 42


def test_a_node_that_the_server_lacks_is_named() -> None:
    with pytest.raises(ValueError, match="does not know the node Sampler"):
        Workflow(GRAPH, {"Loader": OBJECT_INFO["Loader"]})


@pytest.mark.parametrize("mode", [2, 4])
def test_a_muted_or_bypassed_node_is_refused(mode: int) -> None:
    with pytest.raises(ValueError, match="bypassed or muted"):
        Workflow(graph(mode=mode), OBJECT_INFO)
