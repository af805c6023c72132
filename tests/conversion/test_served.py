"""What the samplers behind a SUN node show: that their CFG is ignored, and which negative prompt is in use."""

import pytest
from sun_pack.conversion.check import check
from sun_pack.conversion.plan import read

from .test_bad_input import node
from .test_corpus import load
from .test_findings import SD15, Json, here, sped_up


def notes(workflow: Json) -> list[str]:
    found = check(read(workflow), here(SD15))
    return [sampler["note"] for entry in found for sampler in entry["samplers"]]


def test_sampler_is_named_with_its_negative_prompt() -> None:
    (entry,) = check(read(sped_up()), here(SD15))
    note = "CFG ignored · negative: “people, text”"
    assert entry["samplers"] == [{"graph": None, "node": 5, "label": "KSampler (#5)", "note": note}]


def test_settings_from_the_sampler_leave_its_cfg() -> None:
    assert notes(sped_up(settings="from sampler")) == ["negative: “people, text”"]


@pytest.mark.parametrize("off", [{"mode": 4}, {"mode": 2}, {"widgets_values": [SD15.name, 0, "automatic"]}])
def test_sun_that_is_off_serves_no_sampler(off: Json) -> None:
    workflow = sped_up()
    node(workflow, "SUNSpeedUp").update(off)
    assert notes(workflow) == []


def test_bypassed_sun_without_a_record_serves_none_beside_its_badge() -> None:
    workflow = sped_up()
    for kind in ("SUNSpeedUp", "KSampler"):
        node(workflow, kind)["properties"] = {}
    node(workflow, "SUNSpeedUp")["mode"] = 4
    assert notes(workflow) == []


@pytest.mark.parametrize(
    ("prompt", "shown"), [(" ", "(empty)"), ("bad\nhands, blurry, extra fingers", "“bad hands, blurry, extr…”")]
)
def test_long_and_empty_prompts_are_short(prompt: str, shown: str) -> None:
    workflow = sped_up()
    [one for one in workflow["nodes"] if one["type"] == "CLIPTextEncode"][1]["widgets_values"] = [prompt]
    assert notes(workflow) == [f"CFG ignored · negative: {shown}"]


@pytest.mark.parametrize(
    ("name", "negative"),
    [
        ("controlnet", "“people, text”"),
        ("custom_advanced", "“people, text”"),
        ("reroute_node", "“people, text”"),
        ("subgraph_with_the_sampler", "“people, text”"),
        ("subgraph_in_a_subgraph", "“people, text”"),
    ],
)
def test_negative_is_found_past_other_nodes_and_out_of_subgraphs(name: str, negative: str) -> None:
    assert notes(load(f"{name}.expected")) == [f"CFG ignored · negative: {negative}"]


def test_guider_shows_the_note_of_its_sampler() -> None:
    workflow = load("custom_advanced.expected")
    (entry,) = check(read(workflow), here(SD15))
    (sampler,) = entry["samplers"]
    assert sampler["node"] == node(workflow, "CFGGuider")["id"]
