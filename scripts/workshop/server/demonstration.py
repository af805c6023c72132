"""What the demo does beside ComfyUI's packages: serve the models, queue the workflows, show the results."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ..comfyui import device_arguments
from ..environment import alone, comfyui_path
from ..pictures.side_by_side import Picture, side_by_side
from .comfy_server import ComfyServer, Run
from .demo_models import Models
from .example_workflows import (
    OWN_WORKFLOWS,
    base_folder,
    examples,
    fill,
    own_workflows,
    set_seed,
    set_to,
    start_from,
)
from .workflows import Workflow

PLAIN_STEPS, SUN_STEPS = 25, 4


def run(models: Models, output: Path, port: int | None, serve: bool) -> None:
    """Make the pictures, the side-by-side and the table; with `serve`, stay until Ctrl+C.

    Raises ServerError, WorkflowError, or OSError if `output` cannot be written.
    """
    output.mkdir(parents=True, exist_ok=True)
    with serving(models, port) as (server, workflows):
        first = draw(server, workflows["text_to_image"], "text to image")  # quick, and tells if the adapter is wrong
        start_from(server, first)
        second = draw(server, workflows["image_to_image"], "image to image")
        (output / "text_to_image.png").write_bytes(first)
        (output / "image_to_image.png").write_bytes(second)
        before_after = workflows["before_after"]
        pictures = compare(models, server, before_after)
        for picture in pictures:
            (output / picture.name).write_bytes(picture.png)
        side_by_side(pictures, models.positive).save(output / "side_by_side.png")
        print(f"\n{table(pictures)}\n{models.note}\n\nThe pictures are in {output}; open side_by_side.png first.")
        if serve:
            set_to(models, before_after)
            tell_times(before_after, pictures[0].seconds, pictures[1].seconds)
            before_after.write(own_workflows(server.base) / "before_after.json")
            page = f"{server.url}/?template=before_after&source={OWN_WORKFLOWS}"
            print(f"\nComfyUI is running: {page}")
            print(f"All workflows are under Templates, {OWN_WORKFLOWS}. End it with Ctrl+C.", flush=True)
            server.wait()


@contextlib.contextmanager
def serving(models: Models, port: int | None = None) -> Iterator[tuple[ComfyServer, dict[str, Workflow]]]:
    """Run a server with this pack and `models`; yield it with the example workflows set to them."""
    base = base_folder()
    with alone(base.with_suffix(".lock"), "Another demo of this checkout is running: end that one first."):
        fill(base, models)
        print("Starting ComfyUI ...", flush=True)
        with ComfyServer(comfyui_path(), base, port, device_arguments()) as server:
            workflows = examples(models, server.get("/object_info"))
            for name, workflow in workflows.items():
                workflow.write(own_workflows(base) / f"{name}.json")
            yield server, workflows


def compare(models: Models, server: ComfyServer, workflow: Workflow) -> list[Picture]:
    """Draw plain and with SUN, with either negative prompt, timed after a run that loads the models."""
    plain, sun = workflow.node_id("Plain sampler"), workflow.node_id("SUN sampler")
    set_seed(workflow, models.seed + 1)
    workflow.set("Plain sampler", steps=2)
    queue(server, workflow, "warm-up")
    set_seed(workflow, models.seed)
    workflow.set("Plain sampler", steps=PLAIN_STEPS)
    pictures = []
    for negative, suffix in ((models.negative, ""), (models.changed_negative, "_changed_negative")):
        workflow.set("Negative prompt", text=negative)
        made = queue(server, workflow, f"before and after, negative prompt “{negative}”")
        pictures += [
            Picture(
                name=f"plain_{PLAIN_STEPS}_steps{suffix}.png",
                png=made.pictures[workflow.node_id("Save plain")],
                method=f"Plain, {PLAIN_STEPS} steps DPM++ 2M, CFG {models.cfg:g}",
                evaluations=2 * PLAIN_STEPS,
                negative=negative,
                seconds=made.seconds[plain],
            ),
            Picture(
                name=f"sun_{SUN_STEPS}_steps{suffix}.png",
                png=made.pictures[workflow.node_id("Save SUN")],
                method=f"SUN, {SUN_STEPS} steps, no CFG",
                evaluations=SUN_STEPS,
                negative=negative,
                seconds=made.seconds[sun],
            ),
        ]
    return pictures


def draw(server: ComfyServer, workflow: Workflow, what: str) -> bytes:
    """Return the PNG that a workflow with one picture makes."""
    return queue(server, workflow, what).pictures[workflow.node_id("Save picture")]


def queue(server: ComfyServer, workflow: Workflow, what: str) -> Run:
    """Run `workflow` with a progress bar."""
    names = {node: content["_meta"]["title"] for node, content in workflow.to_api().items()}
    made = server.run(workflow.to_api(), progress_bar(what, names))
    if sys.stdout.isatty():
        print("\r\033[K", end="")
    print(f"  done: {what}", flush=True)
    return made


def progress_bar(what: str, names: dict[str, str]) -> Callable[[str, int, int], None] | None:
    """Return a function that draws progress, or None if nobody watches; `names` gives each node's title by its id."""
    if not sys.stdout.isatty():
        return None

    def show(node: str, step: int, steps: int) -> None:
        bar = ("█" * (24 * step // steps)).ljust(24, "░")
        print(f"\r\033[K  {bar} {step}/{steps}  {names[node]}: {what}", end="", flush=True)

    return show


def tell_times(workflow: Workflow, plain: float, sun: float) -> None:
    """Write the seconds that sampling took over the two halves of the before/after workflow."""
    for group in workflow.graph["groups"]:
        seconds = {"Before": plain, "After": sun}.get(group["title"].split(":")[0])
        if seconds is not None:
            group["title"] += f", {seconds:.2f} s"


def table(pictures: list[Picture]) -> str:
    """Format the times as text: sampling alone, once everything is loaded."""
    rows = [("picture", "negative prompt", "evaluations", "sampling")]
    rows += [(p.name, p.negative, str(p.evaluations), f"{p.seconds:.2f} s") for p in pictures]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    plain = sum(p.seconds for p in pictures[0::2])
    sun = sum(p.seconds for p in pictures[1::2])
    lines.append(f"\nSUN sampled {plain / sun:.1f} times faster (warm runs: models loaded, time of the KSampler node).")
    return "\n".join(lines)
