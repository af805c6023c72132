"""Samplers of other packs: recognized by their settings, converted if these are plain, and otherwise named."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from sun_pack.conversion.check import check
from sun_pack.conversion.models import Installed
from sun_pack.conversion.plan import convert, make_plan, read

from .compare import canonical
from .make_corpus import CHECKPOINT, KSAMPLER, Graph
from .test_corpus import load

Json = dict[str, Any]
CASES = Path(__file__).parent / "cases"
PLAIN = {"steps": 4, "cfg": 1.0, "sampler_name": "ddim", "scheduler": "simple"}
DETAILER = [512, True, 1024, 42, "fixed", 20, 8, "euler", "normal", 0.5, 5, True]
ADVANCED = ["enable", 42, "fixed", 20, 7.0, "euler", "normal", 0, 10000, "disable", "auto"]
SETTINGS = {
    "steps": ["INT", {}],
    "cfg": ["FLOAT", {}],
    "sampler_name": [["euler", "ddim", "dpmpp_2m"]],
    "scheduler": [["normal", "simple"]],
}


def case(name: str) -> Json:
    return json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))


def server(**types: Json) -> Installed:
    """Make a machine whose server knows these node types, each with the inputs of a sampler unless it has its own."""
    return Installed(definitions=types.get)


def sampler_type(**inputs: Any) -> Json:
    return {"input": {"required": {"model": ["MODEL"], **SETTINGS, **inputs}}}


def default_graph(g: Graph) -> tuple[Json, dict[str, Any], Json]:
    """Draw ComfyUI's default graph. Returns its loader, the links that a sampler takes, and its KSampler."""
    ckpt = g.node("CheckpointLoaderSimple", [CHECKPOINT])
    positive, negative = (g.node("CLIPTextEncode", [text], clip=(ckpt, 1)) for text in ("a lighthouse", "people"))
    latent = g.node("EmptyLatentImage", [512, 512, 1])
    links = {"model": (ckpt, 0), "positive": (positive, 0), "negative": (negative, 0)}
    g.next_column()
    return ckpt, links, g.node("KSampler", KSAMPLER, **links, latent_image=(latent, 0))


def with_sampler(node_type: str, values: Any, widget_slots: bool = True) -> Json:
    """Draw ComfyUI's default graph and one more sampler, of a pack, on the same checkpoint."""
    g = Graph(widget_slots)
    ckpt, links, ks = default_graph(g)
    g.next_column()
    if node_type == "FaceDetailer":
        decoded = g.node("VAEDecode", samples=(ks, 0), vae=(ckpt, 2))
        links |= {"image": (decoded, 0), "clip": (ckpt, 1), "vae": (ckpt, 2)}
    else:
        links["latent_image"] = (ks, 0)
    g.node(node_type, values, **links)
    return g.workflow()


def last_values(workflow: Json, node_type: str) -> Any:
    return next(node["widgets_values"] for node in workflow["nodes"] if node["type"] == node_type)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("A1_ksampler_and_face_detailer", "58"), ("A2_ksampler_and_tile_upscaler", "58"), ("A3_pack_ksampler_alone", "5")],
)
def test_api_graph_names_the_settings(name: str, numbers: str) -> None:
    converted, plan = convert("speed_up", case(name))
    for number in numbers:
        inputs = converted[number]["inputs"]
        assert {key: inputs[key] for key in PLAIN} == PLAIN
        assert converted[inputs["model"][0]]["class_type"] == "SUNSpeedUp"
    assert converted[numbers[-1]]["inputs"].get("denoise") == case(name)[numbers[-1]]["inputs"].get("denoise")
    assert "steps 20 -> 4" in plan.detail
    assert convert("restore", converted)[0] == case(name)


@pytest.mark.parametrize("widget_slots", [True, False], ids=["newer page", "older page"])
@pytest.mark.parametrize(
    ("node_type", "values", "expected"),
    [
        ("FaceDetailer", DETAILER, [*DETAILER[:5], 4, 1.0, "ddim", "simple", 0.5, 5, True]),
        ("KSampler (Efficient)", [42, 20, 7, "euler", "normal", 1, "auto", "true"],
         [42, 4, 1.0, "ddim", "simple", 1, "auto", "true"]),
        ("KSampler (Efficient)", [42, None, 20, 7, "euler", "normal", 1, "auto", "true"],
         [42, None, 4, 1.0, "ddim", "simple", 1, "auto", "true"]),
    ],
)  # fmt: skip
def test_saved_workflow_shows_the_settings_one_after_the_other(
    node_type: str, values: list[Any], expected: list[Any], widget_slots: bool
) -> None:
    workflow = with_sampler(node_type, values, widget_slots)
    converted, plan = convert("speed_up", workflow)
    assert last_values(converted, node_type) == expected
    assert plan.summary == "2 samplers now need 4 steps and no CFG pass"
    assert canonical(convert("restore", converted)[0]) == canonical(workflow)


def test_values_saved_by_name_are_used() -> None:
    values = {"seed": 1, "steps": 30, "cfg": 8, "sampler_name": "heun", "scheduler": "karras", "denoise": 1}
    converted, _ = convert("speed_up", with_sampler("KSampler (Efficient)", values))
    assert last_values(converted, "KSampler (Efficient)") == {**values, **PLAIN}


@pytest.mark.parametrize("widget_slots", [True, False])
def test_start_and_end_of_a_pass_are_scaled(widget_slots: bool) -> None:
    """Two passes over one schedule of 20 steps."""
    workflow = with_sampler("KSampler Adv. (Efficient)", [*ADVANCED[:7], 0, 10, "enable", "auto"], widget_slots)
    first = next(node for node in workflow["nodes"] if node["type"] == "KSampler Adv. (Efficient)")
    converted, _ = convert("speed_up", workflow, [{"graph": None, "node": first["id"]}])
    assert last_values(converted, first["type"])[3:9] == [4, 1.0, "ddim", "simple", 0, 2]
    assert canonical(convert("restore", converted)[0]) == canonical(workflow)


def test_denoise_of_one_is_not_taken_for_a_start() -> None:
    values = [*DETAILER[:9], 1, 5, True]
    converted, _ = convert("speed_up", with_sampler("FaceDetailer", values, widget_slots=False))
    assert last_values(converted, "FaceDetailer")[9:] == [1, 5, True]


def test_server_says_which_nodes_are_samplers() -> None:
    workflow = case("A1_ksampler_and_face_detailer")
    here = server(FaceDetailer=sampler_type(image=["IMAGE"]))
    assert convert("speed_up", workflow, None, here)[0]["8"]["inputs"]["steps"] == 4
    missing = make_plan("speed_up", workflow, None, server())
    assert "FaceDetailer (#8) stays as it is: its pack is not installed here." in missing.detail
    assert {edit.get("node") for edit in missing.edits} == {"5", None}
    other = {"input": {"required": {"model": ["MODEL"], **SETTINGS, "steps": ["STRING", {}]}}}
    assert "SUN does not know its settings" in make_plan("speed_up", workflow, None, server(FaceDetailer=other)).detail


@pytest.mark.parametrize(
    ("offered", "sampler"),
    [(["ddim", "euler"], "ddim"), (["heun", "dpmpp_2m", "euler"], "euler"), (["heun"], "euler_ancestral")],
)
def test_sampler_is_set_to_what_the_node_offers(offered: list[str], sampler: str) -> None:
    workflow = case("A3_pack_ksampler_alone")
    workflow["5"]["inputs"] |= {"sampler_name": "euler_ancestral", "scheduler": "AYS SD1"}
    for entry in ([offered], ["COMBO", {"options": offered}]):
        node = sampler_type(sampler_name=entry, scheduler=[["AYS SD1"]])
        here = Installed(definitions={"KSampler (Efficient)": node}.get)
        inputs = convert("speed_up", workflow, None, here)[0]["5"]["inputs"]
        assert (inputs["sampler_name"], inputs["scheduler"], inputs["steps"]) == (sampler, "AYS SD1", 4)


def test_without_a_server_words_of_the_pack_stay() -> None:
    """The node may not offer ddim and simple; automatic settings replace its schedule when it runs."""
    workflow = case("A3_pack_ksampler_alone")
    workflow["5"]["inputs"] |= {"scheduler": "AYS SD1"}
    inputs = convert("speed_up", workflow)[0]["5"]["inputs"]
    assert (inputs["sampler_name"], inputs["scheduler"], inputs["cfg"]) == ("ddim", "AYS SD1", 1.0)


def test_malformed_node_definitions_are_survived() -> None:
    for junk in ({}, {"input": 3}, {"input": {"required": [1]}}, {"input": {"required": {"steps": []}}}):
        plan = make_plan("speed_up", case("A1_ksampler_and_face_detailer"), None, server(FaceDetailer=junk))
        assert "FaceDetailer (#8) stays as it is" in plan.detail


def test_sampler_with_other_settings_is_named_beside_one_that_is_converted() -> None:
    workflow = with_sampler("SeargeSampler", ["best"])
    converted, plan = convert("speed_up", workflow)
    assert "SeargeSampler (#6) stays as it is: SUN does not know its settings" in plan.detail and plan.edits
    assert canonical(convert("restore", converted)[0]) == canonical(workflow)


def test_sampler_behind_a_pipe_is_named() -> None:
    plan = make_plan("speed_up", load("sampler_of_a_pack"))
    assert "ImpactKSamplerBasicPipe (#6) stays as it is: its MODEL comes through a pipe" in plan.detail


def test_sampler_that_takes_a_pipe_and_a_model_is_named() -> None:
    g = Graph()
    ckpt, links, _ = default_graph(g)
    pipe = g.node("ToBasicPipe", **links, clip=(ckpt, 1), vae=(ckpt, 2))
    g.node("easy fullkSampler", KSAMPLER[2:], pipe=(pipe, 0))
    g.node("easy kSampler", ["Preview"], pipe=(pipe, 0), model=(ckpt, 0))
    g.node("KSampler SDXL (Eff.)", [*KSAMPLER[:6], 0, -1])
    detail = make_plan("speed_up", g.workflow()).detail
    assert "easy fullkSampler (#7) stays as it is: its MODEL comes through a pipe" in detail
    assert "easy kSampler (#8) stays as it is: SUN does not know its settings" in detail
    assert "KSampler SDXL (Eff.) (#9) stays as it is: SUN cannot tell where its MODEL comes from" in detail


def test_muted_sampler_of_a_pack_is_not_named() -> None:
    workflow = with_sampler("SeargeSampler", ["best"])
    workflow["nodes"][-1]["mode"] = 2
    assert "SeargeSampler" not in make_plan("speed_up", workflow).detail


def test_node_that_gives_no_picture_is_no_sampler() -> None:
    g = Graph()
    ckpt, links, _ = default_graph(g)
    g.node("ToBasicPipe", **links, clip=(ckpt, 1), vae=(ckpt, 2))
    g.node("BrushNet", [1.0], **links)
    plan = make_plan("speed_up", g.workflow())
    assert plan.severity == "warn" and "stays" not in plan.detail


def test_face_names_a_sampler_of_a_pack() -> None:
    converted, _ = convert("speed_up", with_sampler("FaceDetailer", DETAILER))
    faces = [line for entry in check(read(converted), Installed()) for line in entry["face"]]
    assert faces == ["KSampler (#5): 4 steps, automatic (and 1 more)"]
    alone, _ = convert("speed_up", with_sampler("SeargeSampler", ["best"]))
    sun = next(node for node in alone["nodes"] if node["type"] == "SUNSpeedUp")
    sampler = next(node for node in alone["nodes"] if node["type"] == "KSampler")
    sampler["mode"] = 2
    link = next(link for link in alone["links"] if link[3] == 6 and link[5] == "MODEL")
    link[1] = sun["id"]
    faces = [line for entry in check(read(alone), Installed()) for line in entry["face"]]
    assert faces == ["SeargeSampler (#6): SUN does not know its settings"]


def test_record_of_a_pack_s_sampler_sets_only_its_settings() -> None:
    converted, _ = convert("speed_up", case("A1_ksampler_and_face_detailer"))
    sun = next(node for node in converted.values() if node["class_type"] == "SUNSpeedUp")
    forged = copy.deepcopy(converted)
    number = next(key for key, node in converted.items() if node is sun)
    settings = forged[number]["_meta"]["sun_restore"]["settings"]
    settings.append({"node": "8", "widget": "guide_size", "value": 1})
    assert convert("restore", forged)[0]["8"]["inputs"]["guide_size"] == 512


def test_samplers_that_run_backwards_stay_with_the_one_that_continues_them() -> None:
    """An Unsampler and a KSamplerAdvanced without noise must keep one schedule."""
    workflow = case("H_unsampler")
    converted, plan = convert("speed_up", workflow)
    assert converted["re"] == workflow["re"] and converted["5"]["inputs"]["steps"] == 4
    assert "BNK_Unsampler (#un) stays as it is: it runs the schedule backwards." in plan.detail
    assert "KSamplerAdvanced (#re) stays as it is: it shares its schedule with BNK_Unsampler (#un)" in plan.detail


def test_sampler_without_noise_stays_with_flipped_sigmas() -> None:
    workflow = load("api_custom_advanced")
    flipped = copy.deepcopy(workflow)
    (number,) = (key for key, node in workflow.items() if node["class_type"] == "SamplerCustomAdvanced")
    sampler = flipped[number]["inputs"]
    flipped["90"] = {"class_type": "FlipSigmas", "inputs": {"sigmas": sampler["sigmas"]}}
    flipped["91"] = {"class_type": "DisableNoise", "inputs": {}}
    again = {**sampler, "latent_image": [number, 0], "noise": ["91", 0]}
    flipped["92"] = {"class_type": "SamplerCustomAdvanced", "inputs": again}
    flipped[number]["inputs"] = {**sampler, "sigmas": ["90", 0]}
    assert make_plan("speed_up", flipped).edits == []


def test_sampler_that_runs_another_node_s_sampler_is_named() -> None:
    """Impact's RegionalSampler: the MODEL is in the pipe of a KSamplerAdvancedProvider."""
    workflow = load("api_text_to_image")
    (loader,) = (key for key, node in workflow.items() if node["class_type"] == "CheckpointLoaderSimple")
    provider = {"cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "basic_pipe": ["80", 0]}
    regional = {"seed": 1, "steps": 20, "denoise": 1.0, "samples": ["83", 0], "base_sampler": ["81", 0]}
    workflow |= {
        "80": {"class_type": "ToBasicPipe", "inputs": {"model": [loader, 0]}},
        "81": {"class_type": "KSamplerAdvancedProvider", "inputs": provider},
        "82": {"class_type": "RegionalSampler", "inputs": regional},
    }
    reason = "stays as it is: another node gives it its sampler and its MODEL"
    plan = make_plan("speed_up", workflow)
    assert plan.edits and f"RegionalSampler (#82) {reason}" in plan.detail


@pytest.mark.parametrize(("kind", "output", "is_named"), [
    ("KSAMPLER_ADVANCED", "LATENT", True), ("KSAMPLER", "LATENT", True), ("UPSCALER", "IMAGE", True),
    ("KSAMPLER_ADVANCED", "REGIONAL_PROMPTS", False), ("SEGS", "LATENT", False),
])  # fmt: skip
def test_saved_sampler_that_runs_another_node_s_sampler_is_named(kind: str, output: str, is_named: bool) -> None:
    workflow = load("text_to_image")
    link = max(entry[0] for entry in workflow["links"]) + 1
    places: Json = {"pos": [0, 2000], "size": [200, 100], "mode": 0, "properties": {}, "widgets_values": []}
    workflow["nodes"] += [
        {**places, "id": 90, "type": "Provider", "inputs": [],
         "outputs": [{"name": kind, "type": kind, "links": [link]}]},
        {**places, "id": 91, "type": "Runner", "inputs": [{"name": "sampler_in", "type": kind, "link": link}],
         "outputs": [{"name": output, "type": output, "links": []}]},
    ]  # fmt: skip
    workflow["links"].append([link, 90, 0, 91, 0, kind])
    assert ("Runner (#91) stays as it is" in make_plan("speed_up", workflow).detail) == is_named
