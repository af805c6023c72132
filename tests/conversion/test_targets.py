"""What a click on one node means."""

import copy
from typing import Any

import pytest
from sun_pack.conversion.plan import convert, make_plan

from .compare import canonical
from .test_corpus import load


def at(*nodes: Any, graph: str | None = None) -> list[dict[str, Any]]:
    return [{"graph": graph, "node": node} for node in nodes]


def samplers_set(name: str, targets: list[dict[str, Any]]) -> set[Any]:
    plan = make_plan("speed_up", load(name), targets)
    return {edit["node"] for edit in plan.edits if edit["op"] == "set"}


def test_sampler_means_itself_alone() -> None:
    assert samplers_set("two_samplers_on_one_line", at(6)) == {6}


def test_loader_means_all_samplers_on_its_model_line() -> None:
    assert samplers_set("two_samplers_on_one_line", at(1)) == {6, 7}
    assert samplers_set("two_checkpoints", at(1)) == {8}


def test_lora_means_the_samplers_below_it() -> None:
    assert samplers_set("two_samplers_on_one_line", at(3)) == {6, 7}


@pytest.mark.parametrize("part", [6, 7, 8, 9])
def test_each_part_of_a_custom_sampler_means_the_whole(part: int) -> None:
    assert samplers_set("custom_advanced", at(part)) == {6, 7, 8}


def test_subgraph_node_means_the_samplers_in_it() -> None:
    plan = make_plan("speed_up", load("subgraph_in_a_subgraph"), at(5))
    assert {edit["graph"] for edit in plan.edits} == {"00000001-0000-4000-8000-000000000000"}


def test_subgraph_node_means_the_samplers_two_levels_down_with_a_model_line_of_their_own() -> None:
    workflow = load("subgraph_in_a_subgraph")
    (lora,) = (one for one in workflow["definitions"]["subgraphs"][1]["nodes"] if "Lora" in one["type"])
    lora |= {"type": "CheckpointLoaderSimple", "inputs": [], "widgets_values": ["dreamshaper_8.safetensors"]}
    assert make_plan("speed_up", workflow, at(5)).edits


def test_node_on_no_model_line_means_nothing() -> None:
    plan = make_plan("speed_up", load("text_to_image"), at(7))
    assert plan.edits == [] and "no sampler here" in plan.summary


def test_samplers_that_share_a_schedule_are_changed_together() -> None:
    assert samplers_set("base_and_refiner", at(8)) == samplers_set("base_and_refiner", at(9))
    assert len([e for e in make_plan("speed_up", load("split_sigmas"), at(10)).edits if e["op"] == "add"]) == 1


def test_sampler_beside_one_that_is_sped_up_can_be_sped_up_later() -> None:
    once, _ = convert("speed_up", load("two_samplers_on_one_line"), at(6))
    twice, plan = convert("speed_up", once)
    assert sum(edit["op"] == "add" for edit in plan.edits) == 1
    restored, _ = convert("restore", twice)
    assert canonical(restored) == canonical(load("two_samplers_on_one_line"))


def test_restore_of_one_sampler_leaves_the_other() -> None:
    name = "two_checkpoints"
    converted, _ = convert("speed_up", load(name))
    one_left, _ = convert("restore", converted, at(8))
    only_nine, _ = convert("speed_up", load(name), at(9))
    kinds = [sum(n["type"] == "SUNSpeedUp" for n in graph["nodes"]) for graph in (one_left, only_nine)]
    assert kinds == [1, 1]
    assert canonical(convert("restore", one_left)[0]) == canonical(load(name))


def test_restore_brings_back_former_settings_whatever_was_set_since() -> None:
    converted, _ = convert("speed_up", load("text_to_image"))
    sampler = next(node for node in converted["nodes"] if node["type"] == "KSampler")
    sampler["widgets_values"][2] = 6
    assert canonical(convert("restore", converted)[0]) == canonical(load("text_to_image"))


def test_restore_hands_the_model_on_to_whatever_was_added_since() -> None:
    converted, _ = convert("speed_up", load("two_samplers_on_one_line"), at(6))
    second = next(node for node in converted["nodes"] if node["id"] == 7)
    link = next(link for link in converted["links"] if link[0] == second["inputs"][0]["link"])
    lora = next(node for node in converted["nodes"] if node["id"] == link[1])
    sun = next(node for node in converted["nodes"] if node["type"] == "SUNSpeedUp")
    lora["outputs"][0]["links"].remove(link[0])
    sun["outputs"][0]["links"].append(link[0])
    link[1], link[2] = sun["id"], 0
    assert canonical(convert("restore", converted)[0]) == canonical(load("two_samplers_on_one_line"))


def with_ids_shifted(workflow: dict[str, Any], nodes: set[Any], links: set[int], by: int) -> dict[str, Any]:
    """Give nodes and links of a workflow new ids, as a page does. SUN's record stays as it is."""
    workflow = copy.deepcopy(workflow)
    for node in workflow["nodes"]:
        node["id"] += by if node["id"] in nodes else 0
        for slot in node["inputs"]:
            slot["link"] = slot["link"] + by if slot["link"] in links else slot["link"]
        for slot in node["outputs"]:
            slot["links"] = [number + by if number in links else number for number in slot["links"]]
    for link in workflow["links"]:
        link[1] += by if link[1] in nodes else 0
        link[3] += by if link[3] in nodes else 0
        link[0] += by if link[0] in links else 0
    return workflow


def values(workflow: dict[str, Any], node: int) -> list[Any]:
    return next(entry["widgets_values"] for entry in workflow["nodes"] if entry["id"] == node)


def test_restore_of_a_copied_sampler_leaves_the_original_alone() -> None:
    """SUN and its KSampler, copied and pasted with the links that they had."""
    converted, _ = convert("speed_up", load("text_to_image"))
    (sun,) = [node["id"] for node in converted["nodes"] if node["type"] == "SUNSpeedUp"]
    copied = {sun, 5}
    inner = {link[0] for link in converted["links"] if link[3] in copied}
    pasted = with_ids_shifted(converted, copied, inner, 100)
    for key, mine in (("nodes", lambda node: node["id"] > 100), ("links", lambda link: link[0] > 100)):
        converted[key] += [entry for entry in pasted[key] if mine(entry)]
    restored, _ = convert("restore", converted, at(sun + 100))
    assert values(restored, 105) == values(load("text_to_image"), 5)
    assert values(restored, 5) == values(converted, 5)
    assert [node["id"] for node in restored["nodes"] if node["type"] == "SUNSpeedUp"] == [sun]


def test_restore_finds_samplers_whose_ids_the_page_has_changed() -> None:
    """As when a subgraph is unpacked."""
    before, converted = load("two_samplers_on_one_line"), convert("speed_up", load("two_samplers_on_one_line"))[0]
    everything = {node["id"] for node in converted["nodes"]}
    restored, plan = convert("restore", with_ids_shifted(converted, everything, set(), 100))
    assert canonical(restored) == canonical(with_ids_shifted(before, everything, set(), 100))
    assert "gone" not in plan.detail


def test_restore_says_what_it_could_not_bring_back() -> None:
    converted, _ = convert("speed_up", load("text_to_image"))
    converted["nodes"] = [node for node in converted["nodes"] if node["type"] != "KSampler"]
    plan = make_plan("restore", converted)
    assert plan.summary == "SUN is removed" and "gone" in plan.detail


def test_sampler_in_a_muted_subgraph_does_not_run() -> None:
    workflow = load("subgraph_in_a_subgraph")
    next(node for node in workflow["nodes"] if node["id"] == 5)["mode"] = 2
    plan = make_plan("speed_up", workflow)
    assert plan.edits == [] and "no sampler" in plan.summary


def test_restore_without_a_record_is_explained() -> None:
    plan = make_plan("restore", load("sped_up_already"))
    assert plan.edits == [] and "no record" in plan.detail


def advanced(start: int, end: int, latent: list[Any], keep_noise: bool, steps: int = 25) -> dict[str, Any]:
    """Make a sampler that runs a part of the steps, in the API's format."""
    values = {"add_noise": "enable", "noise_seed": 1, "steps": steps, "cfg": 7, "sampler_name": "euler"}
    cut = {"scheduler": "normal", "start_at_step": start, "end_at_step": end}
    noise = {"return_with_leftover_noise": "enable" if keep_noise else "disable"}
    links = {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": latent}
    return {"class_type": "KSamplerAdvanced", "inputs": {**values, **cut, **noise, **links}}


def cuts(workflow: dict[str, Any], *nodes: str) -> list[tuple[int, int, int]]:
    """Return (steps, start, end) of these nodes after they are sped up."""
    sped_up, _ = convert("speed_up", workflow)
    inputs = [sped_up[node]["inputs"] for node in nodes]
    return [(values["steps"], values["start_at_step"], values["end_at_step"]) for values in inputs]


def passes() -> dict[str, Any]:
    """Make two independent pairs of passes and a KSampler, all with 25 steps."""
    workflow = load("api_text_to_image")
    (sampler,) = (node for node in workflow.values() if node["class_type"] == "KSampler")
    model = sampler["inputs"]["model"]
    pairs = {
        "91": advanced(0, 12, ["5", 0], True),
        "92": advanced(12, 10000, ["91", 0], False),
        "93": advanced(0, 13, ["5", 0], True),
        "94": advanced(13, 10000, ["95", 0], False),
        "95": {"class_type": "LatentUpscale", "inputs": {"samples": ["93", 0]}},
    }
    for node in pairs.values():
        node["inputs"] |= {"model": model} if "model" in node["inputs"] else {}
    return workflow | pairs


def test_passes_are_cut_together_with_their_partners_only() -> None:
    assert cuts(passes(), "91", "92", "93", "94") == [(4, 0, 2), (4, 2, 10000), (4, 0, 2), (4, 2, 10000)]


def test_many_passes_do_not_give_others_more_steps() -> None:
    workflow = passes()
    for number, start in enumerate(range(0, 25, 5)):
        latent = [str(100 + number - 1), 0] if number else ["5", 0]
        model = workflow["91"]["inputs"]["model"]
        workflow[str(100 + number)] = advanced(start, start + 5, latent, True)
        workflow[str(100 + number)]["inputs"]["model"] = model
    assert cuts(workflow, "100", "104") == [(5, 0, 1), (5, 4, 25)]
    assert cuts(workflow, "91", "92") == [(4, 0, 2), (4, 2, 10000)]
    assert "now need 4 / 5 steps" in make_plan("speed_up", workflow).summary


def test_pass_in_a_subgraph_is_the_partner_of_the_one_before_it() -> None:
    plan = make_plan("speed_up", split_over_a_subgraph(), at(2))
    values = {(edit["graph"], edit["widget"]): edit["value"] for edit in plan.edits if edit["op"] == "set"}
    assert values[None, "end_at_step"] == values["inner", "start_at_step"] == 3
    assert values[None, "steps"] == values["inner", "steps"] == 4


def split_over_a_subgraph() -> dict[str, Any]:
    """Make a first pass in the root and a second one in a subgraph."""

    def sampler(number: int, values: list[Any], links: tuple[int, int], out: list[int]) -> dict[str, Any]:
        slots = [("model", "MODEL", links[0]), ("latent_image", "LATENT", links[1])]
        return {
            "id": number, "type": "KSamplerAdvanced", "pos": [0, 0], "size": [300, 300], "mode": 0,
            "inputs": [{"name": name, "type": kind, "link": link} for name, kind, link in slots],
            "outputs": [{"name": "LATENT", "type": "LATENT", "links": out}], "widgets_values": values,
        }  # fmt: skip

    first = ["enable", 1, "fixed", 25, 7, "euler", "normal", 0, 20, "enable"]
    second = ["disable", 1, "fixed", 25, 7, "euler", "normal", 20, 10000, "disable"]
    slots = [{"name": "model", "type": "MODEL"}, {"name": "latent", "type": "LATENT"}]
    inner = {
        "id": "inner", "inputs": slots, "outputs": [], "nodes": [sampler(11, second, (1, 2), [])],
        "links": [
            {"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 11, "target_slot": 0, "type": "MODEL"},
            {"id": 2, "origin_id": -10, "origin_slot": 1, "target_id": 11, "target_slot": 1, "type": "LATENT"},
        ],
    }  # fmt: skip
    loader = {"id": 1, "type": "CheckpointLoaderSimple", "pos": [0, 0], "size": [300, 100], "mode": 0, "inputs": [],
              "outputs": [{"name": "MODEL", "type": "MODEL", "links": [1, 3]}],
              "widgets_values": ["v1-5-pruned-emaonly.safetensors"]}  # fmt: skip
    instance = {"id": 3, "type": "inner", "pos": [600, 0], "size": [300, 100], "mode": 0, "outputs": [],
                "inputs": [{**slot, "link": link} for slot, link in zip(slots, (3, 4), strict=True)]}  # fmt: skip
    empty = {"id": 4, "type": "EmptyLatentImage", "pos": [0, 400], "size": [300, 100], "mode": 0, "inputs": [],
             "outputs": [{"name": "LATENT", "type": "LATENT", "links": [2]}],
             "widgets_values": [512, 512, 1]}  # fmt: skip
    links = [[1, 1, 0, 2, 0, "MODEL"], [2, 4, 0, 2, 1, "LATENT"], [3, 1, 0, 3, 0, "MODEL"], [4, 2, 0, 3, 1, "LATENT"]]
    nodes = [loader, empty, sampler(2, first, (1, 2), [4]), instance]
    return {"nodes": nodes, "links": links, "definitions": {"subgraphs": [inner]}, "last_node_id": 11}


def test_muted_copy_of_a_subgraph_node_does_not_count() -> None:
    """The other node of the subgraph has Flux, and does not run."""
    workflow = load("subgraph_used_for_flux_as_well")
    assert make_plan("speed_up", workflow).edits == []
    (subgraph,) = workflow["definitions"]["subgraphs"]
    numbers = {node["id"] for node in workflow["nodes"] if "flux" in str(node.get("widgets_values")).lower()}
    fed = {link[3] for link in workflow["links"] if link[1] in numbers and link[5] == "MODEL"}
    for node in workflow["nodes"]:
        if node["type"] == subgraph["id"] and node["id"] in fed:
            node["mode"] = 2
    assert make_plan("speed_up", workflow).edits != []


def test_plan_does_not_quote_a_value_that_a_link_overrides() -> None:
    workflow = load("api_steps_by_link")
    detail = make_plan("speed_up", workflow).detail
    assert "steps 25 -> 4, cfg by link -> 1" in detail
    driven = make_plan("speed_up", load("steps_from_an_unknown_node")).detail
    assert "steps by link -> 4" in driven


def test_group_node_with_a_sampler_in_it_is_named() -> None:
    workflow = load("text_to_image")
    workflow["nodes"] = [entry for entry in workflow["nodes"] if entry["type"] != "KSampler"]
    for name, types in (("Sample it", ["KSampler"]), ("Prompt it", ["CLIPTextEncode"])):
        group = {"nodes": [{"type": node_type} for node_type in types]}
        workflow["extra"].setdefault("groupNodes", {})[name] = group
        workflow["nodes"].append({"id": 50 + len(types[0]), "type": f"workflow/{name}", "pos": [0, 0], "size": [1, 1]})
    plan = make_plan("speed_up", workflow)
    reason = "it is a group node with a sampler in it; convert it to a subgraph first"
    assert plan.detail == f"workflow/Sample it (#58) stays as it is: {reason}."


@pytest.mark.parametrize("gap", [20, 60, 200])
def test_new_node_stands_on_the_side_of_the_inputs_panel_to_which_its_links_run(gap: float) -> None:
    workflow = load("subgraph_with_the_sampler")
    (inner,) = workflow["definitions"]["subgraphs"]
    sampler = next(one for one in inner["nodes"] if one["type"] == "KSampler")
    panel_end = sampler["pos"][0] - gap
    inner["inputNode"]["bounding"] = [panel_end - 120, sampler["pos"][1], 120, 120]
    (added,) = [edit for edit in make_plan("speed_up", workflow).edits if edit["op"] == "add"]
    assert added["pos"][0] >= panel_end


def test_choice_of_sampler_that_a_flux_sampler_uses_too_stays_as_it_is() -> None:
    """It holds no schedule, and automatic settings bring their own sampler."""
    workflow = load("split_sigmas")
    choice = next(entry for entry in workflow["nodes"] if entry["type"] == "KSamplerSelect")
    choice["widgets_values"] = ["dpmpp_2m_sde"]
    flux = {
        "id": 90,
        "type": "UNETLoader",
        "widgets_values": ["flux1-dev.safetensors", "default"],
        "outputs": [{"name": "MODEL", "type": "MODEL", "links": [901]}],
    }
    beside = {
        "id": 91,
        "type": "SamplerCustom",
        "widgets_values": [True, 1, "fixed", 1.0],
        "inputs": [{"name": "model", "type": "MODEL", "link": 901}, {"name": "sampler", "type": "SAMPLER", "link": 902},
                   {"name": "sigmas", "type": "SIGMAS", "link": 903}],
    }  # fmt: skip
    scheduler = {
        "id": 92,
        "type": "BasicScheduler",
        "widgets_values": ["simple", 20, 1.0],
        "outputs": [{"name": "SIGMAS", "type": "SIGMAS", "links": [903]}],
    }
    workflow["nodes"] += [flux, beside, scheduler]
    workflow["links"] += [
        [901, 90, 0, 91, 0, "MODEL"],
        [902, choice["id"], 0, 91, 1, "SAMPLER"],
        [903, 92, 0, 91, 2, "SIGMAS"],
    ]
    converted, plan = convert("speed_up", workflow)
    assert plan.summary == "2 samplers now need 4 steps and no CFG pass"
    assert "SamplerCustom (#91) stays as it is: its model is Flux" in plan.detail and "shares" not in plan.detail
    assert values(converted, choice["id"]) == ["dpmpp_2m_sde"]
    assert values(convert("restore", converted)[0], choice["id"]) == ["dpmpp_2m_sde"]
