"""Distil a SUN adapter for any Stable Diffusion checkpoint: on a CPU, on one GPU, or on several.

    python3 scripts/train.py --checkpoint FILE --data FOLDER --out FOLDER [--config FILE] [--set NAME=VALUE ...]
    python3 scripts/train.py --checkpoint FILE --prompts FILE --out FOLDER      without pictures
    python3 scripts/train.py ... --dry-run                                      memory and time, without training

Started again with the same arguments, a run goes on where it was. docs/training.md says what data looks like, which
settings there are, and how to train on several machines.
"""

import argparse
import os
import sys
from pathlib import Path

import environment


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="the teacher, with CLIP and VAE")
    parser.add_argument(
        "--unet", type=Path, metavar="FILE", help="a diffusion model to teach in the checkpoint's place"
    )
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="captioned pictures, or WebDataset shards (.tar)")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="prompts, one a line, whose pictures are drawn")
    parser.add_argument("--pictures", type=int, default=2000, help="how many to draw from --prompts (default 2000)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the adapter and all of the run")
    parser.add_argument("--name", default="sun_adapter", help="of the adapter's file (default sun_adapter)")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings (YAML or JSON), such as a run's config.yaml"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="one setting; may be repeated")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="for latents and texts (default: in --out)")
    parser.add_argument("--processes", type=int, help="how many on this machine (default: one per GPU)")
    parser.add_argument("--cpu", action="store_true", help="train on the CPU though there is a GPU")
    parser.add_argument("--dry-run", action="store_true", help="print what it would take, and end")
    chosen = parser.parse_args()
    if (chosen.data is None) == (chosen.prompts is None) and not chosen.dry_run:
        parser.error("name either --data or --prompts")
    return chosen


def main() -> int:
    environment.exit_on_termination()
    chosen = arguments()
    for file in filter(None, (chosen.checkpoint, chosen.unet, chosen.prompts, chosen.config)):
        if not file.is_file():
            return failed(f"There is no file {file}: check the path that you gave.")
    try:
        enter_environment(chosen)
    except environment.SetupError as error:
        return failed(str(error))
    except KeyboardInterrupt:
        return 130
    # From here on we run beside ComfyUI's own packages, which this module needs.
    import training_run

    return training_run.main(chosen)


def enter_environment(chosen: argparse.Namespace) -> None:
    """Run this script again where ComfyUI and training's packages are, in several processes where that was asked for.

    Under `accelerate launch` or torchrun each process does so for itself.
    """
    if os.environ.get(environment.INSIDE):
        return
    made = environment.prepare()
    packages = environment.training_packages(made.python)
    launcher: list[str] = []
    processes = chosen.processes
    if "RANK" not in os.environ:
        processes = processes or gpus(made.python, chosen.cpu)
        if processes > 1:
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment.become(
        [str(made.python), *launcher, *sys.argv],
        {
            environment.INSIDE: "1",
            "COMFYUI_PATH": str(made.comfyui),
            "PYTHONPATH": os.pathsep.join(map(str, filter(None, (packages, os.environ.get("PYTHONPATH"))))),
        },
    )


def gpus(python: Path, on_cpu: bool) -> int:
    """How many processes this machine's CUDA devices call for."""
    if on_cpu:
        return 1
    import subprocess

    counted = subprocess.run(
        [str(python), "-c", "import torch; print(torch.cuda.device_count())"], capture_output=True, text=True
    )
    return max(1, int(counted.stdout or 1))


def failed(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
