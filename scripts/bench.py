"""Measure SUN on a full-size Stable Diffusion 1.5 U-Net with random weights, in a real ComfyUI.

    python3 scripts/bench.py [--latent 32] [--batch 1 --batch 8] [--json FILE]
    python3 scripts/bench.py --training [--family sdxl] [--batch 2 --batch 4] [--set compile=true] [--json FILE]
    python3 scripts/bench.py --publish   # only writes the tables of what was measured before

What is compared is measured in turn in one run, so that a machine that slows down meanwhile slows down both sides. The
device and the memory management are those that ComfyUI's main.py chooses. Random weights cost what trained ones do; the
pictures mean nothing. It says first how long it takes: under four minutes.

--training measures the time and memory of an optimizer step instead, for each batch size; --set changes any setting of
tools/train.py (accumulation=2, channels_last=false, ...), and compile=true takes minutes more. --publish makes the
tables of benchmarks/README.md and docs/training.md from benchmarks/speed/*.json and benchmarks/training/*.json.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workshop import environment
from workshop.comfyui import start_comfyui
from workshop.speed.memory_management import prepare_memory_management
from workshop.speed.published import publish


def main(chosen: argparse.Namespace) -> int:
    if chosen.publish:
        publish()
        return 0
    measurements = measure_training(chosen) if chosen.training else measure_sampling(chosen)
    for measured in measurements:
        if chosen.json:
            chosen.json.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    return 0


def measure_sampling(chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure how fast SUN samples, and print it; give what is measured so far after each batch size."""
    prepare_memory_management()
    start_comfyui()
    from workshop.speed.measured import table
    from workshop.speed.measurements import measure

    for figures, machine in measure(chosen.latent, chosen.batch or [1]):
        yield {"machine": machine, "figures": figures}
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine.items()) + "\n")
    print(table(figures))
    print(
        "\n25 steps with CFG are 50 evaluations of the model and 4 with SUN are 4: without a GPU's fixed costs the "
        "speed-up ends at 12.5.\nMemory is the highest during a run that torch counts: on a GPU with dynamic "
        "VRAM without the weights, and with cudaMallocAsync without the graphs."
    )


def measure_training(chosen: argparse.Namespace) -> Iterator[list[dict[str, Any]]]:
    """Measure how fast an adapter learns, and print it; give the rows so far after each batch size."""
    start_comfyui("--use-pytorch-cross-attention")
    from workshop.speed import training

    rows = []
    for row in training.measure_training(chosen.family, chosen.batch or [8], chosen.set):
        rows.append(row)
        yield rows


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latent", type=int, default=32, metavar="N", help="latents of N x N; 64 is 512 x 512 pixels")
    parser.add_argument("--batch", type=int, action="append", metavar="N", help="pictures at once; may be given often")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too, after each batch size")
    parser.add_argument("--training", action="store_true", help="measure training instead")
    parser.add_argument("--family", choices=("sd15", "sdxl"), default="sd15", help="whose U-Net is trained")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a training setting")
    parser.add_argument("--publish", action="store_true", help="write the tables of what was measured before")
    chosen = parser.parse_args()
    if chosen.latent < 8 or min(chosen.batch or [1]) < 1:
        parser.error("--latent must be at least 8, and --batch at least 1")
    if chosen.json and not chosen.json.absolute().parent.is_dir():
        parser.error(f"there is no folder {chosen.json.absolute().parent} for --json")  # said now, not after minutes
    return chosen


if __name__ == "__main__":
    chosen = arguments()
    packages = (environment.training_packages,) if chosen.training else ()
    sys.exit(environment.run(lambda: main(chosen), *packages))
