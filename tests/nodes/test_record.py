"""Records of runs in a prompt that is queued; tests/server/test_record.py reads them from pictures."""

from typing import Any

import pytest
from comfy_execution.graph import DynamicPrompt
from comfy_execution.progress import reset_progress_state
from sun_pack.nodes.record import give_empty_records, record, shown_as
from sun_pack.sun_core.run import RunReport

NODE = {"class_type": "SUNSpeedUp", "inputs": {}}


def test_every_sun_node_begins_with_an_empty_record_in_both_places() -> None:
    queued = {
        "prompt": {
            "1": {**NODE, "_meta": {"title": "mine", "sun": ["old"]}},
            "2": {"class_type": "KSampler"},
            "3": {**NODE},
        },
        "extra_data": {"extra_pnginfo": {"workflow": {}, "sun": {"1": ["old"]}}},
    }
    given = give_empty_records(queued)
    assert given["extra_data"]["extra_pnginfo"] == {"workflow": {}, "sun": {"1": [], "3": []}}
    assert given["prompt"]["1"]["_meta"] == {"title": "mine", "sun": []}
    given["prompt"]["3"]["_meta"]["sun"].append("new")
    assert given["extra_data"]["extra_pnginfo"]["sun"]["3"] == ["new"], "one list in both"


@pytest.mark.parametrize(
    "queued",
    [
        *(None, [], {}, {"prompt": None}, {"prompt": []}, {"prompt": {"1": None, "2": {"class_type": []}}}),
        {"prompt": {"1": {**NODE, "_meta": 5}}, "extra_data": None},
        {"prompt": {"1": {**NODE}}, "extra_data": {"extra_pnginfo": []}},
    ],
)
def test_malformed_bodies_are_passed_on_to_comfyui(queued: Any) -> None:
    assert give_empty_records(queued) is queued


def test_run_of_a_node_that_is_not_in_the_running_prompt_is_not_recorded() -> None:
    """As in a prompt that was queued by something else, or that got the MODEL from elsewhere."""
    prompt = give_empty_records({"prompt": {"2": {**NODE}, "3": {"class_type": "KSampler"}}})["prompt"]
    reset_progress_state("a prompt", DynamicPrompt(prompt))
    for node_id in ("1", "3", None):
        record(node_id, RunReport(4))
    assert prompt == {"2": {**NODE, "_meta": {"sun": []}}, "3": {"class_type": "KSampler"}}
    record("2", RunReport(4))
    assert len(prompt["2"]["_meta"]["sun"]) == 1


def test_runs_of_a_copy_in_a_loop_are_recorded_on_the_node_that_it_is_shown_as() -> None:
    """Copies of copies too. What a node makes for itself is shown as that node, which has no record."""
    prompt = give_empty_records({"prompt": {"2": {**NODE}, "3": {"class_type": "Loop"}}})["prompt"]
    running = DynamicPrompt(prompt)
    running.add_ephemeral_node("3.0.2", {**NODE}, "3", "2")
    running.add_ephemeral_node("3.0.3.0.2", {**NODE}, "3.0.3", "3.0.2")
    running.add_ephemeral_node("3.0.9", {**NODE}, "3", "3")
    reset_progress_state("a prompt", running)
    assert [shown_as(node_id) for node_id in ("3.0.2", "3.0.3.0.2", "3.0.9", "2")] == ["2", "2", "3", "2"]
