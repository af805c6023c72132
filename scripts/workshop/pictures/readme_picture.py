"""The README's picture: four methods side by side, each with the same four prompts, every picture at its own size."""

from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFont

from .. import REPOSITORY
from ..server.comfy_server import ComfyServer
from ..server.demo_models import Models
from ..server.example_workflows import example_file, set_to
from ..server.workflows import Workflow
from .help_pictures import Ids, Prompt, sampler
from .tiles import INK, PAPER, sheet, whole

README_PICTURE = REPOSITORY / "docs" / "images" / "comparison.jpg"
PROMPTS = (
    ("a mushroom in a meadow", "yellow"),
    ("a house at sunset", "green"),
    ("a boat at night", "yellow"),
    ("a cat in the snow", "yellow"),
)
"""A prompt that leaves the colour open, and the colour that it comes out in without a negative."""
SEEDS = (3, 4, 5, 6)
GAP, CAPTION = 14, 52  # pixels: between methods; under each
FAINT = "#b8bcc4"


def comparison(server: ComfyServer, models: Models) -> Image.Image:
    """Draw the picture."""
    teacher = sampler(sun=False, steps=25, cfg=models.cfg, sampler_name="dpmpp_2m", scheduler="normal")
    panels = [
        panel(server, models, "25 steps, CFG", "50 evaluations", teacher),
        panel(server, models, "4 steps, SUN", "4 evaluations, no CFG", sampler()),
        panel(server, models, "4 steps, no SUN", "the negative prompt is ignored", sampler(sun=False, cfg=1.0)),
        panel(server, models, "4 steps, SUN", "without a negative prompt", sampler(), negative=False),
    ]
    width = sum(each.width for each in panels) + (len(panels) - 1) * GAP
    made = Image.new("RGB", (width, panels[0].height), PAPER)
    left = 0
    for each in panels:
        made.paste(each, (left, 0))
        left += each.width + GAP
    return made


def panel(
    server: ComfyServer,
    models: Models,
    title: str,
    note: str,
    change: Callable[[Prompt, Ids], None],
    negative: bool = True,
) -> Image.Image:
    """Draw all prompts with one method, and write its title and a note under them."""
    workflow = Workflow.read(example_file("text_to_image"), server.get("/object_info"))
    set_to(models, workflow)
    ids, pictures = Ids(workflow), []
    for (positive, colour), seed in zip(PROMPTS, SEEDS, strict=True):
        workflow.set("Positive prompt", text=positive)
        workflow.set("Negative prompt", text=colour if negative else "")
        workflow.set("KSampler", seed=seed)
        prompt = workflow.to_api()
        change(prompt, ids)
        pictures.append(whole(server.run(prompt).pictures[ids.save]))
    drawn = sheet([pictures[:2], pictures[2:]])
    made = Image.new("RGB", (drawn.width, drawn.height + CAPTION), PAPER)
    made.paste(drawn)
    pen, middle = ImageDraw.Draw(made), drawn.width / 2
    pen.text((middle, drawn.height + 18), title, INK, ImageFont.load_default(17), anchor="mm")
    pen.text((middle, drawn.height + 38), note, FAINT, ImageFont.load_default(13), anchor="mm")
    return made
