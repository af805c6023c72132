"""Measure SUN on a full-size Stable Diffusion 1.5 U-Net with random weights, in a real ComfyUI.

    python3 scripts/bench.py [--latent 32] [--repeats 3] [--json FILE]

What is compared is measured in turn, again and again in one run, so that a machine that slows down meanwhile slows
down both sides; the device is the one that ComfyUI chooses. Random weights cost what trained ones do; the pictures
mean nothing.
"""

import argparse
import json
import sys
from pathlib import Path

from workshop import environment
from workshop.comfyui import start_comfyui

TARGETS = {"sampling_speedup": "target: at least 10, limit: 12.5", "forward_ratio": "target: at most 1.03"}


def main() -> int:
    chosen = arguments()
    start_comfyui()
    import measurements  # needs ComfyUI's modules

    figures, machine = measurements.measure(chosen.latent, chosen.repeats)
    print(f"\n{report(figures, machine)}")
    if chosen.json:
        chosen.json.write_text(json.dumps(figures | {"machine": machine}, indent=2) + "\n", encoding="utf-8")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latent", type=int, default=32, metavar="N", help="latents of N x N; 64 is 512 x 512 pixels")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="how often each thing is measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    chosen = parser.parse_args()
    if chosen.repeats < 1 or chosen.latent < 8:
        parser.error("--repeats must be at least 1, and --latent at least 8")
    if chosen.json and not chosen.json.absolute().parent.is_dir():
        parser.error(f"there is no folder {chosen.json.absolute().parent} for --json")  # said now, not after minutes
    return chosen


def report(figures: dict[str, dict[str, float | str]], machine: dict[str, str | int]) -> str:
    lines = [", ".join(f"{name} {value}" for name, value in machine.items()), ""]
    lines.append(f"{'':34}{'median':>10}{'min':>10}{'max':>10}")
    for name, figure in figures.items():
        numbers = "".join(f"{figure[column]:>10.3f}" for column in ("median", "min", "max"))
        lines.append(f"{name:34}{numbers} {figure['unit']:3} {TARGETS.get(name, '')}".rstrip())
    lines.append(
        "\nThe limit of the sampling speed-up: 25 steps with CFG are 50 evaluations of the model, 4 with SUN are 4."
        "\nTargets are for a CPU at 32 x 32 latents. Memory is the highest while sampling, with the model's weights."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(environment.run(main))
