"""What the demo does beside ComfyUI's packages: serve the models, queue the workflows, show the results."""

import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import environment
from comfy_server import ComfyServer, Run, device_arguments
from comparison import Picture, side_by_side
from input_pictures import painting, with_mask
from workflows import Workflow

MINI_FAMILY = environment.REPOSITORY / "demo" / "mini_family"
EXAMPLES = environment.REPOSITORY / "example_workflows"
PACK = "sun-for-comfyui"  # the folder in custom_nodes
WITH_SLIDER = EXAMPLES / "with_slider"  # what takes the place of an example where ComfyUI has ImageCompare
OWN_WORKFLOWS = "sun-demo"  # a pack with no nodes, whose templates are the example workflows set to the demo's models
PAINTING, PICTURE, MASKED = "painting.png", "example.png", "example_with_mask.png"  # in ComfyUI's folder input
PLAIN_STEPS, SUN_STEPS = 25, 4


@dataclass(frozen=True)
class Models:
    """A checkpoint with its adapter and perhaps a LoRA, and what to draw with them: pixels, guidance scale, prompts."""

    checkpoint: Path
    adapter: Path
    lora: Path | None
    width: int
    height: int
    cfg: float
    seed: int
    positive: str
    negative: str
    changed_negative: str
    negatives: Sequence[str]  # four that make a difference, for the negative-prompt playground
    image_positive: str  # for image to image, over the picture that `positive` gave
    repaint_positive: str  # for inpainting, in the middle of that picture
    painting_positive: str  # over the rough painting
    first_pass: int  # pixels of the hires fix's first pass
    enlarge: float  # and how much larger the second one is
    training: dict[str, Any]  # settings of Train SUN Adapter other than the workflow's
    note: str = ""  # what the times do not show


def mini_family() -> Models:
    """The miniature Stable Diffusion of this repository."""
    chosen = json.loads((MINI_FAMILY / "defaults.json").read_text(encoding="utf-8"))
    weights = MINI_FAMILY / "weights"
    files = {name: weights / chosen.pop(name) for name in ("checkpoint", "adapter", "lora")}
    note = "ComfyUI's own work counts beside so small a model; scripts/bench.py measures a full-size one."
    return Models(**files, **chosen, note=note)


def full_size(checkpoint: Path, adapter: Path) -> Models:
    """A Stable Diffusion 1.5 checkpoint of the user's."""
    return Models(
        checkpoint=checkpoint,
        adapter=adapter,
        lora=None,
        width=512,
        height=512,
        cfg=7.0,
        seed=42,
        positive="a cottage by a lake, flowers, mountains, oil painting",
        negative="people, text, blurry",
        changed_negative="flowers, mountains, people, text, blurry",
        negatives=("", "flowers", "mountains", "lake, water"),
        image_positive="a cottage by a lake in winter, snow, oil painting",
        repaint_positive="a castle by a lake, oil painting",
        painting_positive="a red mushroom in a meadow, oil painting",
        first_pass=512,
        enlarge=1.5,
        training={},
    )


def run(models: Models, output: Path, port: int | None, serve: bool) -> None:
    """Make the pictures, the side-by-side and the table; with `serve`, stay until Ctrl+C.

    Raises ServerError, WorkflowError, or OSError where `output` cannot be written.
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
    """A server with this pack and `models`, and the example workflows set to them."""
    base = base_folder()
    with environment.alone(base.with_suffix(".lock"), "Another demo of this checkout is running: end that one first."):
        fill(base, models)
        print("Starting ComfyUI ...", flush=True)
        with ComfyServer(environment.comfyui_path(), base, port, device_arguments()) as server:
            workflows = examples(models, server.get("/object_info"))
            for name, workflow in workflows.items():
                workflow.write(own_workflows(base) / f"{name}.json")
            yield server, workflows


def examples(models: Models, object_info: dict[str, Any]) -> dict[str, Workflow]:
    """The example workflows by name, as a ComfyUI with these nodes shows them, set to `models`."""
    files = {file.stem: file for file in sorted(EXAMPLES.glob("*.json"))}
    if "ImageCompare" in object_info:
        files |= {file.stem: file for file in WITH_SLIDER.glob("*.json")}
    workflows = {name: Workflow.read(file, object_info) for name, file in files.items()}
    for workflow in workflows.values():
        set_to(models, workflow)
    return workflows


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
    if models.lora:
        link(models.lora, base / "models" / "loras" / models.lora.name)
    (base / "input").mkdir(exist_ok=True)
    (base / "input" / PAINTING).write_bytes(painting(models.width))


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
    """Choose `models`, their picture size, guidance scale, prompts and pictures in an example workflow."""
    chosen: dict[str, dict[str, Any]] = {
        "Checkpoint": {"ckpt_name": models.checkpoint.name},
        "SUN 4-Step Speed-Up": {"adapter_name": models.adapter.name},
        "Picture size": {"width": models.width, "height": models.height},
        "Positive prompt": {"text": models.positive},
        "Negative prompt": {"text": models.negative},
        "Plain sampler": {"cfg": models.cfg},
        "Train SUN Adapter": models.training,
    }
    for number, negative in enumerate(models.negatives, 1):
        chosen[f"Negative prompt {number}"] = {"text": negative}
    if models.lora:
        chosen["LoRA"] = {"lora_name": models.lora.name, "strength_model": 1.0}
    titles = set(workflow.titles())
    for title, file, positive in (
        ("Picture to change", PICTURE, models.image_positive),
        ("Picture to repaint", MASKED, models.repaint_positive),
        ("Your painting", PAINTING, models.painting_positive),
    ):
        if title in titles:
            chosen |= {title: {"image": file}, "Positive prompt": {"text": positive}}
    if "Enlarge" in titles:
        first_pass = {"width": models.first_pass, "height": models.first_pass}
        chosen |= {"Picture size": first_pass, "Enlarge": {"scale_by": models.enlarge}}
    for title in titles & chosen.keys():
        workflow.set(title, **chosen[title])
    set_seed(workflow, models.seed)


def set_seed(workflow: Workflow, seed: int) -> None:
    for title in workflow.titles():
        if "sampler" in title.lower():
            workflow.set(title, seed=seed)
        elif title.startswith("Seed"):
            workflow.set(title, value=seed)


def tell_times(workflow: Workflow, plain: float, sun: float) -> None:
    """Write the seconds that sampling took over the two halves of the before/after workflow."""
    for group in workflow.graph["groups"]:
        seconds = {"Before": plain, "After": sun}.get(group["title"].split(":")[0])
        if seconds is not None:
            group["title"] += f", {seconds:.2f} s"


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
    """The PNG that a workflow with one picture makes."""
    return queue(server, workflow, what).pictures[workflow.node_id("Save picture")]


def start_from(server: ComfyServer, png: bytes) -> None:
    """Let the workflows that change a picture start from this one."""
    (server.base / "input" / PICTURE).write_bytes(png)
    (server.base / "input" / MASKED).write_bytes(with_mask(png))


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
