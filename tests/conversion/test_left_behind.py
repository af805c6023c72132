"""Samplers whose SUN node was deleted or turned off by hand: what they show, and how they get back what they had."""

import copy
from typing import Any

import pytest
from sun_pack.conversion.check import check
from sun_pack.conversion.plan import convert, make_plan, read
from sun_pack.conversion.rules import NEGATIVE

from .compare import canonical
from .test_bad_input import node
from .test_corpus import load
from .test_findings import SD15, here

Json = dict[str, Any]
SUN = "SUNSpeedUp"
SAMPLER = {"graph": None, "node": 5}


def without(workflow: Json, kind: str, number: int | None = None) -> Json:
    """Delete a node as the page does, and link what it fed to what fed it."""
    workflow = copy.deepcopy(workflow)
    gone = next(one for one in workflow["nodes"] if one["type"] == kind and number in (None, one["id"]))
    links = {link[0]: link for link in workflow["links"]}
    into = next(links[slot["link"]] for slot in gone["inputs"] if slot["name"] == "model")
    source = next(one for one in workflow["nodes"] if one["id"] == into[1])["outputs"][into[2]]
    source["links"].remove(into[0])
    for link in workflow["links"]:
        if link[1] == gone["id"]:
            link[1:3] = into[1:3]
            source["links"].append(link[0])
    workflow["nodes"].remove(gone)
    workflow["links"].remove(into)
    return workflow


def off(workflow: Json, kind: str) -> Json:
    workflow = copy.deepcopy(workflow)
    node(workflow, kind)["mode"] = 4
    return workflow


def driven(workflow: Json, kind: str, name: str, by: int = 50) -> Json:
    """Let a node that SUN does not know drive a widget. The value beside the link stays in the file."""
    workflow, link = copy.deepcopy(workflow), 900 + by
    target = node(workflow, kind)
    slot = next(index for index, one in enumerate(target["inputs"]) if one["name"] == name)
    target["inputs"][slot]["link"] = link
    workflow["links"].append([link, by, 0, target["id"], slot, "*"])
    workflow["nodes"].append({"id": by, "type": "SomeValue", "outputs": [{"type": "*", "links": [link]}]})
    return workflow


def badges(workflow: Json) -> dict[int, Json]:
    return {entry["node"]: entry["badge"] for entry in check(read(workflow), here(SD15)) if entry["badge"]}


def values(workflow: Json) -> list[list[Any]]:
    return [one["widgets_values"] for one in workflow["nodes"] if one["type"].startswith("KSampler")]


def same_but_for_ids(one: Json, other: Json) -> bool:
    """Deleting by hand leaves gaps among the ids of links and in the counters, which mean nothing."""
    return canonical(one) == canonical(other)


def at_low_cfg(cfg: float = 1.5) -> Json:
    workflow = load("text_to_image")
    node(workflow, "KSampler")["widgets_values"][3] = cfg
    return workflow


def counting(cfg: float = 1.5) -> Json:
    return convert("negative", at_low_cfg(cfg), None, here(SD15))[0]


@pytest.mark.parametrize("action", ["fix", "restore"])
def test_deleted_negative_leaves_a_badge_and_its_cfg_comes_back(action: str) -> None:
    left = without(counting(), NEGATIVE)
    (badge,) = badges(left).values()
    assert badge["text"] == "Negative is gone" and badge["fix"] and "KSampler (#5) is still at CFG 1" in badge["detail"]
    back, _ = convert(action, left, [SAMPLER], here(SD15))
    assert same_but_for_ids(back, at_low_cfg()) and badges(back) == {}


def test_bypassed_negative_shows_at_itself_and_its_sampler_and_its_cfg_comes_back() -> None:
    left = off(counting(), NEGATIVE)
    found = badges(left)
    assert {badge["text"] for badge in found.values()} == {"Negative is off"}
    assert found.keys() == {5, node(left, NEGATIVE)["id"]} and all(badge["fix"] for badge in found.values())
    for number in found:
        fixed, _ = convert("fix", left, [{"graph": None, "node": number}], here(SD15))
        assert values(fixed) == values(at_low_cfg()) and badges(fixed) == {}
        assert canonical(convert("restore", fixed)[0]) == canonical(at_low_cfg())


def by_hand() -> Json:
    """A SUNNegative without a record before a sampler at CFG 1."""
    workflow = counting(1.0)
    del node(workflow, NEGATIVE)["properties"]["sun_restore"]
    return workflow


@pytest.mark.parametrize("how", [{"mode": 4}, {"scale": 1}, {"alpha": 0}])
def test_negative_of_ones_own_that_is_off_says_that_the_prompt_does_not_count(how: Json) -> None:
    workflow = by_hand()
    assert badges(workflow) == {}
    place = ["scale", "tau", "alpha"]
    for name, value in how.items():
        if name == "mode":
            node(workflow, NEGATIVE)["mode"] = value
        else:
            node(workflow, NEGATIVE)["widgets_values"][place.index(name)] = value
    found = badges(workflow)
    assert len(found) == 2 and not any(badge["fix"] for badge in found.values())
    assert all("the negative prompt of KSampler (#5) does not count at CFG 1" in b["detail"] for b in found.values())


def test_sun_of_which_one_strength_comes_by_link_is_not_off() -> None:
    workflow = load("api_text_to_image")
    apply = {"model": ["1", 0], "sun_adapter": ["8", 0], "negative_strength": 0, "positive_strength": ["9", 0]}
    workflow |= {
        "8": {"class_type": "SUNLoadAdapter", "inputs": {"adapter_name": SD15.name}},
        "9": {"class_type": "SomeFloat", "inputs": {}},
        "10": {"class_type": "SUNApply", "inputs": {**apply, "settings": "automatic"}},
    }
    workflow["5"]["inputs"] |= {"model": ["10", 0], "steps": 4, "cfg": 1.0}
    assert badges(workflow) == {}
    workflow["10"]["inputs"]["positive_strength"] = 0
    assert {badge["text"] for badge in badges(workflow).values()} == {"SUN is off"}


def test_negative_of_which_the_scale_comes_by_link_is_not_off() -> None:
    workflow = by_hand()
    node(workflow, NEGATIVE)["widgets_values"][0] = 1
    assert badges(workflow) and badges(driven(workflow, NEGATIVE, "scale")) == {}


def test_cfg_1_without_a_sign_of_the_node_is_what_was_asked_for() -> None:
    for workflow in (at_low_cfg(1.0), without(by_hand(), NEGATIVE), load("lcm_lora"), load("sdxl_turbo")):
        assert badges(workflow) == {}


def test_negative_that_is_off_says_nothing_where_the_prompt_counts_or_is_read_by_sun() -> None:
    workflow = off(by_hand(), NEGATIVE)
    node(workflow, "KSampler")["widgets_values"][3] = 7.0
    assert badges(workflow) == {}
    sped_up, _ = convert("speed_up", off(by_hand(), NEGATIVE), None, here(SD15))
    assert badges(sped_up) == {}


def test_cfg_that_was_set_anew_after_the_negative_was_deleted_has_no_badge() -> None:
    left = without(counting(), NEGATIVE)
    node(left, "KSampler")["widgets_values"][3] = 7.0
    assert badges(left) == {} and make_plan("restore", left).edits == []


@pytest.mark.parametrize("steps", [None, 8], ids=["as SUN left it", "set to 8 steps since"])
def test_one_restore_brings_back_what_was_before_an_earlier_sun_that_was_deleted(steps: int | None) -> None:
    left = without(convert("speed_up", load("text_to_image"), None, here(SD15))[0], SUN)
    if steps:
        node(left, "KSampler")["widgets_values"][2] = steps
    again, _ = convert("speed_up", left, None, here(SD15))
    restored, _ = convert("restore", again, None, here(SD15))
    assert same_but_for_ids(restored, load("text_to_image"))


def test_record_has_what_was_before_an_earlier_sun_for_the_badge_of_one_that_is_off() -> None:
    first, _ = convert("speed_up", load("text_to_image"), None, here(SD15))
    again, _ = convert("speed_up", without(first, SUN), None, here(SD15))
    one, other = (node(workflow, SUN)["properties"]["sun_restore"] for workflow in (first, again))
    assert one["settings"] == other["settings"] and len(one["settings"]) == 4


def test_steps_that_were_set_after_an_earlier_sun_was_deleted_are_no_former_ones() -> None:
    left = without(convert("speed_up", load("text_to_image"), None, here(SD15))[0], SUN)
    eight, _ = convert("steps_8", convert("speed_up", left, None, here(SD15))[0], None, here(SD15))
    for sped_up in (eight, without(eight, SUN)):
        restored, _ = convert("restore", sped_up, None, here(SD15))
        assert same_but_for_ids(restored, load("text_to_image"))


def test_settings_of_ones_own_after_an_earlier_sun_come_back_as_they_were() -> None:
    left = without(convert("speed_up", load("text_to_image"), None, here(SD15))[0], SUN)
    node(left, "KSampler")["widgets_values"][2:4] = [20, 7.0]
    again, _ = convert("speed_up", left, None, here(SD15))
    for sped_up in (again, without(again, SUN)):
        restored, _ = convert("restore", sped_up, None, here(SD15))
        assert values(restored)[0][2:4] == [20, 7.0]


def test_one_restore_brings_back_what_both_nodes_changed_if_one_of_them_was_deleted() -> None:
    both, _ = convert("speed_up", counting(), None, here(SD15))
    for gone in (NEGATIVE, SUN):
        restored, _ = convert("restore", without(both, gone), [SAMPLER], here(SD15))
        assert same_but_for_ids(restored, at_low_cfg())
    restored, _ = convert("restore", without(without(both, NEGATIVE), SUN), None, here(SD15))
    assert same_but_for_ids(restored, at_low_cfg())


def test_restore_of_all_also_restores_samplers_whose_sun_was_deleted() -> None:
    before = load("two_checkpoints")
    after, _ = convert("speed_up", before, None, here(SD15))
    suns = [one["id"] for one in after["nodes"] if one["type"] == SUN]
    assert len(suns) == 2
    for gone in suns:
        restored, plan = convert("restore", without(after, SUN, gone), None, here(SD15))
        assert values(restored) == values(before) and plan.summary.startswith("SUN is removed, and the former")
        assert not any("sun_restore" in one["properties"] for one in restored["nodes"])


def pair() -> tuple[Json, Json]:
    """Two samplers that share a schedule, each behind a SUN of its own: before, and sped up."""
    before = load("base_and_refiner")
    text = str(before)
    assert text.count("KSamplerAdvanced")
    for one in before["nodes"]:
        if one["type"] == "CheckpointLoaderSimple":
            one["widgets_values"] = ["v1-5-pruned-emaonly-fp16.safetensors"]
    after, plan = convert("speed_up", before, None, here(SD15))
    assert [edit["op"] for edit in plan.edits].count("add") == 2
    return before, after


@pytest.mark.parametrize("is_there", [True, False], ids=["off", "deleted"])
def test_partner_behind_an_active_sun_keeps_its_settings(is_there: bool) -> None:
    _, after = pair()
    first, second = (one for one in after["nodes"] if one["type"] == SUN)
    if is_there:
        del first["properties"]["sun_restore"]
        for one in after["nodes"]:
            if one["type"] == "KSamplerAdvanced":
                one["properties"].pop("sun_restore", None)
        first["mode"] = 4
        left = after
    else:
        left = without(after, SUN, first["id"])
    found = badges(left)
    assert found and not any(badge["fix"] for badge in found.values())
    assert all("Let SUN work for both" in badge["detail"] for badge in found.values())
    assert make_plan("fix", left, None, here(SD15)).edits == []
    assert second["id"] not in found


def test_restore_of_all_brings_back_both_partners_if_the_sun_of_one_was_deleted() -> None:
    before, after = pair()
    first = node(after, SUN)["id"]
    restored, _ = convert("restore", without(after, SUN, first), None, here(SD15))
    assert values(restored) == values(before)


def test_link_that_was_drawn_after_an_earlier_sun_was_deleted_comes_back() -> None:
    left = without(convert("speed_up", load("text_to_image"), None, here(SD15))[0], SUN)
    left = driven(left, "KSampler", "scheduler")
    (link,) = (one for one in left["links"] if one[1] == 50)
    again, _ = convert("speed_up", left, None, here(SD15))
    for sped_up in (again, without(again, SUN)):
        restored, _ = convert("restore", sped_up, None, here(SD15))
        assert [one[1] for one in restored["links"] if one[3:5] == link[3:5]] == [50]
        assert values(restored)[0][2:4] == [25, 7.5]


UNPLUGGED = [
    "primitive_shared_with_another_node",
    "steps_from_an_unknown_node",
    "subgraph_with_promoted_steps_driven_from_outside",
    "subgraph_with_promoted_steps_of_two_samplers",
]
"""Workflows in which the click unplugs what drives a setting."""


def without_inner(workflow: Json) -> Json:
    """Delete the SUN node, also one in a subgraph."""
    if any(one["type"] == SUN for one in workflow["nodes"]):
        return without(workflow, SUN)
    workflow = copy.deepcopy(workflow)
    (inner,) = workflow["definitions"]["subgraphs"]
    (sun,) = (one for one in inner["nodes"] if one["type"] == SUN)
    (into,) = (link for link in inner["links"] if link["target_id"] == sun["id"])
    for link in inner["links"]:
        if link["origin_id"] == sun["id"]:
            link["origin_id"], link["origin_slot"] = into["origin_id"], into["origin_slot"]
            inner["inputs"][into["origin_slot"]]["linkIds"].append(link["id"])
    inner["inputs"][into["origin_slot"]]["linkIds"].remove(into["id"])
    inner["nodes"].remove(sun)
    inner["links"].remove(into)
    return workflow


@pytest.mark.parametrize("action", ["fix", "restore"])
@pytest.mark.parametrize("name", UNPLUGGED)
def test_link_that_drove_a_setting_comes_back_after_deletion(name: str, action: str) -> None:
    left = without_inner(convert("speed_up", load(name), None, here(SD15))[0])
    restored, _ = convert(action, left, None, here(SD15))
    assert same_but_for_ids(restored, load(name))


def test_link_does_not_come_back_from_a_node_that_got_the_id_of_its_source() -> None:
    left = without(convert("speed_up", load("steps_from_an_unknown_node"), None, here(SD15))[0], SUN)
    node(left, "SomeInt")["type"] = "SomeImage"
    restored, plan = convert("restore", left, None, here(SD15))
    assert plan.edits and "connect" not in [edit["op"] for edit in plan.edits]
    assert values(restored)[0][3] == values(load("steps_from_an_unknown_node"))[0][3]


def test_copy_of_a_sampler_gets_no_link_from_what_drove_the_first_one() -> None:
    before = load("steps_from_an_unknown_node")
    left = without(convert("speed_up", before, None, here(SD15))[0], SUN)
    node(left, "KSampler")["id"] = 50
    for link in left["links"]:
        link[3] = 50 if link[3] == node(before, "KSampler")["id"] else link[3]
    restored, plan = convert("restore", left, None, here(SD15))
    assert plan.edits and "connect" not in [edit["op"] for edit in plan.edits]
    assert values(restored)[0][3] == values(before)[0][3]


@pytest.mark.parametrize(
    "note", [7, {"former": 7, "plugs": 7}, {"plugs": {"steps": [[], {}, 0, 5]}}, {"former": {"steps": []}}]
)
def test_malformed_notes_are_ignored(note: Any) -> None:
    left = without(convert("speed_up", load("text_to_image"), None, here(SD15))[0], SUN)
    for name in ("sun_restore", "sun_negative_restore"):
        node(left, "KSampler")["properties"][name] = note
    assert badges(left) == {} and make_plan("restore", left).edits == []


def test_one_restore_brings_back_the_cfg_from_before_an_earlier_negative_that_was_deleted() -> None:
    again, _ = convert("negative", without(counting(), NEGATIVE), None, here(SD15))
    assert node(again, NEGATIVE) and values(again)[0][3] == 1
    assert same_but_for_ids(convert("restore", again, None, here(SD15))[0], at_low_cfg())


def test_one_restore_is_enough_if_the_later_negative_is_muted() -> None:
    """It ends the MODEL line now, and no more once it is gone."""
    workflow, _ = convert("negative", without(counting(), NEGATIVE), None, here(SD15))
    node(workflow, NEGATIVE)["mode"] = 2
    assert values(convert("restore", workflow, None, here(SD15))[0]) == values(at_low_cfg())


def test_negative_that_is_off_and_left_no_note_is_told_all_the_same() -> None:
    """As earlier versions put it in: its record has the CFG, for Restore."""
    workflow = off(counting(), NEGATIVE)
    del node(workflow, "KSampler")["properties"]["sun_negative_restore"]
    found = badges(workflow)
    assert len(found) == 2 and all("does not count at CFG 1" in badge["detail"] for badge in found.values())
    assert values(convert("restore", workflow, None, here(SD15))[0]) == values(at_low_cfg())


@pytest.mark.parametrize("name", ["subgraph_with_promoted_settings", "subgraph_with_proxies_of_settings"])
def test_negative_that_found_cfg_1_on_a_subgraph_does_not_keep_what_was_before_an_earlier_sun(name: str) -> None:
    left = without_inner(convert("speed_up", load(name), None, here(SD15))[0])
    counts, _ = convert("negative", left, None, here(SD15))
    assert "SUNNegative" in str(counts)
    assert same_but_for_ids(convert("restore", counts, None, here(SD15))[0], load(name))


def moved_into_a_subgraph() -> Json:
    """A sped-up sampler whose SUN stayed outside: its record names a sampler there, and the note went along."""
    alone, _ = convert("speed_up", load("text_to_image"), None, here(SD15))
    record = node(alone, SUN)["properties"]["sun_restore"]
    workflow = without_inner(convert("speed_up", load("subgraph_with_the_sampler"), None, here(SD15))[0])
    model = next(link for link in workflow["links"] if link[5] == "MODEL")
    sun = {**node(alone, SUN), "id": record["sun"]}
    sun["inputs"] = [{"name": "model", "type": "MODEL", "link": 900}]
    sun["outputs"] = [{"name": "MODEL", "type": "MODEL", "links": [model[0]]}]
    workflow["nodes"].append(sun)
    workflow["links"].append([900, *model[1:3], sun["id"], 0, "MODEL"])
    model[1:3] = sun["id"], 0
    return workflow


@pytest.mark.parametrize("is_set_since", [False, True])
def test_restore_misses_no_setting_of_a_sampler_that_was_moved_into_a_subgraph(is_set_since: bool) -> None:
    workflow = moved_into_a_subgraph()
    if is_set_since:
        workflow, _ = convert("steps_8", workflow, None, here(SD15))
    restored, plan = convert("restore", workflow, None, here(SD15))
    before, after = (one["definitions"]["subgraphs"][0] for one in (load("subgraph_with_the_sampler"), restored))
    assert node(after, "KSampler")["widgets_values"] == node(before, "KSampler")["widgets_values"]
    assert plan.detail == "KSampler (#100): steps 25, cfg 7.5, sampler_name dpmpp_2m, scheduler karras."


def test_what_one_sun_lost_is_told_beside_what_another_left() -> None:
    """The notes on the other's sampler, whose SUN was deleted, bring back as many settings as are lost here."""
    converted, _ = convert("speed_up", load("two_checkpoints"))
    kept, gone = (one for one in converted["nodes"] if one["type"] == SUN)
    left = without(converted, SUN, kept["id"])
    assert "gone" not in make_plan("restore", left).detail
    lost = {entry["node"] for entry in gone["properties"]["sun_restore"]["settings"]}
    left["nodes"] = [node for node in left["nodes"] if node["id"] not in lost]
    assert "gone" in make_plan("restore", left).detail


def test_what_is_lost_is_told_beside_settings_that_stood_on_subgraph_nodes() -> None:
    """Each of those counts once, however many nodes it stands on."""
    converted, _ = convert("speed_up", load("subgraph_with_promoted_settings_used_twice"))
    record = node(converted["definitions"]["subgraphs"][0], SUN)["properties"]["sun_restore"]
    assert "gone" not in make_plan("restore", converted).detail
    record["settings"].append({**record["settings"][0], "node": 999, "type": "KSamplerAdvanced"})
    assert "gone" in make_plan("restore", converted).detail
