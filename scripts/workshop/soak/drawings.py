"""What the soak draws: example workflows with prompts, seeds, sizes and adapters that follow from a number."""

import random
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from ..server.demo_models import Models
from ..server.example_workflows import examples, set_seed
from ..server.workflows import Workflow

WORKFLOWS = ("text_to_image", "image_to_image", "inpaint", "lora_speed_up", "hires_fix", "negative_playground")
OTHER_ADAPTER = "half_as_strong.safetensors"
THINGS = ("mushroom", "house", "boat", "fish", "rocket", "tree", "cat")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
PLACES = ("in a meadow", "at night", "at sunset", "in the snow", "in the desert")
SIZES = (64, 80, 96, 112, 128)


def drawing(number: int, models: Models, object_info: dict[str, Any]) -> Workflow:
    """Return the drawing of that number: the same number gives the same workflow."""
    rng = random.Random(f"drawing {number}")
    name = rng.choice(WORKFLOWS)
    workflow = examples(models, object_info)[name]
    titles = workflow.titles()
    workflow.set("Positive prompt", text=f"a {rng.choice(COLOURS)} {rng.choice(THINGS)} {rng.choice(PLACES)}")
    if "Negative prompt" in titles:
        workflow.set("Negative prompt", text=", ".join(rng.sample(COLOURS, rng.randrange(3))))
    adapter = rng.choice((models.adapter.name, OTHER_ADAPTER))
    workflow.set("SUN 4-Step Speed-Up", adapter_name=adapter, strength=rng.choice((0.5, 1.0)))
    if name in ("text_to_image", "lora_speed_up"):
        width, height = rng.choice(SIZES), rng.choice(SIZES)
        workflow.set("Picture size", width=width, height=height, batch_size=rng.choice((1, 1, 3)))
    set_seed(workflow, rng.getrandbits(32))
    return workflow


def long_drawing(models: Models, object_info: dict[str, Any], seed: int) -> Workflow:
    """Return a workflow that takes long enough to be interrupted while SUN samples."""
    workflow = examples(models, object_info)["text_to_image"]
    workflow.set("Picture size", batch_size=8)
    workflow.set("KSampler", steps=30)
    set_seed(workflow, seed)
    return workflow


def write_adapters(folder: Path, models: Models) -> None:
    """Write both adapters that the drawings name, anew: ComfyUI then loads them again."""
    weights = load_file(models.adapter)
    for name, strength in ((models.adapter.name, 1.0), (OTHER_ADAPTER, 0.5)):
        (folder / name).unlink(missing_ok=True)
        scaled = {key: value * strength if key.endswith("_alpha") else value for key, value in weights.items()}
        save_file(scaled, folder / name)
