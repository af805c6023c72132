"""What the demo does beside ComfyUI's packages: serve the models, queue the workflows, show the results."""

import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import environment
from comfy_server import ComfyServer, Run, device_arguments
from comparison import Picture, side_by_side
from workflows import Workflow

MINI_FAMILY = environment.REPOSITORY / "demo" / "mini_family"
EXAMPLES = environment.REPOSITORY / "example_workflows"
PACK = "sun-for-comfyui"  # the folder in custom_nodes
OWN_WORKFLOWS = "sun-demo"  # a pack with no nodes, whose templates are the example workflows set to the demo's models
PLAIN_STEPS, SUN_STEPS = 25, 4


@dataclass(frozen=True)
class Models:
    """A checkpoint with its adapter, and what to draw with them: pixels, guidance scale, prompts."""

    checkpoint: Path
    adapter: Path
    width: int
    height: int
    cfg: float
    seed: int
    positive: str
    negative: str
    changed_negative: str
    image_positive: str  # for image to image, over the picture that `positive` gave
    note: str = ""  # what the times do not show


def mini_family() -> Models:
    """The miniature Stable Diffusion of this repository."""
    chosen = json.loads((MINI_FAMILY / "defaults.json").read_text(encoding="utf-8"))
    weights = MINI_FAMILY / "weights"
    return Models(
        checkpoint=weights / chosen["checkpoint"],
        adapter=weights / chosen["adapter"],
        width=chosen["width"],
        height=chosen["height"],
        cfg=chosen["cfg"],
        seed=chosen["seed"],
        positive=chosen["positive"],
        negative=chosen["negative"],
        changed_negative=chosen["changed_negative"],
        image_positive=chosen["image_positive"],
        note="ComfyUI's own work counts beside so small a model; scripts/bench.py measures a full-size one.",
    )


def full_size(checkpoint: Path, adapter: Path) -> Models:
    """A Stable Diffusion 1.5 checkpoint of the user's."""
    return Models(
        checkpoint=checkpoint,
        adapter=adapter,
        width=512,
        height=512,
        cfg=7.0,
        seed=42,
        positive="a cottage by a lake, flowers, mountains, oil painting",
        negative="people, text, blurry",
        changed_negative="flowers, mountains, people, text, blurry",
        image_positive="a cottage by a lake in winter, snow, oil painting",
    )


def run(models: Models, output: Path, port: int | None, serve: bool) -> None:
    """Make the pictures, the side-by-side and the table; with `serve`, stay until Ctrl+C.

    Raises ServerError, WorkflowError, or OSError where `output` cannot be written.
    """
    output.mkdir(parents=True, exist_ok=True)
    with serving(models, port) as (server, workflows):
        for name in ("text_to_image", "image_to_image"):  # first: quick, and they tell if the adapter does not fit
            (output / f"{name}.png").write_bytes(draw(server, workflows[name], name.replace("_", " ")))
        pictures = compare(models, server, workflows["before_after"])
        for picture in pictures:
            (output / picture.name).write_bytes(picture.png)
        side_by_side(pictures, models.positive).save(output / "side_by_side.png")
        print(f"\n{table(pictures)}\n{models.note}\n\nThe pictures are in {output}; open side_by_side.png first.")
        if serve:
            page = f"{server.url}/?template=before_after&source={OWN_WORKFLOWS}"
            print(f"\nComfyUI is running: {page}")
            print(f"All workflows are under Templates, {OWN_WORKFLOWS}. End it with Ctrl+C.", flush=True)
            server.wait()


@contextlib.contextmanager
def serving(models: Models, port: int | None = None) -> Iterator[tuple[ComfyServer, dict[str, Workflow]]]:
    """A server with this pack and `models`, and the example workflows set to them."""
    base = base_folder()
    fill(base, models)
    print("Starting ComfyUI ...", flush=True)
    with ComfyServer(environment.comfyui_path(), base, port, device_arguments()) as server:
        object_info = server.get("/object_info")
        workflows = {file.stem: Workflow.read(file, object_info) for file in sorted(EXAMPLES.glob("*.json"))}
        for name, workflow in workflows.items():
            set_to(models, workflow)
            workflow.write(own_workflows(base) / f"{name}.json")
        yield server, workflows


def base_folder() -> Path:
    """ComfyUI's --base-directory for this checkout: nothing of a user's own ComfyUI is touched."""
    key = hashlib.sha256(str(environment.REPOSITORY).encode()).hexdigest()[:16]
    return environment.cache_folder() / f"demo-{key}"


def fill(base: Path, models: Models) -> None:
    """Put this pack, the mini family's, one for our workflows, and `models` where ComfyUI looks for them."""
    for rebuilt in ("custom_nodes", "models"):
        shutil.rmtree(base / rebuilt, ignore_errors=True)
    link(environment.REPOSITORY, base / "custom_nodes" / PACK)
    link(MINI_FAMILY, base / "custom_nodes" / "sun-mini-family")
    own_workflows(base).mkdir(parents=True)
    (own_workflows(base).parent / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n", encoding="utf-8")
    link(models.checkpoint, base / "models" / "checkpoints" / models.checkpoint.name)
    link(models.adapter, base / "models" / "sun" / models.adapter.name)


def own_workflows(base: Path) -> Path:
    """The folder whose workflows the page's template browser shows under OWN_WORKFLOWS."""
    return base / "custom_nodes" / OWN_WORKFLOWS / "example_workflows"


def link(source: Path, target: Path) -> None:
    """Make `source` appear at `target`, by a copy where the system allows no symbolic links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(".git", "build", "output", "__pycache__"))
        else:
            shutil.copyfile(source, target)


def set_to(models: Models, workflow: Workflow) -> None:
    """Choose `models`, their picture size, guidance scale and prompts in an example workflow."""
    workflow.set("Checkpoint", ckpt_name=models.checkpoint.name)
    workflow.set("SUN 4-Step Speed-Up", adapter_name=models.adapter.name)
    workflow.set("Picture size", width=models.width, height=models.height)
    workflow.set("Negative prompt", text=models.negative)
    changes_a_picture = "Picture to change" in workflow.titles()
    workflow.set("Positive prompt", text=models.image_positive if changes_a_picture else models.positive)
    set_seed(workflow, models.seed)
    if "Plain sampler" in workflow.titles():
        workflow.set("Plain sampler", cfg=models.cfg)


def set_seed(workflow: Workflow, seed: int) -> None:
    for title in workflow.titles():
        if "sampler" in title.lower():
            workflow.set(title, seed=seed)


def compare(models: Models, server: ComfyServer, workflow: Workflow) -> list[Picture]:
    """Plain and SUN, with the negative prompt and with the changed one, timed after a run that loads the models."""
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
    """The PNG that a workflow with one picture makes; it becomes the picture that image to image changes."""
    png = queue(server, workflow, what).pictures[workflow.node_id("Save picture")]
    (server.base / "input" / "example.png").write_bytes(png)
    return png


def queue(server: ComfyServer, workflow: Workflow, what: str) -> Run:
    """Run `workflow` with a progress bar."""
    names = {node: content["_meta"]["title"] for node, content in workflow.to_api().items()}
    made = server.run(workflow.to_api(), progress_bar(what, names))
    if sys.stdout.isatty():
        print("\r\033[K", end="")
    print(f"  done: {what}", flush=True)
    return made


def progress_bar(what: str, names: dict[str, str]) -> Callable[[str, int, int], None] | None:
    if not sys.stdout.isatty():
        return None

    def show(node: str, step: int, steps: int) -> None:
        bar = ("█" * (24 * step // steps)).ljust(24, "░")
        print(f"\r\033[K  {bar} {step}/{steps}  {names[node]}: {what}", end="", flush=True)

    return show


def table(pictures: list[Picture]) -> str:
    """The times as text: sampling alone, once everything is loaded."""
    rows = [("picture", "negative prompt", "evaluations", "sampling")]
    rows += [(p.name, p.negative, str(p.evaluations), f"{p.seconds:.2f} s") for p in pictures]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    plain = sum(p.seconds for p in pictures[0::2])
    sun = sum(p.seconds for p in pictures[1::2])
    lines.append(f"\nSUN sampled {plain / sun:.1f} times faster (warm runs: models loaded, time of the KSampler node).")
    return "\n".join(lines)
