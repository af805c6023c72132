"""Training through a real server: train, apply, draw and save in one graph."""

import numpy as np
import pytest
from workshop.server.comfy_server import ComfyServer, WorkflowError
from workshop.server.demo_models import Models

from .conftest import pixels

SIZE = 64
TRAIN = {
    "model": ["checkpoint", 0], "clip": ["checkpoint", 1], "vae": ["checkpoint", 2],
    "prompts": "a red cat in the snow\na blue boat at sunset", "negatives": "", "steps": 3, "batch_size": 2,
    "grad_accumulation_steps": 1, "learning_rate": 0.001, "guidance": 3.0, "segments": "4", "width": SIZE,
    "height": SIZE, "gradient_checkpointing": True, "preview_every": 2, "seed": 0,
}  # fmt: skip


def graph(models: Models, **changed: object) -> dict[str, dict]:
    nodes = {
        "checkpoint": ("CheckpointLoaderSimple", {"ckpt_name": models.checkpoint.name}),
        "train": ("SUNTrain", TRAIN | changed),
        "save": ("SUNSaveAdapter", {"sun_adapter": ["train", 0], "filename_prefix": "trained_here"}),
        "loss": ("SaveImage", {"images": ["train", 1], "filename_prefix": "loss"}),
        "positive": ("CLIPTextEncode", {"clip": ["checkpoint", 1], "text": "a red cat in the snow"}),
        "negative": ("CLIPTextEncode", {"clip": ["checkpoint", 1], "text": ""}),
        "empty": ("EmptyLatentImage", {"width": SIZE, "height": SIZE, "batch_size": 1}),
        "apply": (
            "SUNApply",
            {
                "model": ["checkpoint", 0], "sun_adapter": ["train", 0], "negative_strength": 1.0,
                "positive_strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "settings": "automatic",
            },
        ),
        "sample": (
            "KSampler",
            {
                "model": ["apply", 0], "seed": 0, "steps": 4, "cfg": 7.0, "sampler_name": "euler",
                "scheduler": "normal", "positive": ["positive", 0], "negative": ["negative", 0],
                "latent_image": ["empty", 0], "denoise": 1.0,
            },
        ),
        "decode": ("VAEDecode", {"samples": ["sample", 0], "vae": ["checkpoint", 2]}),
        "picture": ("SaveImage", {"images": ["decode", 0], "filename_prefix": "trained"}),
    }  # fmt: skip
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def test_an_adapter_is_trained_applied_and_saved_in_one_graph(server: ComfyServer, models: Models) -> None:
    run = server.run(graph(models))
    assert pixels(run.pictures["loss"]).std() > 1, "a curve, not a flat colour"
    drawn = pixels(run.pictures["picture"])
    assert drawn.shape == (SIZE, SIZE, 3)
    saved = "trained_here_00001_.safetensors"
    assert run.texts["save"] == [f"Saved as {saved}"]
    assert (server.base / "models" / "sun" / saved).is_file()
    speed_up = graph(models)
    del speed_up["train"], speed_up["save"], speed_up["loss"]
    speed_up["apply"] = {
        "class_type": "SUNSpeedUp",
        "inputs": {"model": ["checkpoint", 0], "adapter_name": saved, "strength": 1.0, "settings": "automatic"},
    }
    again = pixels(server.run(speed_up).pictures["picture"])
    assert np.abs(again - drawn).mean() < 1, "the file holds what was trained, but for rounding to fp16"


def test_training_without_prompts_is_refused_in_one_sentence(server: ComfyServer, models: Models) -> None:
    with pytest.raises(WorkflowError) as refused:
        server.run(graph(models, prompts=" \n"))
    assert refused.value.node == "SUNTrain"
    assert "There are no prompts" in str(refused.value)
