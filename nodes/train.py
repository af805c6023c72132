"""Training inside ComfyUI, and saving what came out."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image

from ..sun_core.adapter import SunAdapter, save_adapter
from ..sun_core.errors import SunError
from .new_adapter_file import new_adapter_file
from .report import node_report
from .schema import SunAdapterType, sun_schema

SEGMENTS = ("1", "2", "4", "8")


class SUNTrain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sun_schema(
            node_id="SUNTrain",
            display_name="Train SUN Adapter",
            description=(
                "Makes a SUN adapter for the family of this MODEL: a few-step student learns from the MODEL's own "
                "pictures with CFG. Prompts are enough; pictures are optional."
            ),
            search_aliases=["SpeedUpNet", "distillation", "distil", "training", "LCM"],
            is_input_list=True,  # so that the lists of core's dataset nodes arrive whole, as at Train LoRA
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="The teacher: any Stable Diffusion 1.5, 2 or SDXL model, without SUN."),
                io.Clip.Input("clip", tooltip="The CLIP of that model."),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="",
                    tooltip="What to train on, one prompt a line. With pictures, one line for each of them, or one.",
                ),
                io.String.Input(
                    "negatives",
                    multiline=True,
                    default="",
                    tooltip=(
                        "Negative prompts to learn, one a line; may be empty. The empty one, other prompts and parts "
                        "of the prompts are used as well."
                    ),
                ),
                io.Int.Input(
                    "steps", default=1000, min=1, max=1_000_000, tooltip="How many times weights are changed."
                ),
                io.Int.Input("batch_size", default=4, min=1, max=1024, tooltip="Pictures at once; more needs memory."),
                io.Int.Input(
                    "grad_accumulation_steps",
                    default=1,
                    min=1,
                    max=1024,
                    tooltip="Batches for each change of the weights: like a larger batch, without its memory.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=0.0001,
                    min=0.0000001,
                    max=1.0,
                    step=0.0000001,
                    tooltip="How far weights move at a time. Small models want more, large ones less.",
                ),
                io.Float.Input(
                    "guidance",
                    default=7.0,
                    min=1.0,
                    max=30.0,
                    step=0.1,
                    tooltip="The CFG whose pictures are learned: what you would set on the KSampler.",
                ),
                io.Combo.Input(
                    "segments",
                    options=list(SEGMENTS),
                    default="4",
                    tooltip="How many sampling steps the adapter is for.",
                ),
                io.Int.Input(
                    "width", default=512, min=64, max=2048, step=8, tooltip="Of the pictures that are trained on."
                ),
                io.Int.Input(
                    "height", default=512, min=64, max=2048, step=8, tooltip="Of the pictures that are trained on."
                ),
                io.Boolean.Input(
                    "gradient_checkpointing",
                    default=True,
                    tooltip="Needs much less memory, and about a sixth more work.",
                ),
                io.Int.Input(
                    "preview_every",
                    default=100,
                    min=0,
                    max=100_000,
                    tooltip="Steps between comparisons of teacher and student, shown on the node; 0 for none.",
                ),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, tooltip="What all chance comes from."),
                io.Vae.Input("vae", optional=True, tooltip="Needed for images, and for the comparison on the node."),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="Training pictures, scaled and cropped to width and height. Needs the VAE.",
                ),
                io.Latent.Input(
                    "latents",
                    optional=True,
                    tooltip="Training pictures as latents of width and height, in place of images. "
                    "Without either the MODEL draws them from the prompts.",
                ),
                SunAdapterType.Input(
                    "sun_adapter", optional=True, tooltip="An adapter to train further; else a new one."
                ),
            ],
            outputs=[
                SunAdapterType.Output(
                    display_name="SUN_ADAPTER", tooltip="For Apply SUN Adapter and Save SUN Adapter."
                ),
                io.Image.Output(display_name="loss", tooltip="How the loss fell."),
            ],
        )

    @classmethod
    def execute(cls, **inputs: list) -> io.NodeOutput:
        # nodes run in inference mode, which knows no gradients
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
            description="Writes a SUN adapter to models/sun under a new name; press R, and it can be chosen.",
            search_aliases=["SpeedUpNet", "training"],
            is_output_node=True,
            inputs=[
                SunAdapterType.Input("sun_adapter", tooltip="From Train SUN Adapter."),
                io.String.Input(
                    "filename_prefix",
                    default="sun_adapter",
                    tooltip="The file's name; a number is put behind it, and no file is ever overwritten.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, sun_adapter: SunAdapter, filename_prefix: str) -> io.NodeOutput:
        path = new_adapter_file(filename_prefix)
        save_adapter(sun_adapter, path, {})
        return io.NodeOutput(ui=ui.PreviewText(f"Saved as {path.name}"))


@contextmanager
def named_if_missing() -> Iterator[None]:
    """Within, a package that training needs and that is not there is named to the artist."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise SunError(
            f"Training needs the Python package {error.name}, which is not installed; run 'python -m pip install "
            f"{error.name}' with the Python of ComfyUI and start ComfyUI again."
        ) from error


def as_image(picture: Image.Image) -> torch.Tensor:
    """ComfyUI's IMAGE: (1, height, width, 3) in 0..1."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255).unsqueeze(0)
