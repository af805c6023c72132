"""The same graph without SUN: what "Compare with and without SUN" queues second."""

import pytest
from sun_pack.conversion.graph import ConversionError
from sun_pack.conversion.plain import without_sun
from sun_pack.conversion.record import RECORD

from .test_bad_input import node
from .test_corpus import load
from .test_findings import SD15, Json, here, sped_up

SEED = 7
FORMER = {"steps": 25, "cfg": 7.5, "sampler_name": "dpmpp_2m", "scheduler": "karras"}


def prompt_of(sampler: str, sun: str, source: list) -> Json:
    """Return what the page would queue."""
    settings = {"seed": SEED, "steps": 4, "cfg": 1, "sampler_name": "ddim", "scheduler": "simple"}
    return {
        sampler: {"class_type": "KSampler", "inputs": {"model": [sun, 0], **settings}},
        sun: {"class_type": "SUNSpeedUp", "inputs": {"model": source}},
    }


def test_recorded_settings_come_back_with_the_same_seed() -> None:
    workflow, prompt = sped_up(), prompt_of("5", "8", ["1", 0])
    plain, queued, said = without_sun(workflow, prompt, here(SD15))
    assert queued == {"5": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "seed": SEED, **FORMER}}}
    assert {one["type"] for one in plain["nodes"]} == {one["type"] for one in load("text_to_image")["nodes"]}
    assert said == "KSampler (#5): 25 steps, CFG 7.5"
    assert prompt == prompt_of("5", "8", ["1", 0]) and workflow == sped_up(), "both are copies"


def test_settings_that_nobody_recorded_are_the_usual_ones() -> None:
    workflow = sped_up()
    node(workflow, "SUNSpeedUp")["properties"] = {}
    plain, queued, said = without_sun(workflow, prompt_of("5", "8", ["1", 0]), here(SD15))
    inputs = queued["5"]["inputs"]
    assert [inputs[name] for name in FORMER] == [25, 7, "dpmpp_2m", "karras"]
    assert node(plain, "KSampler")["widgets_values"][2:6] == [25, 7, "dpmpp_2m", "karras"]
    assert "25 steps, CFG 7" in said


@pytest.mark.parametrize(
    ("name", "former"), [("subgraph_with_the_sampler", (25, 7.5)), ("subgraph_with_promoted_settings", (30, 6.5))]
)
def test_sampler_in_a_subgraph_is_found_by_its_path(name: str, former: tuple) -> None:
    workflow = load(f"{name}.expected")
    (inner,) = workflow["definitions"]["subgraphs"]
    (host,) = (one["id"] for one in workflow["nodes"] if one["type"] == inner["id"])
    ids = {one["type"]: f"{host}:{one['id']}" for one in inner["nodes"]}
    prompt = prompt_of(ids["KSampler"], ids["SUNSpeedUp"], ["1", 0])
    _, queued, _ = without_sun(workflow, prompt, here(SD15))
    inputs = queued[ids["KSampler"]]["inputs"]
    assert inputs["model"] == ["1", 0] and inputs["seed"] == SEED
    assert (inputs["steps"], inputs["cfg"]) == former


def test_values_of_primitives_are_the_former_ones() -> None:
    name = "primitives_drive_steps_and_cfg"
    workflow = load(f"{name}.expected")
    sampler, sun = (str(node(workflow, kind)["id"]) for kind in ("KSampler", "SUNSpeedUp"))
    _, queued, _ = without_sun(workflow, prompt_of(sampler, sun, ["1", 0]), here(SD15))
    before = [one["widgets_values"][0] for one in load(name)["nodes"] if one["type"] == "PrimitiveNode"]
    assert [queued[sampler]["inputs"]["steps"], queued[sampler]["inputs"]["cfg"]] == before


def test_what_lets_a_negative_count_without_an_adapter_stays() -> None:
    """It is no part of the comparison, and the prompt keeps it."""
    workflow = sped_up()
    place = {"id": 900, "pos": [0, 0], "size": [1, 1], "inputs": [], "outputs": [], "mode": 0}
    record = {"version": 1, "sun": 900, "settings": []}
    workflow["nodes"].append({**place, "type": "SUNNegative", "properties": {RECORD: record}})
    plain, _, _ = without_sun(workflow, prompt_of("5", "8", ["1", 0]), here(SD15))
    assert node(plain, "SUNNegative")["id"] == 900


def test_graph_without_sun_is_refused() -> None:
    with pytest.raises(ConversionError, match="no SUN node"):
        without_sun(load("text_to_image"), {}, here(SD15))


def test_sampler_that_needs_sun_is_refused() -> None:
    with pytest.raises(ConversionError, match="runs only with SUN"):
        without_sun(load("sun_sampler_without_sun.expected"), {}, here(SD15))
