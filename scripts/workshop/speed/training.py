"""Measure training on a full-size U-Net with random weights, without a checkpoint and without a network.

    COMFYUI_PATH=... python -m scripts.workshop.speed.training --family sd15 --batch 8 --batch 16
    COMFYUI_PATH=... python -m scripts.workshop.speed.training --family sdxl --batch 2 --batch 4
    ... --set accumulation=2          several batches for an optimizer step, whose goals are computed together
    ... --set compile=true            with torch.compile; the first batch size takes minutes more
    ... --set channels_last=false     any training setting

Run it from the root of the repository, with ComfyUI's Python and accelerate. It gives what `tools/train.py --dry-run`
gives on a real checkpoint: random weights cost what trained ones do. The losses are those of fixed random data, so
that two versions can be compared.
"""

import argparse
import gc
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..comfyui import device_arguments, start_comfyui

SDXL: dict[str, Any] = {
    "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_middle": 10, "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "context_dim": 2048,
    "num_heads": -1, "num_head_channels": 64, "use_linear_in_transformer": True, "num_classes": "sequential",
    "adm_in_channels": 2816,
}  # fmt: skip
"""How SDXL's U-Net differs from that of Stable Diffusion 1.5."""


def main() -> int:
    """Measure each batch size; print the figures, and write them to --json."""
    options = parse()
    start_comfyui("--use-pytorch-cross-attention")
    import torch
    import yaml

    from sun_core.training.estimate import estimate
    from sun_core.training.processes import chosen_precision, new_accelerator
    from sun_core.training.session import Session, defaults_for_model

    on_cpu = bool(device_arguments())
    precision = chosen_precision("auto", on_cpu)
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    changed = {name: yaml.safe_load(value) for name, _, value in (setting.partition("=") for setting in options.set)}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    rows = []
    for batch in options.batch:
        model = random_model(options.family, dtype)
        config = defaults_for_model(model).with_values({"batch_size": batch, "accumulation": 1, **changed})
        session = Session(model, None, None, config, {}, new_accelerator(config, on_cpu))
        with count_syncs() as syncs:
            figures = estimate(session)
        print(f"== {options.family}, {config.width}x{config.height}, batch {batch}, {precision}, {device}")
        print(figures.describe(), flush=True)
        print(f"host waits for the device            {len(syncs) / (len(figures.losses)):.1f} times per step")
        print("losses  " + " ".join(f"{loss:.5f}" for loss in figures.losses), flush=True)
        rows.append({
            "family": options.family, "batch": batch, "precision": precision, "device": device,
            "torch": torch.__version__, "images_per_second": figures.images / figures.step,
            "peak_bytes": figures.peak, "losses": figures.losses, "settings": changed,
        })  # fmt: skip
        del model, session, figures
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


@contextmanager
def count_syncs() -> Iterator[list]:
    """Collect a warning for each operation that makes the host wait for the CUDA device."""
    import torch

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


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=("sd15", "sdxl"), default="sd15")
    parser.add_argument("--batch", type=int, action="append", metavar="N", help="batch size; may be repeated")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a training setting")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    options.batch = options.batch or [8]
    return options


def random_model(family: str, dtype: Any) -> Any:
    """Make a MODEL of full size whose weights are random."""
    import comfy.model_base
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models
    import torch

    from .random_models import SD15_UNET

    device = comfy.model_management.get_torch_device()
    if family == "sdxl":
        config: Any = comfy.supported_models.SDXL({**SD15_UNET, **SDXL, "dtype": dtype})
        base = comfy.model_base.SDXL(config, device=device)
    else:
        config = comfy.supported_models.SD15({**SD15_UNET, "dtype": dtype})
        base = comfy.model_base.BaseModel(config, device=device)
    torch.manual_seed(0)
    kinds: tuple[Any, ...] = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm)
    for module in base.diffusion_model.modules():
        for kind in kinds:
            if isinstance(module, kind):
                kind.reset_parameters(module)  # which ComfyUI's layers leave out, because they always load a file
    base.train(False).requires_grad_(False)
    return comfy.model_patcher.ModelPatcher(base, device, comfy.model_management.unet_offload_device())


if __name__ == "__main__":
    sys.exit(main())
