"""Nodes on the MODEL line that do not go together with SUN: named when it comes in, and on its face afterwards."""

from typing import Any

import pytest
from sun_pack.conversion.check import check
from sun_pack.conversion.models import Adapter, Installed
from sun_pack.conversion.plan import convert, make_plan, read

from .test_corpus import load
from .test_pack_samplers import case

Json = dict[str, Any]
MINI = Installed([Adapter("sun_mini_4step.safetensors")])
CASES = {
    "K_lazy_cache_sun": ("skips steps", "LazyCache (#50) skips steps to save time"),
    "L_apg_sun": ("needs CFG", "APG (#50) works on what CFG adds"),
}


def without_sun(workflow: Json) -> Json:
    """Take SUN out by hand, and set many steps."""
    (number,) = (key for key, node in workflow.items() if node["class_type"] == "SUNSpeedUp")
    source = workflow.pop(number)["inputs"]["model"]
    for node in workflow.values():
        inputs = node["inputs"]
        inputs |= {name: source for name, value in inputs.items() if value == [number, 0]}
        inputs |= {"steps": 25} if "steps" in inputs else {}
    return workflow


@pytest.mark.parametrize("name", CASES)
def test_neighbour_is_named_before(name: str) -> None:
    plan = make_plan("speed_up", without_sun(case(name)), None, MINI)
    assert plan.edits and CASES[name][1] in plan.detail


@pytest.mark.parametrize("name", CASES)
def test_neighbour_is_named_after_above_sun_and_below(name: str) -> None:
    (entry,) = (one for one in check(read(case(name)), MINI) if one["badge"])
    text, detail = CASES[name]
    assert entry["badge"]["text"] == text and detail in entry["badge"]["detail"]


def test_bypassed_neighbour_is_not_named() -> None:
    workflow = load("free_u_and_rescale")
    assert "RescaleCFG (#4) has no effect" in make_plan("speed_up", workflow).detail
    rescale = next(node for node in workflow["nodes"] if node["type"] == "RescaleCFG")
    rescale["mode"] = 4
    assert "RescaleCFG" not in make_plan("speed_up", workflow).detail


@pytest.mark.parametrize("kind", ["FreSca", "GuidanceTimestepping+", "Automatic CFG", "Automatic CFG - Warp Drive"])
def test_node_that_works_on_cfg_is_named(kind: str) -> None:
    workflow = load("free_u_and_rescale")
    rescale = next(node for node in workflow["nodes"] if node["type"] == "RescaleCFG")
    rescale["type"] = kind
    assert f"{kind} (#4) has no effect" in make_plan("speed_up", workflow).detail


def test_cfg_of_its_own_has_no_effect_and_is_no_warning() -> None:
    assert (
        "CFGOverride (#3) has no effect"
        in make_plan("speed_up", without_sun(case("P_cfg_override")), None, MINI).detail
    )
    assert not any(entry["badge"] for entry in check(read(case("P_cfg_override")), MINI))


def test_regional_prompts_that_a_run_serves_are_not_named() -> None:
    plan = make_plan("speed_up", without_sun(case("G_attention_couple_sun")), None, MINI)
    assert plan.edits and "AttentionCouple" not in plan.detail


def test_neighbour_without_effect_is_no_warning() -> None:
    converted, _ = convert("speed_up", load("free_u_and_rescale"), None, MINI)
    assert [entry["badge"] for entry in check(read(converted), MINI)] == [None]


def test_uneven_schedule_in_parts_is_fixed() -> None:
    workflow = case("M_two_runs_of_four_steps_karras")
    (entry,) = check(read(workflow), MINI)
    assert entry["badge"]["text"] == "scheduler karras" and entry["badge"]["fix"]
    fixed, _ = convert("fix", workflow, None, MINI)
    assert [fixed[number]["inputs"]["scheduler"] for number in ("s0", "s1")] == ["simple", "simple"]
    assert check(read(fixed), MINI)[0]["badge"] is None


@pytest.mark.parametrize("name", ["three_advanced_passes", "base_and_refiner", "split_sigmas"])
def test_converted_schedule_in_parts_is_even(name: str) -> None:
    converted, _ = convert("speed_up", load(name), None, MINI)
    assert {entry["badge"] is None for entry in check(read(converted), MINI)} == {True}


@pytest.mark.parametrize("scheduler", ["karras", "exponential", "ddim_uniform"])
def test_uneven_schedule_in_single_steps_is_fixed(scheduler: str) -> None:
    workflow = case("M_two_runs_of_four_steps_karras")
    last = workflow.pop("s1")["inputs"]
    workflow["s0"]["inputs"] |= {"end_at_step": 1, "scheduler": scheduler}
    for number in (1, 2, 3):
        part = {"start_at_step": number, "end_at_step": number + 1, "latent_image": [f"s{number - 1}", 0]}
        inputs = {**last, "scheduler": scheduler, "return_with_leftover_noise": "enable", **part}
        workflow[f"s{number}"] = {"class_type": "KSamplerAdvanced", "inputs": inputs}
    workflow["6"]["inputs"]["samples"] = ["s3", 0]
    (entry,) = check(read(workflow), MINI)
    assert entry["badge"]["text"] == f"scheduler {scheduler}" and entry["badge"]["fix"]
    fixed, _ = convert("fix", workflow, None, MINI)
    assert {fixed[f"s{number}"]["inputs"]["scheduler"] for number in range(4)} == {"simple"}


@pytest.mark.parametrize("split", ["SplitSigmas", "SplitSigmasDenoise"])
def test_uneven_schedule_node_in_parts_is_named(split: str) -> None:
    workflow, _ = convert("speed_up", load("split_sigmas"), None, MINI)
    for node in workflow["nodes"]:
        if node["type"] == "BasicScheduler":
            node |= {"type": "KarrasScheduler", "inputs": [], "widgets_values": [4, 14.6, 0.03, 7.0]}
        elif node["type"] == "SplitSigmas":
            node |= {"type": split}
    (entry,) = check(read(workflow), MINI)
    assert entry["badge"]["text"] == "KarrasScheduler" and "BasicScheduler" in entry["badge"]["detail"]
