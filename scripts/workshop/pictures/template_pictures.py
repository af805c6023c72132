"""The pictures of the template browser: what each example workflow makes, labelled if that helps."""

import io
from collections.abc import Callable

from PIL import Image

from ..server.comfy_server import ComfyServer
from ..server.demo_models import mini_family
from ..server.demonstration import queue
from ..server.example_workflows import MASKED, PAINTING, PICTURE
from ..server.workflows import Workflow
from .tiles import GAP, sheet, tile

SIZE = 400  # pixels, about what the template browser shows
HALF = (SIZE - GAP) // 2
MASK = "#3c3f46"

Results = Callable[[str], bytes]
"""The PNG that a node of a workflow made, by the node's title."""


def run(server: ComfyServer, workflow: Workflow) -> Results:
    made = queue(server, workflow, "a thumbnail")
    return lambda title: made.pictures[workflow.node_id(title)]


def halves(left: bytes, right: bytes, *labels: str) -> Image.Image:
    pngs = (left, right)
    return sheet([[tile(png, HALF, SIZE, label) for png, label in zip(pngs, labels or ("", ""), strict=True)]])


def text_to_image(server: ComfyServer, workflow: Workflow) -> Image.Image:
    return tile(run(server, workflow)("Save picture"), SIZE, SIZE)


def before_after(server: ComfyServer, workflow: Workflow) -> Image.Image:
    made = run(server, workflow)
    return halves(made("Save plain"), made("Save SUN"), "25 steps, CFG", "4 steps, SUN")


def image_to_image(server: ComfyServer, workflow: Workflow) -> Image.Image:
    return halves(input_picture(server, PICTURE), run(server, workflow)("Save picture"), "from", "to, in 4 steps")


def inpaint(server: ComfyServer, workflow: Workflow) -> Image.Image:
    return halves(input_picture(server, MASKED), run(server, workflow)("Save picture"), "mask", "filled, in 4 steps")


def controlnet_ready(server: ComfyServer, workflow: Workflow) -> Image.Image:
    return tile(run(server, workflow)("Save picture"), SIZE, SIZE, "ready for a ControlNet")


def lora_speed_up(server: ComfyServer, workflow: Workflow) -> Image.Image:
    pngs = []
    for strength in (0.0, 1.0):
        workflow.set("LoRA", strength_model=strength)
        pngs.append(run(server, workflow)("Save picture"))
    return halves(pngs[0], pngs[1], "SUN", "LoRA and SUN")


def hires_fix(server: ComfyServer, workflow: Workflow) -> Image.Image:
    made = run(server, workflow)
    return halves(made("First pass"), made("Save picture"), "first pass", "second pass")


def negative_playground(server: ComfyServer, workflow: Workflow) -> Image.Image:
    made = run(server, workflow)
    tiles = [
        tile(made(f"Save picture {number}"), HALF, HALF, f"not: {negative}" if negative else "no negative")
        for number, negative in enumerate(mini_family().negatives, 1)
    ]
    return sheet([tiles[:2], tiles[2:]])


def negative_prompt_at_cfg_1(server: ComfyServer, workflow: Workflow) -> Image.Image:
    workflow.set("Negative prompt", text=mini_family().changed_negative)
    pngs = []
    for scale in (1.0, 3.0):
        workflow.set("Negative Prompt at CFG 1", scale=scale)
        pngs.append(run(server, workflow)("Save picture"))
    return halves(pngs[0], pngs[1], "not yellow: ignored", "it counts")


def realtime_painting(server: ComfyServer, workflow: Workflow) -> Image.Image:
    return halves(input_picture(server, PAINTING), run(server, workflow)("Live picture"), "you paint", "it draws")


def distil_your_own(server: ComfyServer, workflow: Workflow) -> Image.Image:
    made = run(server, workflow)
    picture = tile(made("Save picture"), SIZE, SIZE, "an adapter of your own")
    curve = Image.open(io.BytesIO(made("How the loss fell"))).resize((HALF, HALF * 3 // 5), Image.Resampling.LANCZOS)
    picture.paste(curve, (SIZE - HALF - 2 * GAP, 2 * GAP))
    return picture


def input_picture(server: ComfyServer, name: str) -> bytes:
    """Open a picture of ComfyUI's folder input, with its mask in grey."""
    picture = Image.open(server.base / "input" / name).convert("RGBA")
    shown = Image.new("RGB", picture.size, MASK)
    shown.paste(picture, mask=picture.getchannel("A"))
    written = io.BytesIO()
    shown.save(written, "PNG")
    return written.getvalue()


TEMPLATE_PICTURES: dict[str, Callable[[ComfyServer, Workflow], Image.Image]] = {
    make.__name__: make
    for make in (
        text_to_image,
        before_after,
        image_to_image,
        inpaint,
        controlnet_ready,
        lora_speed_up,
        hires_fix,
        negative_playground,
        negative_prompt_at_cfg_1,
        realtime_painting,
        distil_your_own,
    )
}
