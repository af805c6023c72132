"""The same graph without SUN: what "Compare with and without SUN" queues second."""

from typing import Any

import pytest
from sun_pack.conversion.graph import ConversionError
from sun_pack.conversion.plain import without_sun
from sun_pack.conversion.plan import convert

from .make_corpus import CHECKPOINT, KSAMPLER, Graph, Subgraph
from .test_bad_input import node
from .test_corpus import load
from .test_findings import SD15, Json, here, sped_up
from .test_left_behind import moved_into_a_subgraph
from .test_restore import without_sun as deleted_sun

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


@pytest.mark.parametrize("clicks", [["speed_up"], ["speed_up", "steps_8"], ["steps_8", None, "speed_up"]])
def test_settings_from_before_an_earlier_sun_that_was_deleted_come_back(clicks: list) -> None:
    workflow = sped_up()
    for click in clicks if None in clicks else [None, *clicks]:
        workflow = convert(click, workflow, None, here(SD15))[0] if click else deleted_sun(workflow)
    sun = str(node(workflow, "SUNSpeedUp")["id"])
    _, queued, said = without_sun(workflow, prompt_of("5", sun, ["1", 0]), here(SD15))
    assert {
        name: queued["5"]["inputs"][name] for name in FORMER
    } == FORMER and said == "KSampler (#5): 25 steps, CFG 7.5"


def test_settings_that_nobody_recorded_are_the_usual_ones() -> None:
    workflow = sped_up()
    node(workflow, "SUNSpeedUp")["properties"] = {}
    plain, queued, said = without_sun(workflow, prompt_of("5", "8", ["1", 0]), here(SD15))
    inputs = queued["5"]["inputs"]
    assert [inputs[name] for name in FORMER] == [25, 7, "dpmpp_2m", "karras"]
    assert node(plain, "KSampler")["widgets_values"][2:6] == [25, 7, "dpmpp_2m", "karras"]
    assert "25 steps, CFG 7" in said


def test_settings_that_sun_only_overrides_for_the_run_stay() -> None:
    workflow = sped_up()
    node(workflow, "SUNSpeedUp")["properties"] = {}
    node(workflow, "KSampler")["widgets_values"][2:6] = [4, 6.0, "euler_ancestral", "normal"]
    plain, _, _ = without_sun(workflow, prompt_of("5", "8", ["1", 0]), here(SD15))
    assert node(plain, "KSampler")["widgets_values"][2:6] == [25, 6.0, "euler_ancestral", "normal"]


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


def test_settings_from_before_an_earlier_sun_that_was_deleted_count_too() -> None:
    workflow, _ = convert("speed_up", deleted_sun(convert("speed_up", load("text_to_image"))[0]))
    _, queued, said = without_sun(workflow, prompt_of("5", "8", ["1", 0]), here(SD15))
    assert {name: queued["5"]["inputs"][name] for name in FORMER} == FORMER
    assert said == "KSampler (#5): 25 steps, CFG 7.5"


def test_settings_that_only_a_note_on_a_sampler_names_come_back() -> None:
    workflow = moved_into_a_subgraph()
    (host,) = (str(one["id"]) for one in workflow["nodes"] if len(one["type"]) > 30)
    sun = str(node(workflow, "SUNSpeedUp")["id"])
    _, queued, said = without_sun(workflow, prompt_of(f"{host}:100", sun, ["1", 0]), here(SD15))
    assert queued[f"{host}:100"]["inputs"] == {"model": ["1", 0], "seed": SEED, **FORMER}
    assert said == "KSampler (#100): 25 steps, CFG 7.5"


def test_sampler_without_sun_beside_the_compared_one_is_not_described() -> None:
    workflow, _ = convert("speed_up", load("two_samplers_on_one_line"), [{"graph": None, "node": 6}], here(SD15))
    sun = str(node(workflow, "SUNSpeedUp")["id"])
    _, _, said = without_sun(workflow, prompt_of("6", sun, ["3", 0]), here(SD15))
    assert said == "KSampler (#6): 25 steps, CFG 7.5"


def test_values_of_primitives_are_the_former_ones() -> None:
    name = "primitives_drive_steps_and_cfg"
    workflow = load(f"{name}.expected")
    sampler, sun = (str(node(workflow, kind)["id"]) for kind in ("KSampler", "SUNSpeedUp"))
    _, queued, _ = without_sun(workflow, prompt_of(sampler, sun, ["1", 0]), here(SD15))
    before = [one["widgets_values"][0] for one in load(name)["nodes"] if one["type"] == "PrimitiveNode"]
    assert [queued[sampler]["inputs"]["steps"], queued[sampler]["inputs"]["cfg"]] == before


def test_every_instance_of_a_subgraph_gets_the_settings_that_stood_on_it() -> None:
    workflow = load("subgraph_with_promoted_settings_used_twice.expected")
    (inner,) = workflow["definitions"]["subgraphs"]
    ids = {one["type"]: one["id"] for one in inner["nodes"]}
    hosts = [one["id"] for one in workflow["nodes"] if one["type"] == inner["id"]]
    prompt: Json = {}
    for host in hosts:
        prompt |= prompt_of(f"{host}:{ids['KSampler']}", f"{host}:{ids['SUNSpeedUp']}", ["1", 0])
    _, queued, _ = without_sun(workflow, prompt, here(SD15))
    inputs = [queued[f"{host}:{ids['KSampler']}"]["inputs"] for host in hosts]
    assert [(one["steps"], one["cfg"]) for one in inputs] == [(30, 6.5), (22, 5.5)]


def test_setting_that_another_node_gave_is_linked_to_it_again() -> None:
    name = "steps_from_an_unknown_node"
    before, workflow = load(name), load(f"{name}.expected")
    sampler, sun = (str(node(workflow, kind)["id"]) for kind in ("KSampler", "SUNSpeedUp"))
    slot = next(one for one in node(before, "KSampler")["inputs"] if one["name"] == "steps")
    origin, output = next(link[1:3] for link in before["links"] if link[0] == slot["link"])
    prompt = {**prompt_of(sampler, sun, ["1", 0]), str(origin): {"class_type": "Other", "inputs": {}}}
    _, queued, _ = without_sun(workflow, prompt, here(SD15))
    assert queued[sampler]["inputs"]["steps"] == [str(origin), output]


def fed_by_a_subgraph(kind: str, value: int) -> tuple[Json, Json]:
    """Return a sped-up graph whose steps came from the output of a subgraph, and what the page would queue."""
    graph, inner = Graph(), Subgraph("Settings", 1, "", "INT:INT")
    number = inner.node(kind, [value])
    inner.link(inner.node("Reroute", any=(number, 0)), 0, inner.outside, "INT")
    inner.type_of()
    host = graph.node(inner.id)
    model = graph.node("CheckpointLoaderSimple", [CHECKPOINT])
    sampler = graph.node("KSampler", KSAMPLER, model=(model, 0))
    graph.link(host, 0, sampler, "steps")
    workflow, _ = convert("speed_up", graph.workflow(inner.definition()), None, here(SD15))
    sun = str(node(workflow, "SUNSpeedUp")["id"])
    prompt = prompt_of(str(sampler["id"]), sun, [str(model["id"]), 0])
    return workflow, {**prompt, f"{host['id']}:{number['id']}": {"class_type": kind, "inputs": {}}}


def steps_without_sun(workflow: Json, prompt: Json) -> Any:
    _, queued, _ = without_sun(workflow, prompt, here(SD15))
    (steps,) = (entry["inputs"]["steps"] for entry in queued.values() if entry["class_type"] == "KSampler")
    return steps


def test_setting_that_a_subgraph_gave_comes_from_the_node_inside_it() -> None:
    assert steps_without_sun(*fed_by_a_subgraph("PrimitiveInt", 30)) == 30
    workflow, prompt = fed_by_a_subgraph("SomeInt", 30)
    (giver,) = (path for path, entry in prompt.items() if entry["class_type"] == "SomeInt")
    assert ":" in giver and steps_without_sun(workflow, prompt) == [giver, 0]


def fed_by_a_get_node(kind: str) -> tuple[Json, Json]:
    """Return a sped-up graph whose steps came from a Get node, which the prompt does not have, and that prompt."""
    graph = Graph()
    number = graph.node(kind, [30])
    graph.link(number, 0, graph.node("SetNode", ["steps"]), "MODEL")
    model = graph.node("CheckpointLoaderSimple", [CHECKPOINT])
    sampler = graph.node("KSampler", KSAMPLER, model=(model, 0), steps=(graph.node("GetNode", ["steps"]), 0))
    workflow, _ = convert("speed_up", graph.workflow(), None, here(SD15))
    prompt = prompt_of(str(sampler["id"]), str(node(workflow, "SUNSpeedUp")["id"]), [str(model["id"]), 0])
    return workflow, {**prompt, str(number["id"]): {"class_type": kind, "inputs": {}}}


def test_setting_that_a_get_node_gave_comes_from_what_feeds_its_set_node() -> None:
    assert steps_without_sun(*fed_by_a_get_node("PrimitiveInt")) == 30
    assert steps_without_sun(*fed_by_a_get_node("SomeInt")) == ["1", 0]


def test_setting_of_get_and_set_nodes_that_run_in_a_circle_is_told() -> None:
    workflow, prompt = fed_by_a_get_node("SomeInt")
    into = next(link for link in workflow["links"] if link[3] == node(workflow, "SetNode")["id"])
    into[1] = node(workflow, "GetNode")["id"]
    with pytest.raises(ConversionError, match="gets its steps from a node that does not run"):
        without_sun(workflow, prompt, here(SD15))


def test_setting_of_a_node_that_does_not_run_is_told() -> None:
    workflow, prompt = fed_by_a_subgraph("SomeInt", 30)
    prompt = {path: entry for path, entry in prompt.items() if entry["class_type"] != "SomeInt"}
    with pytest.raises(ConversionError, match="gets its steps from a node that does not run"):
        without_sun(workflow, prompt, here(SD15))


@pytest.mark.parametrize(("cfg", "said"), [("automatic", "CFG 1 by SUNNegative (#9)"), ("from sampler", "CFG 7.5")])
def test_negative_node_that_came_later_is_told_with_the_cfg_that_it_sets(cfg: str, said: str) -> None:
    """It did nothing beside SUN, and without SUN it works."""
    workflow = sped_up()
    lone = convert("negative", load("lcm_lora"))[0]
    new = {**node(lone, "SUNNegative"), "id": 9, "properties": {}}
    new["widgets_values"][-1] = cfg
    new["inputs"][0]["link"], new["outputs"][0]["links"] = 90, [91]
    (link,) = (one for one in workflow["links"] if one[3] == 5 and one[5] == "MODEL")
    workflow["nodes"].append(new)
    workflow["links"] += [[90, link[1], 0, 9, 0, "MODEL"], [91, 9, 0, 5, link[4], "MODEL"]]
    workflow["links"].remove(link)
    node(workflow, "KSampler")["inputs"][link[4]]["link"] = 91
    prompt = prompt_of("5", "9", ["8", 0])
    prompt["9"]["class_type"] = "SUNNegative"
    prompt["8"] = {"class_type": "SUNSpeedUp", "inputs": {"model": ["1", 0]}}
    _, queued, described = without_sun(workflow, prompt, here(SD15))
    assert described == f"KSampler (#5): 25 steps, {said}"
    assert queued["9"]["inputs"]["model"] == ["1", 0] and queued["5"]["inputs"]["cfg"] == 7.5


def test_what_lets_a_negative_count_without_an_adapter_stays() -> None:
    """It is no part of the comparison. "Speed up" bypassed it, so that the page leaves it out of the prompt."""
    workflow = load("text_to_image")
    node(workflow, "KSampler")["widgets_values"][3] = 1.5
    workflow, _ = convert("negative", workflow, None, here(SD15))
    workflow, _ = convert("speed_up", workflow, None, here(SD15))
    plain, queued, said = without_sun(workflow, prompt_of("5", "9", ["1", 0]), here(SD15))
    assert node(plain, "SUNNegative")["id"] == 8 and queued["8"]["inputs"]["model"] == ["1", 0]
    assert queued["5"]["inputs"]["model"] == ["8", 0]
    assert queued["5"]["inputs"]["cfg"] == node(plain, "KSampler")["widgets_values"][3] == 1
    assert said == "KSampler (#5): 25 steps, CFG 1"


def test_lora_that_fix_bypassed_stays_so() -> None:
    """The prompt is without it."""
    workflow, _ = convert("speed_up", load("lora_stack"), None, here(SD15))
    node(workflow, "LoraLoader")["widgets_values"][0] = "lcm-lora-sdv1-5.safetensors"
    workflow, _ = convert("fix", workflow, None, here(SD15))
    sampler, sun = (str(node(workflow, kind)["id"]) for kind in ("KSampler", "SUNSpeedUp"))
    plain, _, _ = without_sun(workflow, prompt_of(sampler, sun, ["5", 0]), here(SD15))
    assert node(workflow, "LoraLoader")["mode"] == node(plain, "LoraLoader")["mode"] == 4


def test_graph_without_sun_is_refused() -> None:
    with pytest.raises(ConversionError, match="no SUN node"):
        without_sun(load("text_to_image"), {}, here(SD15))


def test_sampler_that_needs_sun_is_refused() -> None:
    with pytest.raises(ConversionError, match="runs only with SUN"):
        without_sun(load("sun_sampler_without_sun.expected"), {}, here(SD15))
