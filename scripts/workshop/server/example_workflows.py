"""The example workflows, set to the demo's models, and the ComfyUI folder that holds both."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

from .. import REPOSITORY
from ..environment import cache_folder
from ..pictures.input_pictures import painting, with_mask
from .comfy_server import ComfyServer
from .demo_models import MINI_FAMILY, Models
from .workflows import Workflow

EXAMPLES = REPOSITORY / "example_workflows"
TITLES = {
    "text_to_image": "01 Text to image",
    "before_after": "02 Before and after",
    "image_to_image": "03 Image to image",
    "inpaint": "04 Inpaint",
    "lora_speed_up": "05 With a LoRA",
    "controlnet_ready": "06 With a ControlNet",
    "hires_fix": "07 Hires fix",
    "negative_playground": "08 Four negative prompts",
    "negative_prompt_at_cfg_1": "09 Negative prompt at CFG 1",
    "realtime_painting": "10 Live painting",
    "distil_your_own": "11 Train your own adapter",
}
"""What each example workflow is called in the template browser, which shows names of files."""
PACK = "sun-for-comfyui"  # the folder in custom_nodes
WITH_SLIDER = EXAMPLES / "with_slider"  # what takes the place of an example if ComfyUI has ImageCompare
OWN_WORKFLOWS = "sun-demo"  # a pack with no nodes, whose templates are the example workflows set to the demo's models
PAINTING, PICTURE, MASKED = "painting.png", "example.png", "example_with_mask.png"  # in ComfyUI's folder input


def examples(models: Models, object_info: dict[str, Any]) -> dict[str, Workflow]:
    """Return the example workflows by their keys in TITLES, as a ComfyUI with these nodes has them, set to `models`."""
    files = {name: example_file(name) for name in TITLES}
    if "ImageCompare" in object_info:
        files |= {name: file for name in TITLES if (file := example_file(name, WITH_SLIDER)).exists()}
    workflows = {name: Workflow.read(file, object_info) for name, file in files.items()}
    for workflow in workflows.values():
        set_to(models, workflow)
    return workflows


def example_file(name: str, folder: Path = EXAMPLES) -> Path:
    """Return the file of the example workflow with this key in TITLES."""
    return folder / f"{TITLES[name]}.json"


def base_folder() -> Path:
    """Return ComfyUI's --base-directory for this checkout: nothing of a user's own ComfyUI is touched."""
    key = hashlib.sha256(str(REPOSITORY).encode()).hexdigest()[:16]
    return cache_folder() / f"demo-{key}"


def fill(base: Path, models: Models) -> None:
    """Put this pack, the mini family's, one for our workflows, and `models` where ComfyUI looks for them."""
    for rebuilt in ("custom_nodes", "models"):
        shutil.rmtree(base / rebuilt, ignore_errors=True)
    link(REPOSITORY, base / "custom_nodes" / PACK)
    link(MINI_FAMILY, base / "custom_nodes" / "sun-mini-family")
    own_workflows(base).mkdir(parents=True)
    (own_workflows(base).parent / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n", encoding="utf-8")
    link(models.checkpoint, base / "models" / "checkpoints" / models.checkpoint.name)
    link(models.adapter, base / "models" / "sun" / models.adapter.name)
    for lora in filter(None, (models.lora, models.lcm_lora)):
        link(lora, base / "models" / "loras" / lora.name)
    (base / "input").mkdir(exist_ok=True)
    (base / "input" / PAINTING).write_bytes(painting(models.width))


def own_workflows(base: Path) -> Path:
    """Return the folder whose workflows the page's template browser shows under OWN_WORKFLOWS."""
    return base / "custom_nodes" / OWN_WORKFLOWS / "example_workflows"


def link(source: Path, target: Path) -> None:
    """Make `source` appear at `target`, by a copy if the system allows no symbolic links."""
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
    if models.lcm_lora:
        chosen["LCM-LoRA"] = {"lora_name": models.lcm_lora.name}
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
    """Give every sampler and every seed node of an example workflow this seed."""
    for title in workflow.titles():
        if "sampler" in title.lower():
            workflow.set(title, seed=seed)
        elif title.startswith("Seed"):
            workflow.set(title, value=seed)


def start_from(server: ComfyServer, png: bytes) -> None:
    """Let the workflows that change a picture start from this one."""
    (server.base / "input" / PICTURE).write_bytes(png)
    (server.base / "input" / MASKED).write_bytes(with_mask(png))
