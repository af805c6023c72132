"""The pictures of the help pages: what a setting does, and what a mistake looks like."""

import io
from collections.abc import Callable
from typing import Any

from PIL import Image

from .. import REPOSITORY
from ..server.comfy_server import ComfyServer
from ..server.demo_models import Models
from ..server.example_workflows import PICTURE, example_file, set_to
from ..server.workflows import Workflow
from .negative_curve import negative_curve
from .tiles import sheet, tile

IMAGES = REPOSITORY / "web" / "docs" / "images"
TILE, COLUMNS = 200, 3  # pixels; the help panel is narrow

Prompt = dict[str, Any]
Case = tuple[str, Callable[[Prompt, "Ids"], None]]
"""A label, and what it changes in the queued text to image workflow."""


class Ids:
    """The node ids of the text to image workflow."""

    def __init__(self, workflow: Workflow) -> None:
        titles = ("Checkpoint", "SUN 4-Step Speed-Up", "KSampler", "Positive prompt", "Save picture")
        self.checkpoint, self.sun, self.sampler, self.positive, self.save = map(workflow.node_id, titles)


def cases(server: ComfyServer, models: Models, *variants: Case) -> Image.Image:
    """Draw a tile for each variant of the text to image workflow; its negative prompt shows if it is ignored."""
    workflow = Workflow.read(example_file("text_to_image"), server.get("/object_info"))
    set_to(models, workflow)
    workflow.set("Negative prompt", text=models.changed_negative)
    ids = Ids(workflow)
    tiles = []
    for label, change in variants:
        prompt = workflow.to_api()
        change(prompt, ids)
        tiles.append(tile(server.run(prompt).pictures[ids.save], TILE, TILE + 28, label))
    return sheet([tiles[i : i + COLUMNS] for i in range(0, len(tiles), COLUMNS)])


def sampler(sun: bool = True, **values: Any) -> Callable[[Prompt, Ids], None]:
    """Set inputs of the KSampler; without `sun` it samples the plain checkpoint."""

    def change(prompt: Prompt, ids: Ids) -> None:
        prompt[ids.sampler]["inputs"] |= values
        if not sun:
            prompt[ids.sampler]["inputs"]["model"] = [ids.checkpoint, 0]

    return change


def speed_up(values: dict[str, Any], **sampler_values: Any) -> Callable[[Prompt, Ids], None]:
    """Set inputs of SUN 4-Step Speed-Up and of the KSampler."""

    def change(prompt: Prompt, ids: Ids) -> None:
        prompt[ids.sun]["inputs"] |= values
        prompt[ids.sampler]["inputs"] |= sampler_values

    return change


def apply(models: Models, **values: Any) -> Callable[[Prompt, Ids], None]:
    """Replace SUN 4-Step Speed-Up by Apply SUN Adapter."""
    defaults = {
        "negative_strength": 1.0,
        "positive_strength": 1.0,
        "start_percent": 0.0,
        "end_percent": 1.0,
        "settings": "automatic",
    }

    def change(prompt: Prompt, ids: Ids) -> None:
        prompt["adapter"] = {"class_type": "SUNLoadAdapter", "inputs": {"adapter_name": models.adapter.name}}
        inputs = defaults | values | {"model": [ids.checkpoint, 0], "sun_adapter": ["adapter", 0]}
        prompt[ids.sun] = {"class_type": "SUNApply", "inputs": inputs}

    return change


def negative(**values: Any) -> Callable[[Prompt, Ids], None]:
    """Replace SUN 4-Step Speed-Up by Negative Prompt at CFG 1, in 25 steps."""
    defaults = {
        "scale": 3.0,
        "tau": 5.0,
        "alpha": 0.5,
        "start_percent": 0.0,
        "end_percent": 1.0,
        "cfg": "automatic",
    }

    def change(prompt: Prompt, ids: Ids) -> None:
        inputs = defaults | values | {"model": [ids.checkpoint, 0]}
        prompt[ids.sun] = {"class_type": "SUNNegative", "inputs": inputs}
        prompt[ids.sampler]["inputs"] |= {"steps": 25, "sampler_name": "dpmpp_2m", "scheduler": "normal"}

    return change


def sun_sampler(models: Models, **values: Any) -> Callable[[Prompt, Ids], None]:
    """Replace the KSampler by KSampler (SUN 4-Step); with `denoise` it starts from the picture in the folder input."""

    def change(prompt: Prompt, ids: Ids) -> None:
        old = prompt[ids.sampler]["inputs"]
        kept = {name: old[name] for name in ("model", "seed", "positive", "negative", "latent_image")}
        inputs = {"steps": 4, "sampler_name": "ddim", "denoise": 1.0} | kept | values
        prompt[ids.sampler] = {"class_type": "SUNSampler", "inputs": inputs}
        if "denoise" in values:
            prompt["picture"] = {"class_type": "LoadImage", "inputs": {"image": PICTURE}}
            encode = {"pixels": ["picture", 0], "vae": [ids.checkpoint, 2]}
            prompt["encode"] = {"class_type": "VAEEncode", "inputs": encode}
            inputs["latent_image"] = ["encode", 0]
            prompt[ids.positive]["inputs"]["text"] = models.image_positive

    return change


def what_sun_does(server: ComfyServer, models: Models) -> Image.Image:
    return cases(
        server,
        models,
        ("25 steps, CFG, no SUN", sampler(sun=False, steps=25, cfg=models.cfg, sampler_name="dpmpp_2m")),
        ("4 steps, no SUN", sampler(sun=False, cfg=1.0)),
        ("4 steps, SUN", sampler()),
    )


def strength(server: ComfyServer, models: Models) -> Image.Image:
    strengths = (0.0, 0.5, 0.8, 1.0, 1.5, 2.0)
    return cases(server, models, *((f"strength {s:g}", speed_up({"strength": s})) for s in strengths))


def mistakes(server: ComfyServer, models: Models) -> Image.Image:
    own = {"settings": "from sampler"}
    return cases(
        server,
        models,
        ("no SUN, CFG 1", sampler(sun=False, cfg=1.0)),
        ("no SUN, CFG 7", sampler(sun=False, cfg=7.0)),
        ("strength 2", speed_up({"strength": 2.0})),
        ("from sampler, CFG 7", speed_up(own, cfg=7.0)),
        ("from sampler, ancestral", speed_up(own, sampler_name="euler_ancestral", scheduler="karras")),
        ("steps 25", sampler(steps=25)),
    )


def negative_strength(server: ComfyServer, models: Models) -> Image.Image:
    strengths = (0.0, 1.0, 1.5)
    return cases(server, models, *((f"negative {s:g}", apply(models, negative_strength=s)) for s in strengths))


def negative_scale(server: ComfyServer, models: Models) -> Image.Image:
    """Show what the scale does, and what all three settings do at their ends."""
    scales = [(f"scale {s:g}", negative(scale=s)) for s in (1.0, 2.0, 3.0, 5.0, 20.0)]
    return cases(server, models, *scales, ("20, tau 20, alpha 1", negative(scale=20.0, tau=20.0, alpha=1.0)))


def positive_strength(server: ComfyServer, models: Models) -> Image.Image:
    strengths = (0.0, 1.0, 2.0)
    return cases(server, models, *((f"positive {s:g}", apply(models, positive_strength=s)) for s in strengths))


def percent(server: ComfyServer, models: Models) -> Image.Image:
    ranges = ((0.0, 1.0), (0.0, 0.5), (0.5, 1.0))
    return cases(
        server, models, *((f"{a:g} to {b:g}", apply(models, start_percent=a, end_percent=b)) for a, b in ranges)
    )


def steps(server: ComfyServer, models: Models) -> Image.Image:
    return cases(server, models, *((f"steps {n}", sun_sampler(models, steps=n)) for n in (1, 2, 3, 4, 8, 25)))


def denoise(server: ComfyServer, models: Models) -> Image.Image:
    return cases(server, models, *((f"denoise {d:g}", sun_sampler(models, denoise=d)) for d in (0.3, 0.6, 0.9)))


def scheduler(server: ComfyServer, models: Models) -> Image.Image:
    """Compare schedulers; at 4 steps `simple` has SUN Scheduler's sigmas."""
    own = {"settings": "from sampler"}
    names = {"SUN Scheduler": "simple", "karras": "karras", "exponential": "exponential"}
    return cases(server, models, *((label, speed_up(own, scheduler=name)) for label, name in names.items()))


def loss(server: ComfyServer, models: Models) -> Image.Image:
    workflow = Workflow.read(example_file("distil_your_own"), server.get("/object_info"))
    set_to(models, workflow)
    png = server.run(workflow.to_api()).pictures[workflow.node_id("How the loss fell")]
    return Image.open(io.BytesIO(png)).convert("RGB")


HELP_PICTURES: dict[str, Callable[[ComfyServer, Models], Image.Image]] = {
    make.__name__: make
    for make in (
        what_sun_does,
        strength,
        mistakes,
        negative_strength,
        negative_scale,
        negative_curve,
        positive_strength,
        percent,
        steps,
        denoise,
        scheduler,
        loss,
    )
}
