"""Measure SUN on a full-size Stable Diffusion 1.5 U-Net with random weights, in a real ComfyUI.

    python3 scripts/bench.py [--latent 32] [--batch 1 --batch 8] [--json FILE]
    python3 scripts/bench.py --publish   # only writes the table of benchmarks/README.md from benchmarks/speed/*.json

What is compared is measured in turn in one run, so that a machine that slows down meanwhile slows down both sides. The
device and the memory management are those that ComfyUI's main.py chooses. Random weights cost what trained ones do; the
pictures mean nothing. It says first how long it takes: under four minutes.
"""

import argparse
import json
import sys
from pathlib import Path

from workshop import environment
from workshop.comfyui import start_comfyui
from workshop.speed.memory_management import prepare_memory_management
from workshop.speed.published import publish


def main() -> int:
    chosen = arguments()
    if chosen.publish:
        publish()
        return 0
    prepare_memory_management()
    start_comfyui()
    from workshop.speed.measured import table
    from workshop.speed.measurements import measure

    figures, machine = measure(chosen.latent, chosen.batch or [1])
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine.items()) + "\n")
    print(table(figures))
    print(
        "\n25 steps with CFG are 50 evaluations of the model and 4 with SUN are 4: without a GPU's fixed costs the "
        "speed-up ends at 12.5.\nMemory is the highest during a run, with the model's weights."
    )
    if chosen.json:
        chosen.json.write_text(json.dumps({"machine": machine, "figures": figures}, indent=2) + "\n", encoding="utf-8")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latent", type=int, default=32, metavar="N", help="latents of N x N; 64 is 512 x 512 pixels")
    parser.add_argument("--batch", type=int, action="append", metavar="N", help="pictures at once; may be given often")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--publish", action="store_true", help="write the table of what was measured before")
    chosen = parser.parse_args()
    if chosen.latent < 8 or min(chosen.batch or [1]) < 1:
        parser.error("--latent must be at least 8, and --batch at least 1")
    if chosen.json and not chosen.json.absolute().parent.is_dir():
        parser.error(f"there is no folder {chosen.json.absolute().parent} for --json")  # said now, not after minutes
    return chosen


if __name__ == "__main__":
    sys.exit(environment.run(main))
