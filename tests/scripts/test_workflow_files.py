"""Workflow files from the UI's format to the API's, as the page itself does it."""

from typing import Any

import pytest
from workshop.server.workflows import Workflow

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


def test_an_input_that_only_the_page_draws_is_queued_with_some_value() -> None:
    """ImageCompare's slider."""
    view = {"input": {"required": {"view": ["VIEW", {"socketless": True}]}}, "input_order": {"required": ["view"]}}
    graph = {"nodes": [{"id": 1, "type": "Compare", "widgets_values": []}], "links": []}
    assert Workflow(graph, {"Compare": view}).to_api()["1"]["inputs"] == {"view": ""}


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


def through(*modes: int) -> dict[str, Any]:
    """Loader -> one node for each of `modes` -> Sampler, as ControlNet and LoRA nodes stand between them."""
    between = [
        {
            "id": 20 + i,
            "type": "Between",
            "mode": mode,
            "inputs": [
                {"name": "strength", "type": "FLOAT", "widget": {"name": "strength"}, "link": None},
                {"name": "hint", "type": "IMAGE", "link": None},
                {"name": "model", "type": "MODEL", "link": 100 + i},
            ],
            "outputs": [{"name": "MODEL", "type": "MODEL"}],
        }
        for i, mode in enumerate(modes)
    ]
    origins = [7, *(node["id"] for node in between)]
    targets = [*(node["id"] for node in between), 3]
    links = [[100 + i, a, 0, b, 0, "MODEL"] for i, (a, b) in enumerate(zip(origins, targets, strict=True))]
    sampler = {**GRAPH["nodes"][1], "inputs": [{"name": "model", "type": "MODEL", "link": 100 + len(modes)}]}
    return {"nodes": [GRAPH["nodes"][0], sampler, *between], "links": links}


WITH_BETWEEN = OBJECT_INFO | {"Between": {"input": {"required": {}}, "input_order": {"required": []}}}


@pytest.mark.parametrize(
    ("modes", "source", "queued"),
    [
        ([0], ["20", 0], {"7", "3", "20"}),
        ([4], ["7", 0], {"7", "3"}),
        ([4, 4], ["7", 0], {"7", "3"}),
        ([0, 4], ["20", 0], {"7", "3", "20"}),
        ([4, 0], ["21", 0], {"7", "3", "21"}),
    ],
)
def test_a_link_runs_through_bypassed_nodes(modes: list[int], source: list[Any], queued: set[str]) -> None:
    prompt = Workflow(through(*modes), WITH_BETWEEN).to_api()
    assert set(prompt) == queued
    assert prompt["3"]["inputs"]["model"] == source


def test_a_bypassed_node_gives_each_output_from_the_input_in_its_place() -> None:
    """ControlNetApplyAdvanced: positive and negative in, positive and negative out."""
    pair = [{"name": "positive", "type": "MODEL", "link": 1}, {"name": "negative", "type": "MODEL", "link": 2}]
    nodes = [
        {"id": 7, "type": "Loader"},
        {"id": 8, "type": "Loader"},
        {"id": 20, "type": "Between", "mode": 4, "inputs": pair},
        {"id": 3, "type": "Sampler", "inputs": [{"name": "model", "type": "MODEL", "link": 3}]},
        {"id": 4, "type": "Sampler", "inputs": [{"name": "model", "type": "MODEL", "link": 4}]},
    ]
    links = [[1, 7, 0, 20, 0, "M"], [2, 8, 0, 20, 1, "M"], [3, 20, 0, 3, 0, "M"], [4, 20, 1, 4, 0, "M"]]
    prompt = Workflow({"nodes": nodes, "links": links}, WITH_BETWEEN).to_api()
    assert [prompt[sampler]["inputs"]["model"] for sampler in ("3", "4")] == [["7", 0], ["8", 0]]


def test_nothing_comes_from_a_muted_node() -> None:
    prompt = Workflow(through(2), WITH_BETWEEN).to_api()
    assert set(prompt) == {"7", "3"}
    assert "model" not in prompt["3"]["inputs"]


def test_a_node_that_runs_on_an_event_is_refused() -> None:
    with pytest.raises(ValueError, match="runs on an event"):
        Workflow(graph(mode=1), OBJECT_INFO)
