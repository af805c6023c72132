"""Train a SUN adapter inside ComfyUI, and save it."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image

from ..sun_core.adapter import SunAdapter, save_adapter
from ..sun_core.errors import SunError, Text
from ..sun_core.training.recipe import SEGMENTS
from .language import in_page_language
from .new_adapter_file import new_adapter_file
from .report import node_report
from .schema import SunAdapterType, advanced, sun_schema


class SUNTrain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sun_schema(
            node_id="SUNTrain",
            display_name="Train SUN Adapter",
            description=(
                "Trains a SUN adapter for the family of this MODEL: a student that needs a few steps and no CFG learns "
                "from the MODEL with CFG. Prompts are enough; training images are optional."
            ),
            search_aliases=["SpeedUpNet", "distillation", "distil", "training"],
            is_experimental=True,
            is_input_list=True,  # so that the lists of core's dataset nodes arrive whole, as at Train LoRA
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="The teacher: any Stable Diffusion 1.5, 2 or SDXL model, without SUN."),
                io.Clip.Input("clip", tooltip="The CLIP of that model."),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="",
                    tooltip="Training prompts, one a line. With images: one line for each image, or one line for all.",
                ),
                io.String.Input(
                    "negatives",
                    multiline=True,
                    default="",
                    tooltip=(
                        "Negative prompts to learn, one a line; may be empty. The empty negative, other prompts and "
                        "parts of the prompts are learned in any case."
                    ),
                ),
                io.Int.Input("steps", default=1000, min=1, max=1_000_000, tooltip="Number of optimizer steps."),
                io.Int.Input("batch_size", default=4, min=1, max=1024, tooltip="Images per batch."),
                advanced(
                    io.Int.Input(
                        "grad_accumulation_steps",
                        default=1,
                        min=1,
                        max=1024,
                        tooltip="Batches per optimizer step: the effect of a larger batch, without its memory.",
                    )
                ),
                io.Float.Input(
                    "learning_rate",
                    default=0.0001,
                    min=0.0000001,
                    max=1.0,
                    step=0.0000001,
                    tooltip="Size of an optimizer step. Small models need a higher rate than large ones.",
                ),
                io.Float.Input(
                    "guidance",
                    default=7.0,
                    min=1.0,
                    max=30.0,
                    step=0.1,
                    tooltip="CFG of the teacher: the value that you would set on the KSampler.",
                ),
                io.Combo.Input(
                    "segments",
                    options=[str(number) for number in SEGMENTS],
                    default="4",
                    tooltip="Number of sampling steps that the adapter is for.",
                ),
                io.Int.Input(
                    "width", default=512, min=64, max=2048, step=8, tooltip="Width of the training images in pixels."
                ),
                io.Int.Input(
                    "height", default=512, min=64, max=2048, step=8, tooltip="Height of the training images in pixels."
                ),
                advanced(
                    io.Boolean.Input(
                        "gradient_checkpointing",
                        default=True,
                        tooltip="Saves much memory and takes about a sixth more time.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "preview_every",
                        default=100,
                        min=0,
                        max=100_000,
                        tooltip="Steps between comparisons of teacher and student, which the node shows; 0 for none.",
                    )
                ),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, tooltip="Random seed."),
                io.Vae.Input("vae", optional=True, tooltip="Needed for images, and for the comparison on the node."),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="Training images; they are scaled and cropped to width and height. They need the VAE.",
                ),
                io.Latent.Input(
                    "latents",
                    optional=True,
                    tooltip="Training images as latents of that width and height, instead of images. "
                    "With neither, the MODEL draws its own from the prompts.",
                ),
                SunAdapterType.Input(
                    "sun_adapter", optional=True, tooltip="An adapter to train further; without it, a new one."
                ),
            ],
            outputs=[
                SunAdapterType.Output(
                    display_name="SUN_ADAPTER", tooltip="For Apply SUN Adapter and Save SUN Adapter."
                ),
                io.Image.Output(display_name="loss", tooltip="The loss curve."),
            ],
        )

    @classmethod
    def execute(cls, **inputs: list) -> io.NodeOutput:
        # nodes run in inference mode, which has no gradients
        with torch.inference_mode(False), torch.enable_grad(), named_if_missing():
            from .training import train  # needs packages that a ComfyUI may lack

            adapter, loss = train(inputs, node_report(cls.hidden.unique_id))
        return io.NodeOutput(adapter, as_image(loss))


class SUNSaveAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sun_schema(
            node_id="SUNSaveAdapter",
            display_name="Save SUN Adapter",
            description="Writes a SUN adapter to models/sun under a new name. Press R to see it in the lists.",
            search_aliases=["SpeedUpNet", "training"],
            is_output_node=True,
            inputs=[
                SunAdapterType.Input("sun_adapter", tooltip="From Train SUN Adapter."),
                io.String.Input(
                    "filename_prefix",
                    default="sun_adapter",
                    tooltip="Name of the file. A number is added to it, and no file is ever overwritten.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, sun_adapter: SunAdapter, filename_prefix: str) -> io.NodeOutput:
        path = new_adapter_file(filename_prefix)
        try:
            save_adapter(sun_adapter, path, {})
        except OSError as error:
            raise SunError(
                "{name} cannot be written to {folder} ({why}); let ComfyUI write there.",
                name=path.name,
                folder=path.parent,
                why=error.strerror,
            ) from error
        return io.NodeOutput(ui=ui.PreviewText(in_page_language(Text("Saved as {name}", name=path.name))))


@contextmanager
def named_if_missing() -> Iterator[None]:
    """Name a missing package that training needs to the artist."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise SunError(
            "Training needs the Python package {package}, which is not installed; run 'python -m pip install "
            "{package}' with the Python of ComfyUI and start ComfyUI again.",
            package=error.name,
        ) from error


def as_image(picture: Image.Image) -> torch.Tensor:
    """Convert to ComfyUI's IMAGE, (1, height, width, 3) in 0..1."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255).unsqueeze(0)
