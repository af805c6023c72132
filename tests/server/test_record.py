"""What a run did is in the metadata of the pictures that it drew: the PNG's text chunks, read back."""

import io
import json
from copy import deepcopy
from typing import Any

import pytest
from PIL import Image
from workshop.server.comfy_server import ComfyServer, Run
from workshop.server.workflows import Workflow

FACTS = "4 steps · 4 evaluations · 4 rows · SUN in 7 of 7 layers"
SUN, SAMPLER, DECODE, SAVE = "2", "6", "7", "8"
"""Nodes of the text to image workflow."""
PAGE = {"extra_pnginfo": {"workflow": {"nodes": [], "extra": {"title": "mine"}}}}
"""What the page queues beside the prompt."""


def chunks(run: Run, save: str) -> dict[str, Any]:
    """Return the text chunks of the picture that the node `save` wrote, from JSON."""
    return {name: json.loads(text) for name, text in Image.open(io.BytesIO(run.pictures[save])).text.items()}


@pytest.fixture
def prompt(workflow: Workflow) -> dict[str, Any]:
    """A KSampler at usual settings behind SUN."""
    workflow.set("KSampler", cfg=7.0, sampler_name="euler_ancestral", scheduler="karras")
    return workflow.to_api()


def test_a_picture_remembers_what_was_changed_and_measured(server: ComfyServer, prompt: dict[str, Any]) -> None:
    saved = chunks(server.run(prompt, extra_data=PAGE), SAVE)
    line = f"KSampler #6: {FACTS} · automatic: CFG 7 -> 1, sampler euler_ancestral -> euler, scheduler -> trailing"
    assert saved["sun"] == {"2": [line]}
    assert saved["prompt"][SUN]["_meta"] == {"title": "SUN 4-Step Speed-Up", "sun": [line]}
    assert saved["workflow"] == PAGE["extra_pnginfo"]["workflow"]


def test_a_picture_remembers_what_was_found(server: ComfyServer, prompt: dict[str, Any]) -> None:
    prompt["cache"] = {
        "class_type": "LazyCache",
        "inputs": {
            **{"model": [SUN, 0], "reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0},
            "verbose": False,
        },
    }
    prompt[SAMPLER]["inputs"]["model"] = ["cache", 0]
    ((line,),) = chunks(server.run(prompt, extra_data=PAGE), SAVE)["sun"].values()
    assert "A cache on the MODEL" in line


def test_a_prompt_without_the_pages_extras_remembers_on_the_node(server: ComfyServer, prompt: dict[str, Any]) -> None:
    """As scripts queue it."""
    prompt[SAMPLER]["inputs"]["seed"] += 1
    saved = chunks(server.run(prompt), SAVE)
    assert set(saved) == {"prompt"}
    assert saved["prompt"][SUN]["_meta"]["sun"][0].startswith(f"KSampler #6: {FACTS}")


def test_a_sun_node_from_the_cache_records_the_new_run_alone(server: ComfyServer, prompt: dict[str, Any]) -> None:
    server.run(prompt, extra_data=PAGE)
    prompt[SAMPLER]["inputs"] |= {"cfg": 5.0, "sampler_name": "euler", "scheduler": "simple"}
    run = server.run(prompt, extra_data=PAGE)
    assert SUN not in run.seconds, "it came from the cache"
    assert chunks(run, SAVE)["sun"] == {SUN: [f"KSampler #6: {FACTS} · automatic: CFG 5 -> 1"]}


def test_a_picture_from_the_cache_claims_no_run(server: ComfyServer, prompt: dict[str, Any]) -> None:
    """Also if the prompt was taken out of a picture, with the record of that one."""
    drawn = chunks(server.run(prompt, extra_data=PAGE), SAVE)
    again = drawn["prompt"]
    again[SAVE]["inputs"]["filename_prefix"] = "again"
    run = server.run(again, extra_data={"extra_pnginfo": {"sun": drawn["sun"]}})
    saved = chunks(run, SAVE)
    assert SAMPLER not in run.seconds, "nothing was sampled"
    assert saved["sun"] == {SUN: []}
    assert saved["prompt"][SUN]["_meta"]["sun"] == []


def test_two_sun_nodes_and_their_samplers_are_told_apart(server: ComfyServer, prompt: dict[str, Any]) -> None:
    """Sampler 16 is behind a second SUN node, 12; samplers 26 and 6, behind the first one, go on with its latent."""
    prompt["12"], prompt["16"], prompt["26"] = (deepcopy(prompt[number]) for number in (SUN, SAMPLER, SAMPLER))
    prompt["16"]["inputs"] |= {"model": ["12", 0], "cfg": 3.0, "steps": 2}
    prompt["26"]["inputs"] |= {"latent_image": ["16", 0], "denoise": 0.5}
    prompt[SAMPLER]["inputs"] |= {"latent_image": ["26", 0], "denoise": 0.5, "cfg": 5.0}
    records = chunks(server.run(prompt, extra_data=PAGE), SAVE)["sun"]
    starts = [line.partition(" · ")[0] for line in records[SUN]]
    assert starts == ["KSampler #26: 4 steps", "KSampler #6: 4 steps"]
    ((line,),) = [records["12"]]
    assert line.startswith("KSampler #16: 2 steps · 2 evaluations") and "CFG 3 -> 1" in line


def test_strength_0_claims_no_run(server: ComfyServer, prompt: dict[str, Any]) -> None:
    prompt[SUN]["inputs"]["strength"] = 0.0
    assert chunks(server.run(prompt, extra_data=PAGE), SAVE)["sun"] == {SUN: []}


def test_runs_in_a_loop_of_another_pack_are_recorded_on_the_nodes_that_were_copied(
    server: ComfyServer, prompt: dict[str, Any]
) -> None:
    prompt["9"] = {"class_type": "OnceMore", "inputs": {"latent": [SAMPLER, 0]}}
    prompt[DECODE]["inputs"]["samples"] = ["9", 0]
    prompt[SAMPLER]["inputs"]["seed"] += 2
    first, second = chunks(server.run(prompt, extra_data=PAGE), SAVE)["sun"][SUN]
    assert first.startswith(f"KSampler #6: {FACTS} · automatic: CFG 7 -> 1")
    assert second.startswith(f"KSampler #6: {FACTS} · automatic: CFG 3 -> 1")
