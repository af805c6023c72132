"""Training's speed and memory on a full-size U-Net with random weights, without a checkpoint and without a network.

It gives what `tools/train.py --dry-run` gives on a real checkpoint: random weights cost what trained ones do. The
losses are those of fixed random data, so that two versions can be compared.
"""

import gc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import comfy.model_base
import comfy.model_management
import comfy.supported_models
import torch
import yaml
from comfy.model_patcher import ModelPatcher

from sun_core.training.estimate import estimate
from sun_core.training.processes import chosen_precision, new_accelerator
from sun_core.training.session import Session, defaults_for_model
from sun_core.training.trainer import Trainer

from .device import device
from .random_models import SD15_UNET

SDXL_UNET: dict[str, Any] = SD15_UNET | {
    "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_middle": 10, "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "context_dim": 2048,
    "num_heads": -1, "num_head_channels": 64, "use_linear_in_transformer": True, "num_classes": "sequential",
    "adm_in_channels": 2816,
}  # fmt: skip


def measure_training(family: str, batches: Sequence[int], settings: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Measure and print each batch size; give a row of figures for each. `settings` are NAME=VALUE, in YAML."""
    on_cpu = device().type == "cpu"
    precision = chosen_precision("auto", on_cpu)
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    changed = {name: yaml.safe_load(value) for name, _, value in (setting.partition("=") for setting in settings)}
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    for batch in batches:
        model = random_model(family, dtype)
        config = defaults_for_model(model).with_values({"batch_size": batch, "accumulation": 1, **changed})
        session = Session(model, None, None, config, {}, new_accelerator(config, on_cpu))
        with count_syncs() as syncs, begun_anew(syncs):
            figures = estimate(session)
        print(f"== {family}, {config.width}x{config.height}, batch {batch}, {precision}, {name}")
        print(figures.describe(), flush=True)
        print(f"host waits for the device            {len(syncs) / len(figures.losses):.1f} times per step")
        print("losses  " + " ".join(f"{loss:.5f}" for loss in figures.losses), flush=True)
        yield {
            "family": family, "batch": batch, "precision": precision, "device": name,
            "torch": torch.__version__, "images_per_second": figures.images / figures.step,
            "peak_bytes": figures.peak, "losses": figures.losses, "settings": changed,
        }  # fmt: skip
        del model, session, figures
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextmanager
def count_syncs() -> Iterator[list]:
    """Collect a warning for each operation that makes the host wait for the CUDA device."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", message="called a synchronizing CUDA operation")
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield caught
        finally:
            if torch.cuda.is_available():
                torch.cuda.set_sync_debug_mode("default")


@contextmanager
def begun_anew(syncs: list) -> Iterator[None]:
    """Within, count from the first step on: before it, all weights are read to name the teacher."""
    steps = Trainer.steps

    def steps_alone(trainer: Trainer) -> Iterator[Any]:
        syncs.clear()
        yield from steps(trainer)

    with patch.object(Trainer, "steps", steps_alone):
        yield


def random_model(family: str, dtype: torch.dtype) -> ModelPatcher:
    """Make a MODEL of full size whose weights are random."""
    if family == "sdxl":
        base = comfy.model_base.SDXL(comfy.supported_models.SDXL({**SDXL_UNET, "dtype": dtype}), device=device())
    else:
        base = comfy.model_base.BaseModel(comfy.supported_models.SD15({**SD15_UNET, "dtype": dtype}), device=device())
    torch.manual_seed(0)
    kinds: tuple[Any, ...] = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm)
    for module in base.diffusion_model.modules():
        for kind in kinds:
            if isinstance(module, kind):
                kind.reset_parameters(module)  # which ComfyUI's layers leave out, because they always load a file
    base.train(False).requires_grad_(False)
    return ModelPatcher(base, device(), comfy.model_management.unet_offload_device())
