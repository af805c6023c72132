"""Samplers that start late in their schedule, without a sampler before them: they keep their strength."""

import copy
from typing import Any

import pytest
from sun_pack.conversion.check import check
from sun_pack.conversion.models import Adapter, Installed
from sun_pack.conversion.plan import convert, read

from .compare import canonical
from .make_corpus import CHECKPOINT, Graph
from .test_pack_samplers import case

Json = dict[str, Any]


def advanced(steps: int, start: int, end: int = 10_000) -> Json:
    workflow = case("B_ksampler_advanced_image_to_image")
    workflow["5"]["inputs"] |= {"steps": steps, "start_at_step": start, "end_at_step": end}
    return workflow


def split(steps: int, at: int, part: int = 1) -> Json:
    workflow = case("B2_split_sigmas_image_to_image")
    workflow["6"]["inputs"]["steps"] = steps
    workflow["7"]["inputs"]["step"] = at
    workflow["10"]["inputs"]["sigmas"] = ["7", part]
    return workflow


@pytest.mark.parametrize(
    ("steps", "start", "expected"),
    [
        (20, 16, (20, 16)),
        (25, 15, (10, 6)),
        (30, 27, (40, 36)),
        (20, 8, (7, 3)),
        (20, 7, (4, 1)),
        (20, 0, (4, 0)),
        (20_000, 19_999, (4, 3)),
    ],
    ids=["a fifth", "two fifths", "a tenth", "60 percent", "more than 60 percent", "all", "too small a part"],
)
def test_share_of_the_schedule_is_kept(steps: int, start: int, expected: tuple[int, int]) -> None:
    converted, _ = convert("speed_up", advanced(steps, start))
    inputs = converted["5"]["inputs"]
    assert (inputs["steps"], inputs["start_at_step"]) == expected
    assert convert("restore", converted)[0] == advanced(steps, start)


@pytest.mark.parametrize(("at", "expected"), [(16, (20, 16)), (10, (8, 4)), (4, (4, 1))])
def test_second_part_of_split_sigmas_is_kept(at: int, expected: tuple[int, int]) -> None:
    converted, _ = convert("speed_up", split(20, at))
    assert (converted["6"]["inputs"]["steps"], converted["7"]["inputs"]["step"]) == expected
    assert convert("restore", converted)[0] == split(20, at)


def test_first_part_alone_and_a_part_in_the_middle_are_cut_as_before() -> None:
    assert convert("speed_up", split(20, 15, 0))[0]["7"]["inputs"]["step"] == 3
    inputs = convert("speed_up", advanced(20, 10, 15))[0]["5"]["inputs"]
    assert (inputs["steps"], inputs["start_at_step"], inputs["end_at_step"]) == (4, 2, 3)


def test_part_that_goes_on_with_another_sampler_is_cut_with_it() -> None:
    workflow = advanced(20, 16)
    first = copy.deepcopy(workflow["5"])
    first["inputs"] |= {"start_at_step": 0, "end_at_step": 16, "return_with_leftover_noise": "enable"}
    workflow["50"] = first
    workflow["5"]["inputs"] |= {"latent_image": ["50", 0], "add_noise": "disable"}
    inputs = convert("speed_up", workflow)[0]["5"]["inputs"]
    assert (inputs["steps"], inputs["start_at_step"]) == (4, 3)


def test_adapter_for_more_steps_gets_these_after_the_start() -> None:
    installed = Installed([Adapter("sun_8.safetensors", steps=8)])
    inputs = convert("speed_up", advanced(20, 16), None, installed)[0]["5"]["inputs"]
    assert (inputs["steps"], inputs["start_at_step"]) == (40, 32)


def test_summary_and_face_count_the_steps_that_run() -> None:
    installed = Installed([Adapter("sun.safetensors", family="Stable Diffusion 1.x")])
    converted, plan = convert("speed_up", advanced(20, 16), None, installed)
    assert plan.summary == "KSamplerAdvanced (#5) now needs 4 steps and no CFG pass"
    (entry,) = check(read(converted), installed)
    assert entry["face"][-1] == "KSamplerAdvanced (#5): 4 of 20 steps, automatic" and entry["badge"] is None
    converted["5"]["inputs"] |= {"steps": 100, "start_at_step": 60}
    (entry,) = check(read(converted), installed)
    assert entry["badge"]["text"] == "100 steps"
    fixed = convert("fix", converted, None, installed)[0]["5"]["inputs"]
    assert (fixed["steps"], fixed["start_at_step"]) == (10, 6)


def chained_splits(first: int, second: int, part: int) -> dict[str, Any]:
    """Draw three samplers on one schedule of 20 steps; the second SplitSigmas cuts output `part` of the first."""
    g = Graph()
    ckpt = g.node("CheckpointLoaderSimple", [CHECKPOINT])
    latent = g.node("EmptyLatentImage", [512, 512, 1])
    guider = g.node("CFGGuider", [7.5], model=(ckpt, 0))
    choice = g.node("KSamplerSelect", ["euler"])
    scheduler = g.node("BasicScheduler", ["normal", 20, 1.0], model=(ckpt, 0))
    one = g.node("SplitSigmas", [first], sigmas=(scheduler, 0))
    two = g.node("SplitSigmas", [second], sigmas=(one, part))
    sigmas = [(two, 0), (two, 1), (one, 1)] if part == 0 else [(one, 0), (two, 0), (two, 1)]
    for each in sigmas:
        latent = g.node(
            "SamplerCustomAdvanced", guider=(guider, 0), sampler=(choice, 0), sigmas=each, latent_image=(latent, 0)
        )
    return g.workflow()


@pytest.mark.parametrize(("first", "second", "part", "expected"), [
    (10, 5, 1, [2, 1]), (5, 10, 1, [1, 2]), (15, 5, 0, [3, 1]), (10, 9, 1, [2, 1]),
])  # fmt: skip
def test_second_cut_is_scaled_from_where_its_part_begins(
    first: int, second: int, part: int, expected: list[int]
) -> None:
    before = chained_splits(first, second, part)
    after, _ = convert("speed_up", before)
    assert [node["widgets_values"][0] for node in after["nodes"] if node["type"] == "SplitSigmas"] == expected
    assert canonical(convert("restore", after)[0]) == canonical(before)


def test_splits_in_a_circle_are_survived() -> None:
    workflow = chained_splits(10, 5, 1)
    one, two = (node for node in workflow["nodes"] if node["type"] == "SplitSigmas")
    link = next(entry for entry in workflow["links"] if entry[0] == one["inputs"][0]["link"])
    link[1:3] = [two["id"], 1]
    assert convert("speed_up", workflow)[1].edits == []
