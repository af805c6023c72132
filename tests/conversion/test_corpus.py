"""Every workflow of the corpus: its expected result, what holds for every result, and Restore."""

import json
from pathlib import Path
from typing import Any

import pytest
from sun_pack.conversion.model_line import model_line
from sun_pack.conversion.plan import convert, make_plan, read
from sun_pack.conversion.samplers import find_samplers

from .compare import canonical

CORPUS = Path(__file__).parent / "corpus"
NAMES = sorted(path.stem for path in CORPUS.glob("*.json") if not path.stem.endswith(".expected"))

LEFT = {
    "api_dmd2": "no adapter for SDXL",
    "api_flux": "Flux",
    "basic_guider": "takes no negative prompt",
    "flux": "Flux",
    "half_of_it_refused": "shares its schedule",
    "lcm_lora": "LCM",
    "lightning_lora_on_sdxl": "Lightning",
    "no_sampler": "by hand",
    "sampler_of_a_pack": "by hand",
    "sd3": "SD3",
    "sdxl": "no adapter for SDXL",
    "sdxl_turbo": "Turbo",
    "sped_up_already": "already",
    "subgraph_used_for_flux_as_well": "Flux",
    "unknown_sigmas": "ManualSigmas",
    "video": "Stable Video Diffusion",
}
"""The workflows that stay as they are, each with a word of the reason."""

NODES_ADDED = {
    "native_reroutes_of_two_links": 2,
    "base_and_refiner": 2,
    "two_checkpoints": 2,
}
"""How many SUNSpeedUp nodes are added, if not one."""


def load(name: str) -> dict[str, Any]:
    return json.loads((CORPUS / f"{name}.json").read_text(encoding="utf-8"))


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    if "nodes" not in one:
        return one == other
    return canonical(one) == canonical(other)


def nodes_of(workflow: dict[str, Any]) -> dict[Any, dict[str, Any]]:
    if "nodes" not in workflow:
        return workflow
    graphs = [workflow, *workflow.get("definitions", {}).get("subgraphs", [])]
    return {node["id"]: node for graph in graphs for node in graph["nodes"]}


def test_values_that_newer_pages_also_save_by_name_are_converted() -> None:
    workflow = load("text_to_image")
    sampler = next(entry for entry in workflow["nodes"] if entry["type"] == "KSampler")
    sampler["widgets_values_named"] = {"steps": 25, "cfg": 7.5, "sampler_name": "dpmpp_2m", "scheduler": "karras"}
    sped_up, _ = convert("speed_up", workflow)
    (converted,) = (entry for entry in sped_up["nodes"] if entry["type"] == "KSampler")
    assert converted["widgets_values_named"] == {"steps": 4, "cfg": 1, "sampler_name": "ddim", "scheduler": "simple"}
    (restored,) = (entry for entry in convert("restore", sped_up)[0]["nodes"] if entry["type"] == "KSampler")
    assert restored["widgets_values_named"] == sampler["widgets_values_named"]


def test_corpus_has_enough_workflows() -> None:
    assert len(NAMES) >= 25
    assert all((CORPUS / f"{name}.expected.json").exists() for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_speed_up_gives_the_expected_workflow(name: str) -> None:
    converted, _ = convert("speed_up", load(name))
    assert same(converted, load(f"{name}.expected"))


@pytest.mark.parametrize("name", NAMES)
def test_restore_gives_back_what_was_there(name: str) -> None:
    converted, plan = convert("speed_up", load(name))
    restored, _ = convert("restore", json.loads(json.dumps(converted)))
    assert bool(plan.edits) == (name not in LEFT)
    assert same(restored, load(name))


@pytest.mark.parametrize("name", NAMES)
def test_the_input_is_not_changed(name: str) -> None:
    workflow = load(name)
    convert("speed_up", workflow)
    assert workflow == load(name)


@pytest.mark.parametrize("name", sorted(LEFT))
def test_refusal_is_explained(name: str) -> None:
    plan = make_plan("speed_up", load(name))
    assert plan.edits == [] and plan.severity == "info"
    assert LEFT[name] in plan.detail


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(LEFT)))
def test_every_running_sampler_gets_four_steps_behind_one_sun_node(name: str) -> None:
    before = load(name)
    after, _ = convert("speed_up", before)
    workflow = read(after)
    for sampler in find_samplers(workflow):
        slot = sampler.model_input
        line = model_line(workflow, sampler.graph, slot.source)
        if name == "sd15_beside_flux" and sampler.node.id == 12:
            assert not any(node.type == "SUNSpeedUp" for node in line.nodes)
            continue
        assert [node.type for node in line.nodes].count("SUNSpeedUp") == 1
        assert sampler.value("steps") == 4
        assert sampler.value("cfg") in (1, None)
        assert sampler.value("sampler") in ("ddim", None)
        assert sampler.value("scheduler") in ("simple", None)
        assert all(0 <= setting.value <= 4 or setting.value == 10000 for setting in sampler.all_of("boundary"))
    new = [node for key, node in nodes_of(after).items() if key not in nodes_of(before)]
    assert len(new) == NODES_ADDED.get(name, 1)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(LEFT)))
def test_speeding_up_twice_changes_nothing_more(name: str) -> None:
    converted, _ = convert("speed_up", load(name))
    again, plan = convert("speed_up", converted)
    assert plan.edits == [] and "already" in plan.detail
    assert again == converted


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LEFT and not name.startswith("api_")])
def test_new_node_covers_no_other(name: str) -> None:
    workflow = read(convert("speed_up", load(name))[0])
    for graph in workflow.graphs.values():
        for new in (node for node in graph.nodes.values() if node.type == "SUNSpeedUp"):
            for other in graph.nodes.values():
                apart = (
                    new.box[2] <= other.box[0]
                    or other.box[2] <= new.box[0]
                    or new.box[3] <= other.box[1]
                    or other.box[3] <= new.box[1]
                )
                assert apart or other is new, other.label


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LEFT])
def test_only_sampler_settings_change(name: str) -> None:
    before, after = nodes_of(load(name)), nodes_of(convert("speed_up", load(name))[0])
    allowed = {4, 1, "ddim", "simple"}
    for key, node in before.items():
        now = after[key]
        if "class_type" in node:
            continue
        now["properties"].pop("sun_restore", None)
        assert {k: v for k, v in now.items() if k not in ("inputs", "outputs", "widgets_values")} == {
            k: v for k, v in node.items() if k not in ("inputs", "outputs", "widgets_values")
        }
        is_cut = node["type"] in ("KSamplerAdvanced", "SplitSigmas") or node.get("title") == "end_at_step"
        for old, new in zip(node["widgets_values"], now["widgets_values"], strict=True):
            assert new == old or new in allowed | ({1, 2, 3} if is_cut else set())
