"""A SUNNegative on a MODEL line that gets SUN: an adapter reads the negative prompt, so the node is bypassed for it."""

import copy
from typing import Any

import pytest
from sun_pack.conversion.check import check
from sun_pack.conversion.plain import without_sun
from sun_pack.conversion.plan import convert, make_plan, read
from sun_pack.conversion.rules import NEGATIVE

from .compare import canonical
from .make_corpus import CHECKPOINT, KSAMPLER, Graph, Subgraph
from .test_bad_input import node
from .test_corpus import load
from .test_findings import SD15, here
from .test_left_behind import SUN, Json, badges, driven, off, without
from .test_negative import at_cfg, counting
from .test_put_in_by_hand import graphs_of
from .test_targets import at

WAYS = ["by a click", "by hand"]
OWN = [5.0, 4.0, 0.25, 0.1, 0.9, "automatic"]


def with_negative(name: str = "text_to_image", way: str = "by a click", cfg: float = 1.5) -> Json:
    """A graph at a low CFG with a SUNNegative from the menu, or one of the artist's own, with values of its own."""
    workflow = load(name)
    for one in (one for graph in graphs_of(workflow) for one in graph["nodes"] if one["type"] == "KSampler"):
        one["widgets_values"][3] = cfg
    workflow, _ = counting(workflow)
    for one in (one for graph in graphs_of(workflow) for one in graph["nodes"]) if way == "by hand" else ():
        for name in ("sun_restore", "sun_negative_restore"):
            one["properties"].pop(name, None)
        if one["type"] == NEGATIVE:
            one["widgets_values"] = [*OWN]
    return workflow


def sped_up(workflow: Json, targets: Any = None) -> Json:
    return convert("speed_up", workflow, targets, here(SD15))[0]


def modes(workflow: Json) -> list[int]:
    return [one["mode"] for graph in graphs_of(workflow) for one in graph["nodes"] if one["type"] == NEGATIVE]


@pytest.mark.parametrize("name", ["text_to_image", "lora_stack", "native_reroute", "subgraph_with_the_sampler"])
@pytest.mark.parametrize("way", WAYS)
def test_negative_that_sun_leaves_nothing_to_do_is_bypassed_and_one_restore_undoes_that(name: str, way: str) -> None:
    before = with_negative(name, way)
    after, plan = convert("speed_up", before, None, here(SD15))
    assert modes(after) == [4] and "is bypassed, because the adapter reads the negative prompt" in plan.detail
    assert "has no effect" not in plan.detail, "that says the same"
    assert badges(after) == {}
    restored, _ = convert("restore", after, None, here(SD15))
    if way == "by a click":  # Restore takes out what the menu put in, as after that click alone
        before, _ = convert("restore", before, None, here(SD15))
    assert canonical(restored) == canonical(before)


def test_restore_on_the_sampler_or_on_either_node_undoes_both() -> None:
    before = with_negative(way="by hand")
    after = sped_up(before)
    for kind in ("KSampler", SUN, NEGATIVE):
        restored, _ = convert("restore", after, at(node(after, kind)["id"]), here(SD15))
        assert canonical(restored) == canonical(before)


def test_negative_of_two_samplers_works_for_the_one_that_stays_as_it_is() -> None:
    before = with_negative("two_samplers_on_one_line")
    first, second = (one["id"] for one in before["nodes"] if one["type"] == "KSampler")
    half = sped_up(before, at(first))
    assert modes(half) == [0] and badges(half) == {}
    (entry,) = (e for e in check(read(half), here(SD15)) if e["node"] == node(half, NEGATIVE)["id"])
    assert [served["node"] for served in entry["samplers"]] == [second]
    assert entry["face"] == [f"KSampler (#{second}): 30 steps, automatic"]
    whole = sped_up(half, at(second))
    assert modes(whole) == [4] and badges(whole) == {}
    assert canonical(convert("restore", whole)[0]) == canonical(convert("restore", before)[0])


@pytest.mark.parametrize("other", ["a muted sampler", "a node that saves its MODEL", "a node that hands it on to none"])
def test_negative_that_something_else_uses_stays_on(other: str) -> None:
    workflow = with_negative("two_samplers_on_one_line")
    last = [one for one in workflow["nodes"] if one["type"] == "KSampler"][-1]
    if other == "a muted sampler":
        last["mode"] = 2
    elif other == "a node that saves its MODEL":
        last |= {"type": "ModelSave", "outputs": [], "widgets_values": ["mine"], "properties": {}}
    else:
        last |= {"type": "Refiner", "widgets_values": []}
        last["outputs"] = [*last["outputs"], {"name": "MODEL", "type": "MODEL"}]
    after = sped_up(workflow)
    assert SUN in {one["type"] for one in after["nodes"]} and modes(after) == [0]


def test_negative_of_a_sampler_that_is_left_and_hands_its_model_on_stays_on() -> None:
    workflow = with_negative("two_samplers_on_one_line")
    first, second = (one for one in workflow["nodes"] if one["type"] == "KSampler")
    first |= {"type": "KSampler (Efficient)", "widgets_values": [42, 8, 1.0, "lcm", "sgm_uniform", 1.0, "auto", "true"]}
    into = next(link for link in workflow["links"] if link[3] == second["id"] and link[5] == "MODEL")
    into[1:3] = first["id"], len(first["outputs"])
    first["outputs"].append({"name": "MODEL", "type": "MODEL", "links": [into[0]]})
    after = sped_up(workflow, at(second["id"]))
    assert SUN in {one["type"] for one in after["nodes"]} and modes(after) == [0]


def test_restore_keeps_the_cfg_of_a_negative_of_ones_own_after_one_that_was_deleted() -> None:
    before = with_negative()
    del node(before, NEGATIVE)["properties"]["sun_restore"]
    assert "sun_negative_restore" in node(before, "KSampler")["properties"], "as the deleted one left it"
    assert canonical(convert("restore", sped_up(before), None, here(SD15))[0]) == canonical(before)


@pytest.mark.parametrize("mode", [0, 2])
def test_restore_takes_the_note_from_one_that_the_artist_switched_since_and_leaves_its_mode(mode: int) -> None:
    before = with_negative(way="by hand")
    after = sped_up(before)
    node(before, NEGATIVE)["mode"] = node(after, NEGATIVE)["mode"] = mode
    assert canonical(convert("restore", after, None, here(SD15))[0]) == canonical(before)


def test_sampler_that_was_set_anew_after_sun_was_deleted_has_no_badge() -> None:
    left = without(sped_up(with_negative()), SUN)
    node(left, "KSampler")["widgets_values"][2:4] = [20, 7.0]
    assert badges(left) == {}


def test_in_the_format_of_the_api_which_has_no_bypass_the_node_stays() -> None:
    workflow, _ = counting(at_cfg(1.5, steps=8))
    plan = make_plan("speed_up", workflow, None, here(SD15))
    assert "mode" not in {edit["op"] for edit in plan.edits} and "bypassed" not in plan.detail


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cfg", [1.0, 1.5])
@pytest.mark.parametrize("is_deleted", [False, True], ids=["SUN is off", "SUN is deleted"])
def test_fix_turns_it_on_again_if_sun_is_off_or_gone(way: str, cfg: float, is_deleted: bool) -> None:
    before = with_negative(way=way, cfg=cfg)
    after = sped_up(before)
    left = without(after, SUN) if is_deleted else off(after, SUN)
    found = badges(left)
    negative, sampler = (node(left, kind)["id"] for kind in (NEGATIVE, "KSampler"))
    assert found[negative]["text"] == "Negative is off" and "was bypassed for SUN" in found[negative]["detail"]
    assert "was bypassed for SUN" in found[sampler]["detail"] and all(badge["fix"] for badge in found.values())
    for target in (sampler,) if is_deleted else (sampler, node(left, SUN)["id"]):
        fixed, _ = convert("fix", left, at(target), here(SD15))
        assert modes(fixed) == [0] and badges(fixed) == {}
        assert node(fixed, "KSampler")["widgets_values"] == node(before, "KSampler")["widgets_values"]
        assert node(fixed, NEGATIVE)["properties"] == node(before, NEGATIVE)["properties"]


@pytest.mark.parametrize("name", ["text_to_image", "subgraph_with_the_sampler"])
@pytest.mark.parametrize("way", WAYS)
def test_comparison_without_sun_runs_with_it(name: str, way: str) -> None:
    """The page queues no bypassed node, so that the prompt lacks it."""
    before = with_negative(name, way)
    workflow = sped_up(before)
    host = next((f"{one['id']}:" for one in workflow["nodes"] if len(one["type"]) > 30), "")
    (graph,) = (graph for graph in graphs_of(workflow) if SUN in {one["type"] for one in graph["nodes"]})
    sampler, sun, negative = (f"{host}{node(graph, kind)['id']}" for kind in ("KSampler", SUN, NEGATIVE))
    prompt = {
        sampler: {"class_type": "KSampler", "inputs": {"model": [sun, 0], "seed": 7}},
        sun: {"class_type": SUN, "inputs": {"model": ["1", 0]}},
    }
    plain, queued, said = without_sun(workflow, copy.deepcopy(prompt), here(SD15))
    assert modes(plain) == [0] and queued.keys() == {sampler, negative} and ", CFG 1" in said
    assert queued[sampler]["inputs"]["model"] == [negative, 0]
    values = OWN if way == "by hand" else [3.0, 5.0, 0.5, 0.0, 1.0, "automatic"]
    names = ["scale", "tau", "alpha", "start_percent", "end_percent", "cfg"]
    expected = {"model": ["1", 0], **dict(zip(names, values, strict=True))}
    assert queued[negative] == {"class_type": NEGATIVE, "inputs": expected}


def test_comparison_gives_it_what_other_nodes_drive() -> None:
    """A file need not have the values beside links."""
    workflow = driven(sped_up(with_negative(way="by hand")), NEGATIVE, "scale")
    node(workflow, NEGATIVE)["widgets_values"] = []
    negative, sun = (str(node(workflow, kind)["id"]) for kind in (NEGATIVE, SUN))
    prompt = {
        "5": {"class_type": "KSampler", "inputs": {"model": [sun, 0]}},
        sun: {"class_type": SUN, "inputs": {"model": ["1", 0]}},
        "50": {"class_type": "SomeValue", "inputs": {}},
    }
    _, queued, _ = without_sun(workflow, prompt, here(SD15))
    assert queued[negative]["inputs"] == {"scale": ["50", 0], "model": ["1", 0]}


def test_comparison_finds_it_outside_the_subgraph_of_the_sampler_and_past_a_bypassed_node() -> None:
    inner = Subgraph("sampling", 1, "model:MODEL", "LATENT:LATENT")
    inner.link(inner.node("KSampler", KSAMPLER, model=(inner.inside, 0)), 0, inner.outside, "LATENT")
    inner.type_of()
    graph = Graph()
    model = graph.node("CheckpointLoaderSimple", [CHECKPOINT])
    negative = graph.node("LoraLoaderModelOnly", ["", 1.0], model=(model, 0))
    negative |= {"type": NEGATIVE, "widgets_values": OWN, "inputs": negative["inputs"][:1]}
    lora = graph.node("LoraLoaderModelOnly", ["style.safetensors", 1.0], model=(negative, 0))
    lora["mode"] = 4
    host = graph.node(inner.id, model=(lora, 0))
    workflow = sped_up(graph.workflow(inner.definition()))
    assert modes(workflow) == [4]
    sampler, sun = (f"{host['id']}:{node(inside_of(workflow), kind)['id']}" for kind in ("KSampler", SUN))
    prompt = {
        sampler: {"class_type": "KSampler", "inputs": {"model": [sun, 0], "seed": 7}},
        sun: {"class_type": SUN, "inputs": {"model": [str(model["id"]), 0]}},
    }
    _, queued, _ = without_sun(workflow, prompt, here(SD15))
    assert queued[sampler]["inputs"]["model"] == [str(negative["id"]), 0]
    assert queued[str(negative["id"])]["inputs"]["model"] == [str(model["id"]), 0]


def inside_of(workflow: Json) -> Json:
    (graph,) = workflow["definitions"]["subgraphs"]
    return graph
