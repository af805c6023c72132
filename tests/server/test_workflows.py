"""The main job through the server's API, with the workflows that ship."""

import io
from typing import Any

import numpy as np
from PIL import Image
from workshop.server.comfy_server import ComfyServer
from workshop.server.demo_models import Models
from workshop.server.workflows import Workflow

from .conftest import difference, example, pixels, render

NODES = {
    *("SUNSpeedUp", "SUNLoadAdapter", "SUNApply", "SUNSampler", "SUNScheduler", "SUNAdapterInfo"),
    *("SUNTrain", "SUNSaveAdapter", "SUNNegative"),
}


def test_before_after_draws_two_pictures_of_the_right_size(
    server: ComfyServer, object_info: dict[str, Any], models: Models
) -> None:
    workflow = example("before_after", object_info, models)
    run = server.run(workflow.to_api())
    for title in ("Save plain", "Save SUN"):
        picture = pixels(run.pictures[workflow.node_id(title)])
        assert picture.shape == (models.height, models.width, 3)
        assert picture.std() > 10, "a picture, not a flat colour"


def test_image_to_image_keeps_the_composition(
    server: ComfyServer, object_info: dict[str, Any], models: Models, workflow: Workflow
) -> None:
    run = server.run(workflow.to_api())
    png = run.pictures[workflow.node_id("Save picture")]
    (server.base / "input" / "example.png").write_bytes(png)
    changed = example("image_to_image", object_info, models)
    changed.set("Positive prompt", text=models.positive)
    changed.set("KSampler", denoise=0.25)
    same_prompt = render(server, changed)
    changed.set("Positive prompt", text=models.image_positive)
    changed.set("KSampler", denoise=1.0)
    redrawn = render(server, changed)
    assert difference(same_prompt, pixels(png)) < 0.5 * difference(redrawn, pixels(png))


def test_a_second_sun_node_with_the_same_settings_runs_itself(server: ComfyServer, workflow: Workflow) -> None:
    """A MODEL from the cache would tell of its runs on the node that made it."""
    prompt = workflow.to_api()
    server.run(prompt)
    number, other = workflow.node_id("SUN 4-Step Speed-Up"), "900"
    prompt[other] = prompt.pop(number)
    sampler = prompt[workflow.node_id("KSampler")]["inputs"]
    sampler |= {"model": [other, 0], "seed": sampler["seed"] + 1}
    assert other in server.run(prompt).seconds


def test_negative_prompt_of_an_ordinary_ksampler_works_at_cfg_1(
    server: ComfyServer, workflow: Workflow, models: Models
) -> None:
    workflow.set("KSampler", cfg=1.0)
    picture = render(server, workflow)
    workflow.set("Negative prompt", text=models.changed_negative)
    assert difference(render(server, workflow), picture) > 1


def test_negative_prompt_is_without_effect_at_cfg_1_where_sun_is_absent(
    server: ComfyServer, workflow: Workflow, models: Models
) -> None:
    """What the test above would show if SUN did nothing."""
    workflow.set("KSampler", cfg=1.0)
    prompts = [workflow.to_api()]
    workflow.set("Negative prompt", text=models.changed_negative)
    prompts.append(workflow.to_api())
    pictures = []
    for prompt in prompts:
        prompt[workflow.node_id("KSampler")]["inputs"]["model"] = [workflow.node_id("Checkpoint"), 0]
        pictures.append(pixels(server.run(prompt).pictures[workflow.node_id("Save picture")]))
    assert np.array_equal(*pictures)


def test_a_ksampler_left_at_its_usual_settings_gives_the_same_picture(server: ComfyServer, workflow: Workflow) -> None:
    picture = render(server, workflow)
    workflow.set("KSampler", cfg=7.0, sampler_name="euler_ancestral", scheduler="karras")
    assert np.array_equal(render(server, workflow), picture)


def test_strength_0_gives_the_plain_picture(server: ComfyServer, workflow: Workflow) -> None:
    workflow.set("SUN 4-Step Speed-Up", strength=0.0)
    without_effect = render(server, workflow)
    prompt = workflow.to_api()
    prompt[workflow.node_id("KSampler")]["inputs"]["model"] = [workflow.node_id("Checkpoint"), 0]
    plain = pixels(server.run(prompt).pictures[workflow.node_id("Save picture")])
    assert np.array_equal(without_effect, plain)


def test_a_saved_image_holds_no_path_of_this_machine(server: ComfyServer, workflow: Workflow) -> None:
    """ComfyUI saves what fingerprint_inputs returns with the prompt in the image."""
    png = server.run(workflow.to_api()).pictures[workflow.node_id("Save picture")]
    (saved,) = Image.open(io.BytesIO(png)).text.values()
    assert "SUNSpeedUp" in saved and "is_changed" in saved
    assert str(server.base) not in saved


def test_adapter_info_is_shown_on_the_node(server: ComfyServer, models: Models) -> None:
    run = server.run(
        {
            "1": {"class_type": "SUNLoadAdapter", "inputs": {"adapter_name": models.adapter.name}},
            "2": {"class_type": "SUNAdapterInfo", "inputs": {"sun_adapter": ["1", 0]}},
        }
    )
    assert "cross-attention" in run.texts["2"][0].lower()


def test_all_nodes_explain_themselves(object_info: dict[str, Any]) -> None:
    assert {name for name in object_info if name.startswith("SUN")} == NODES
    for name in NODES:
        node = object_info[name]
        assert node["category"] == "SUN"
        assert node["description"]
        for section in ("required", "optional"):
            for input_name, (_, *options) in node["input"].get(section, {}).items():
                assert options and options[0].get("tooltip"), f"{name}.{input_name} has no tooltip"
