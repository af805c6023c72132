"""The templates that ship: each opens and runs on the mini family, and does what it is there for."""

import copy
import json
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from workshop.server.comfy_server import ComfyServer, Run
from workshop.server.demo_models import Models
from workshop.server.example_workflows import EXAMPLES, MASKED, TITLES, example_file, examples, start_from
from workshop.server.workflows import NOTES, Workflow

from .conftest import difference, pixels

NAMES = list(TITLES)
PACK = "sun-for-comfyui"

RunOf = Callable[[str], Run]


@pytest.fixture(scope="module")
def templates(server: ComfyServer, object_info: dict[str, Any], models: Models) -> dict[str, Workflow]:
    """All of them, set to the mini family; those that start from a picture find one."""
    templates = examples(models, object_info)
    first = templates["text_to_image"]
    start_from(server, server.run(first.to_api()).pictures[first.node_id("Save picture")])
    templates["distil_your_own"].set("Train SUN Adapter", steps=2, preview_every=0, prompts=models.positive)
    return templates


@pytest.fixture(scope="module")
def run(server: ComfyServer, templates: dict[str, Workflow]) -> RunOf:
    """`run(name)` is that template's run, done once for all tests."""
    return cache(lambda name: server.run(templates[name].to_api()))


def test_every_file_has_a_title() -> None:
    assert {file.stem for file in EXAMPLES.glob("*.json")} == set(TITLES.values())


@pytest.mark.parametrize("name", NAMES)
def test_it_draws_pictures(name: str, run: RunOf) -> None:
    pictures = run(name).pictures
    assert pictures
    for picture in map(pixels, pictures.values()):
        assert picture.std() > 10, "a picture, not a flat colour"


def test_the_template_browser_lists_them_in_the_order_of_their_numbers(server: ComfyServer) -> None:
    assert server.get("/workflow_templates")[PACK] == sorted(TITLES.values())
    assert server.get("/api/workflow_templates")[PACK] == sorted(TITLES.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_template_browser_offers_it_with_a_picture(server: ComfyServer, name: str) -> None:
    assert TITLES[name] in server.get("/workflow_templates")[PACK]
    assert server.download(f"/api/workflow_templates/{PACK}/{quote(TITLES[name])}.jpg").startswith(b"\xff\xd8")


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_to_do_in_a_note_and_names_every_node(name: str) -> None:
    nodes = json.loads(example_file(name).read_text(encoding="utf-8"))["nodes"]
    assert any(node["type"] in NOTES for node in nodes)
    titles = [node["title"] for node in nodes]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_overlaps(name: str) -> None:
    nodes = json.loads(example_file(name).read_text(encoding="utf-8"))["nodes"]
    title_height = 30
    boxes = [(*n["pos"], n["pos"][0] + n["size"][0], n["pos"][1] + n["size"][1] + title_height) for n in nodes]
    for i, (left, top, right, bottom) in enumerate(boxes):
        for other_left, other_top, other_right, other_bottom in boxes[:i]:
            apart = right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top
            assert apart, nodes[i]["title"]


def test_before_after_has_the_slider_where_comfyui_has_it(server: ComfyServer, object_info: dict[str, Any]) -> None:
    name = "before_after"
    given = json.loads(server.download(f"/api/workflow_templates/{PACK}/{quote(TITLES[name])}.json"))
    has_slider = any(node["type"] == "ImageCompare" for node in given["nodes"])
    assert has_slider == ("ImageCompare" in object_info)


def test_before_after_draws_both_from_one_seed(templates: dict[str, Workflow], run: RunOf) -> None:
    before_after = templates["before_after"]
    plain, sun = (pixels(run("before_after").pictures[before_after.node_id(f"Save {w}")]) for w in ("plain", "SUN"))
    assert plain.shape == sun.shape
    alone = pixels(run("text_to_image").pictures[templates["text_to_image"].node_id("Save picture")])
    assert np.array_equal(sun, alone)
    assert difference(plain, sun) > 0


def test_inpaint_changes_only_what_is_under_the_mask(
    server: ComfyServer, templates: dict[str, Workflow], run: RunOf
) -> None:
    before = np.asarray(Image.open(server.base / "input" / MASKED), dtype=np.int16)
    after = pixels(run("inpaint").pictures[templates["inpaint"].node_id("Save picture")])
    changed = np.abs(after - before[..., :3]).mean(axis=-1)
    under_mask = before[..., 3] == 0
    far_from_it = np.zeros_like(under_mask)
    far_from_it[:4] = far_from_it[-2:] = True
    assert changed[under_mask].mean() > 4 * changed[far_from_it].mean()


def test_hires_fix_enlarges(templates: dict[str, Workflow], run: RunOf) -> None:
    pictures, hires_fix = run("hires_fix").pictures, templates["hires_fix"]
    first, second = (pixels(pictures[hires_fix.node_id(title)]) for title in ("First pass", "Save picture"))
    assert second.shape[0] > first.shape[0]


def test_the_playgrounds_four_negatives_give_four_pictures(templates: dict[str, Workflow], run: RunOf) -> None:
    playground = templates["negative_playground"]
    pictures = [
        pixels(run("negative_playground").pictures[playground.node_id(f"Save picture {n}")]) for n in range(1, 5)
    ]
    for i, picture in enumerate(pictures):
        assert all(difference(picture, other) > 1 for other in pictures[:i])


def test_the_negative_prompt_counts_at_cfg_1(
    server: ComfyServer, templates: dict[str, Workflow], models: Models
) -> None:
    template = templates["negative_prompt_at_cfg_1"]
    save, node = template.node_id("Save picture"), template.node_id("Negative Prompt at CFG 1")

    def drawn(negative: str, scale: float) -> np.ndarray:
        prompt = template.to_api()
        prompt[template.node_id("Negative prompt")]["inputs"]["text"] = negative
        prompt[node]["inputs"]["scale"] = scale
        return pixels(server.run(prompt).pictures[save])

    negated = models.changed_negative
    assert difference(drawn(negated, 1.0), drawn("", 1.0)) == 0
    assert difference(drawn(negated, 3.0), drawn(negated, 1.0)) > 1


def test_the_lora_counts(server: ComfyServer, templates: dict[str, Workflow], run: RunOf) -> None:
    with_lora = templates["lora_speed_up"]
    save = with_lora.node_id("Save picture")
    prompt = with_lora.to_api()
    prompt[with_lora.node_id("LoRA")]["inputs"]["strength_model"] = 0.0
    without = pixels(server.run(prompt).pictures[save])
    assert difference(pixels(run("lora_speed_up").pictures[save]), without) > 1


def test_the_controlnet_is_ready_but_off(templates: dict[str, Workflow], object_info: dict[str, Any]) -> None:
    ready = templates["controlnet_ready"]
    sampler = ready.node_id("KSampler")
    assert ready.to_api()[sampler]["inputs"]["positive"] == [ready.node_id("Positive prompt"), 0]
    graph = copy.deepcopy(ready.graph)
    for node in graph["nodes"]:
        node["mode"] = 0
    switched_on = Workflow(graph, object_info).to_api()
    apply = ready.node_id("Apply ControlNet")
    assert [switched_on[sampler]["inputs"][name] for name in ("positive", "negative")] == [[apply, 0], [apply, 1]]
    assert switched_on[apply]["inputs"]["control_net"] == [ready.node_id("ControlNet"), 0]
