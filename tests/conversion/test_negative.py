"""Let the negative prompt count: a SUNNegative before the samplers whose negative prompt hardly counts."""

import json
import re
from typing import Any

import pytest
from sun_pack.conversion.check import check
from sun_pack.conversion.edits import Plan
from sun_pack.conversion.model_line import model_line
from sun_pack.conversion.models import Installed, ModelFile
from sun_pack.conversion.plan import convert, make_plan, read
from sun_pack.conversion.rules import NEGATIVE
from sun_pack.conversion.samplers import find_samplers

from .make_corpus import CHECKPOINT
from .test_bad_input import node
from .test_corpus import CORPUS, NAMES, load, nodes_of, same
from .test_findings import SD15, here
from .test_pack_samplers import with_sampler
from .test_targets import at

Json = dict[str, Any]
EXPECTED = sorted(path.stem for path in (CORPUS / "negative").glob("*.json"))
FEW_STEP = "dreamshaper_8LCM.safetensors"

LEFT = {
    "api_flux": "Flux",
    "basic_guider": "takes no negative prompt; use CFGGuider instead",
    "flux": "Flux",
    "no_sampler": "by hand",
    "sampler_of_a_pack": "by hand",
    "sd3": "SD3",
    "sped_up_already": "its adapter reads the negative prompt",
    "subgraph_used_for_flux_as_well": "Flux",
    "sun_sampler_without_sun": "needs a SUN adapter",
    "video": "Stable Video Diffusion",
}
"""What the node can do nothing for whatever the model is, each with a word of the reason."""
READY = sorted(set(NAMES) - set(LEFT))


def few_step(name: str) -> Json:
    """Return a workflow of the corpus whose Stable Diffusion checkpoints are few-step ones."""
    text = json.dumps(load(name))
    for checkpoint in (CHECKPOINT, "another-sd15-style.safetensors", "sd_xl_base_1.0.safetensors", "512-inpainting"):
        text = text.replace(checkpoint, FEW_STEP)
    return json.loads(text.replace("sd_xl_refiner_1.0.safetensors", FEW_STEP))


def counting(workflow: Json, targets: Any = None, installed: Installed | None = None) -> tuple[Json, Plan]:
    return convert("negative", workflow, targets, installed)


def at_cfg(cfg: Any, checkpoint: str = CHECKPOINT, **changed: Any) -> Json:
    """Return a text to image graph, in the API's format, at this CFG."""
    workflow = load("api_text_to_image")
    workflow["1"]["inputs"]["ckpt_name"] = checkpoint
    workflow["5"]["inputs"] |= {"cfg": cfg, **changed}
    return workflow


def detail(workflow: Json, installed: Installed | None = None) -> str:
    plan = make_plan("negative", workflow, None, installed)
    assert plan.edits == [] and plan.severity == "info"
    return plan.detail


@pytest.mark.parametrize("name", EXPECTED)
def test_gives_the_expected_workflow(name: str) -> None:
    converted, _ = counting(load(name))
    assert same(converted, json.loads((CORPUS / "negative" / f"{name}.json").read_text(encoding="utf-8")))


def test_graphs_at_a_low_cfg_and_with_few_step_models_are_the_ones_that_need_it() -> None:
    assert EXPECTED == ["api_dmd2", "lcm_lora", "lightning_lora_on_sdxl", "sdxl_turbo"]


@pytest.mark.parametrize("name", READY)
def test_every_running_sampler_gets_cfg_1_behind_one_node_and_keeps_all_else(name: str) -> None:
    before = few_step(name)
    after, _ = counting(before)
    workflow = read(after)
    for was, sampler in zip(find_samplers(read(before)), find_samplers(workflow), strict=True):
        line = model_line(workflow, sampler.graph, sampler.model_input.source if sampler.model_input else None)
        if any("flux" in text for loader in line.loaders for text in loader.texts):
            assert not any(node.type == NEGATIVE for node in line.nodes)
            continue
        assert [node.type for node in line.nodes].count(NEGATIVE) == 1
        assert sampler.value("cfg") == 1
        for role in ("steps", "sampler", "scheduler", "boundary"):
            assert [s.value for s in sampler.all_of(role)] == [s.value for s in was.all_of(role)]


@pytest.mark.parametrize("name", READY)
def test_restore_gives_back_what_was_there(name: str) -> None:
    workflow = few_step(name)
    converted, plan = counting(workflow)
    assert plan.edits and workflow == few_step(name)
    restored, plan = convert("restore", json.loads(json.dumps(converted)))
    assert same(restored, workflow)
    assert re.match(r"Negative Prompt at CFG 1 is removed|\d Negative Prompt at CFG 1 nodes are removed", plan.summary)


@pytest.mark.parametrize("name", READY)
def test_a_second_time_changes_nothing_more(name: str) -> None:
    converted, _ = counting(few_step(name))
    again, plan = counting(converted)
    assert again == converted and "is already on its MODEL line" in plan.detail


@pytest.mark.parametrize("name", [name for name in READY if not name.startswith("api_")])
def test_new_node_covers_no_other(name: str) -> None:
    workflow = read(counting(few_step(name))[0])
    for graph in workflow.graphs.values():
        for new in (each for each in graph.nodes.values() if each.type == NEGATIVE):
            for other in set(graph.nodes.values()) - {new}:
                left, top, right, bottom = new.box
                apart = right <= other.box[0] or other.box[2] <= left or bottom <= other.box[1] or other.box[3] <= top
                assert apart, other.label


@pytest.mark.parametrize("name", sorted(LEFT))
def test_what_it_can_do_nothing_for_is_explained(name: str) -> None:
    assert LEFT[name] in detail(few_step(name))


def test_node_comes_after_the_loras_and_what_else_is_on_the_line() -> None:
    converted, _ = counting(load("lcm_lora"))
    workflow = read(converted)
    (sampler,) = find_samplers(workflow)
    line = model_line(workflow, sampler.graph, sampler.model_input.source)
    assert [node.type for node in line.nodes][:3] == [NEGATIVE, "ModelSamplingDiscrete", "LoraLoaderModelOnly"]


@pytest.mark.parametrize(
    ("cfg", "counts"), [(1.0, True), (1, True), (1.5, True), (2.0, True), (2.1, False), (7, False)]
)
def test_ordinary_model_gets_it_up_to_cfg_2(cfg: float, counts: bool) -> None:
    plan = make_plan("negative", at_cfg(cfg))
    assert bool(plan.edits) == counts
    assert counts or f"at CFG {cfg:g} its negative prompt counts already" in plan.detail


def test_few_step_model_gets_it_at_any_cfg_and_the_saving_is_told() -> None:
    plan = make_plan("negative", at_cfg(3.5, FEW_STEP))
    assert plan.severity == "success"
    assert plan.summary == "The negative prompt of KSampler (#5) now counts at CFG 1"
    assert plan.detail == "KSampler (#5): cfg 3.5 -> 1.\nAt CFG 1 each step evaluates the model once, not twice."


def test_nothing_but_the_node_is_new_at_cfg_1() -> None:
    before = at_cfg(1.0)
    converted, plan = counting(before)
    assert plan.detail == ""
    new = converted.pop("8")
    assert new["class_type"] == NEGATIVE and new["inputs"]["model"] == ["1", 0]
    assert converted["5"]["inputs"].pop("model") == ["8", 0]
    del before["5"]["inputs"]["model"]
    assert converted == before


def test_cfg_of_another_node_is_unknown_unless_the_model_is_a_few_step_one() -> None:
    unknown = {"9": {"class_type": "SomeFloat", "inputs": {"number": 1.0}}}
    assert "another node sets its CFG" in detail(at_cfg(["9", 0]) | unknown)
    converted, _ = counting(at_cfg(["9", 0], FEW_STEP) | unknown)
    assert converted["5"]["inputs"]["cfg"] == 1
    assert convert("restore", converted)[0] == at_cfg(["9", 0], FEW_STEP) | unknown


def test_negative_that_is_zeroed_out_is_named() -> None:
    zeroed = {"9": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["2", 0]}}}
    workflow = at_cfg(1.0, negative=["9", 0]) | zeroed
    assert "ConditioningZeroOut (#9) empties its negative prompt; connect one instead" in detail(workflow)


@pytest.mark.parametrize(
    ("file", "family"),
    [
        ("flux1-dev-fp8", "Flux"),
        ("sd3.5_large", "SD3"),
        ("qwen_image_fp8", "Qwen-Image"),
        ("z_image_turbo_bf16", "Z-Image"),
        ("wan2.2_s2v_14B_fp8_scaled", "a variant of Wan"),
        ("Wan2_2-Animate-14B_fp8", "a variant of Wan"),
        ("ltx-2-19b-dev-fp8", "LTX-2"),
        ("ltx2.3_dev", "LTX-2"),
    ],
)
@pytest.mark.parametrize("installed", [None, "a transformer model"])
def test_family_that_it_does_not_work_on_is_named(file: str, family: str, installed: str | None) -> None:
    """By the file's name, also if the file itself only shows that it is a transformer."""
    machine = Installed(model_file=lambda names: ModelFile(names[0], installed) if installed else None)
    said = f"its model is {family}, on which Negative Prompt at CFG 1 does not work"
    assert said in detail(at_cfg(1.0, f"{file}.safetensors"), machine)


def test_variant_of_wan_is_named_past_a_node_that_other_families_have_too() -> None:
    workflow = at_cfg(1.0, "wan2.2_s2v_14B_fp8_scaled.safetensors", model=["9", 0])
    workflow["9"] = {"class_type": "ModelSamplingSD3", "inputs": {"model": ["1", 0], "shift": 8.0}}
    assert "its model is a variant of Wan" in detail(workflow)


@pytest.mark.parametrize(
    "file",
    [
        "anima-preview",
        "cosmos_predict2_2B_t2i",
        "wan2.1_t2v_1.3B_fp16",
        "wan2.2_i2v_high_noise_14B_fp8_scaled",
        "wan2.1_vace_14B_fp16",
        "ltxv-2b-0.9.8-distilled",
        "ltx-video-2b-v0.9",
        "PixArt-Sigma-XL-2-1024-MS",
        "hunyuan_dit_1.2",
    ],
)
@pytest.mark.parametrize("installed", [None, "a transformer model"])
def test_transformers_with_cross_attention_are_let_in(file: str, installed: str | None) -> None:
    machine = Installed(model_file=lambda names: ModelFile(names[0], installed) if installed else None)
    assert make_plan("negative", at_cfg(1.0, f"{file}.safetensors"), None, machine).edits


@pytest.mark.parametrize("file", ["Kolors-Inpainting", "v2-1_512-ema-pruned", "juggernautXL_v9", "epicrealism-v2-1"])
def test_every_u_net_is_let_in(file: str) -> None:
    assert make_plan("negative", at_cfg(1.5, f"{file}.safetensors")).edits


def test_samplers_of_packs_with_plain_settings_get_it_and_others_are_named() -> None:
    efficient = with_sampler("KSampler (Efficient)", [42, 8, 1.0, "lcm", "sgm_uniform", 1.0, "auto", "true"])
    node(efficient, "KSampler (Efficient)")
    converted, plan = counting(efficient)
    assert [n["type"] for n in converted["nodes"]].count(NEGATIVE) == 1
    assert "KSampler (#5) stays as it is: at CFG 7.5" in plan.detail
    assert same(convert("restore", converted)[0], efficient)
    unknown = detail(few_step("sampler_of_a_pack"))
    assert "put Negative Prompt at CFG 1 on its MODEL line by hand" in unknown and "4 steps" not in unknown


def test_bypassed_node_is_not_doubled() -> None:
    workflow, _ = counting(few_step("text_to_image"))
    node(workflow, NEGATIVE)["mode"] = 4
    assert "is already on its MODEL line, but bypassed; enable it (Ctrl+B)" in detail(workflow)


def test_one_sampler_of_two_is_enough() -> None:
    workflow = few_step("two_samplers_on_one_line")
    converted, _ = counting(workflow, at(7))
    samplers = {
        entry["id"]: entry["widgets_values"][3] for entry in nodes_of(converted).values() if entry["id"] in (6, 7)
    }
    assert samplers == {6: 7.5, 7: 1}
    assert same(convert("restore", converted, at(7))[0], workflow)


def test_both_nodes_are_restored_at_once_and_each_brings_back_its_own() -> None:
    workflow = at_cfg(1.5, steps=8)
    both, plan = convert("speed_up", counting(workflow)[0])
    assert "SUNNegative" not in plan.summary and "reads the negative prompt already" in plan.detail
    assert convert("restore", both)[0] == workflow


def test_speed_up_offers_it_wherever_it_would_do_something_and_nowhere_else() -> None:
    offer = "But “Let the negative prompt count” works here, without an adapter."
    for name in NAMES:
        plan = make_plan("speed_up", load(name))
        assert (offer in plan.detail) == (name in EXPECTED), name
        for line in plan.detail.splitlines():
            assert offer not in line or "stays as it is: " in line


def with_negative(workflow: Json) -> Json:
    """Put a SUNNegative before the KSampler of a text to image graph by hand, in the API's format."""
    values = {"scale": 3.0, "tau": 5.0, "alpha": 0.5, "start_percent": 0.0, "end_percent": 1.0, "cfg": "automatic"}
    model = workflow["5"]["inputs"]["model"]
    workflow["5"]["inputs"]["model"] = ["99", 0]
    return workflow | {"99": {"class_type": NEGATIVE, "inputs": {**values, "model": model}}}


def shown(workflow: Json, installed: Installed | None = None) -> Json:
    return next(entry for entry in check(read(workflow), installed or here(SD15)) if entry["node"] == "99")


def test_face_foretells_the_run() -> None:
    assert shown(with_negative(at_cfg(2.0, steps=6))) == {
        "graph": None,
        "node": "99",
        "face": ["KSampler (#5): 6 steps, automatic: CFG 2 -> 1"],
        "badge": None,
        "plain": [],
        "samplers": [
            {"graph": None, "node": "5", "label": "KSampler (#5)", "note": "CFG ignored · negative: “people, text”"}
        ],
        "on_delete": [],
    }
    from_sampler = with_negative(at_cfg(2.0, steps=6))
    from_sampler["99"]["inputs"]["cfg"] = "from sampler"
    assert shown(from_sampler)["face"] == ["KSampler (#5): 6 steps, as set on it"]


def test_badge_names_the_lower_of_two_sun_nodes_because_that_one_replaces_the_other() -> None:
    workflow = with_negative(at_cfg(1.0))
    for number, taker, giver in (("97", "99", ["1", 0]), ("98", "5", ["99", 0])):
        sun = {"adapter_name": SD15.name, "strength": 1.0, "settings": "automatic", "model": giver}
        workflow[number] = {"class_type": "SUNSpeedUp", "inputs": sun}
        workflow[taker]["inputs"]["model"] = [number, 0]
    assert "SUNSpeedUp (#98) is on the same MODEL line" in shown(workflow)["badge"]["detail"]


@pytest.mark.parametrize("is_above", [True, False])
def test_badge_says_that_a_sun_node_on_the_line_makes_it_idle(is_above: bool) -> None:
    workflow = with_negative(at_cfg(1.0))
    sun = {"adapter_name": SD15.name, "strength": 1.0, "settings": "automatic"}
    taker, giver = ("99", ["1", 0]) if is_above else ("5", ["99", 0])
    workflow[taker]["inputs"]["model"] = ["98", 0]
    workflow["98"] = {"class_type": "SUNSpeedUp", "inputs": {**sun, "model": giver}}
    found = shown(workflow)
    assert found["badge"] == {
        "text": "does nothing here",
        "detail": "SUNSpeedUp (#98) is on the same MODEL line, and its adapter reads the negative prompt already. "
        "Remove one of them.",
        "fix": False,
    }
    assert found["face"] == []


def test_badge_names_a_family_that_it_cannot_work_on_and_a_second_node() -> None:
    flux = shown(with_negative(at_cfg(1.0, "flux1-dev.safetensors")))["badge"]
    assert flux["text"] == "cannot work here" and "Flux" in flux["detail"]
    twice = with_negative(at_cfg(1.0))
    twice["97"] = {"class_type": NEGATIVE, "inputs": {**twice["99"]["inputs"]}}
    twice["99"]["inputs"]["model"] = ["97", 0]
    assert shown(twice)["badge"]["text"] == "twice on this line"


def test_face_says_that_nothing_is_connected() -> None:
    workflow = with_negative(at_cfg(1.0))
    del workflow["99"]["inputs"]["model"]
    assert shown(workflow)["face"][0] == "no MODEL is connected"
    assert shown(workflow)["badge"] is None


@pytest.mark.parametrize("name", ["native_reroute", "native_reroutes_of_two_links", "reroute_node"])
def test_both_nodes_are_taken_out_of_a_line_with_reroutes(name: str) -> None:
    workflow = few_step(name)
    for sampler in (one for one in workflow["nodes"] if one["type"] == "KSampler"):
        sampler["widgets_values"][3] = 1.5
    ordinary = json.loads(json.dumps(workflow).replace(FEW_STEP, CHECKPOINT))
    both, plan = convert("speed_up", counting(ordinary)[0])
    assert plan.edits and {NEGATIVE, "SUNSpeedUp"} <= {one["type"] for one in both["nodes"]}
    assert same(convert("restore", both)[0], ordinary)
