"""Make every file of the mini family again, from seeds.

    python3 scripts/mini.py                  # all stages, then the files
    python3 scripts/mini.py --stage adapter  # one stage

Each stage keeps its checkpoint under build/mini and resumes from it; a finished stage does not run again (delete its
checkpoint to repeat it). demo/mini_family/README.md says how long each takes and what comes out.
"""

import argparse
import sys

from workshop import environment
from workshop.comfyui import start_comfyui

EXPORT = "export"
ARGUMENTS = ("--cpu", "--use-pytorch-cross-attention")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", metavar="NAME", help=f"run one stage alone, or `{EXPORT}`, which writes the files")
    parser.add_argument(
        "--processes", type=int, default=2, help="data-parallel processes; each adds 16 rows to a batch (default: 2)"
    )
    return parser.parse_args()


def main() -> int:
    chosen = arguments()
    start_comfyui(*ARGUMENTS)
    from workshop.mini import loop
    from workshop.mini.files import WORK
    from workshop.mini.stages import STAGES, export_all

    if chosen.stage not in (None, EXPORT, *STAGES):
        sys.exit(f"There is no stage {chosen.stage}: choose one of {', '.join(STAGES)} or {EXPORT}.")
    WORK.mkdir(parents=True, exist_ok=True)
    for name in [chosen.stage] if chosen.stage else [*STAGES, EXPORT]:
        print(f"== {name}", flush=True)
        if name == EXPORT:
            export_all()
        else:
            loop.launch(run_stage, name, processes=chosen.processes)
    return 0


def run_stage(name: str) -> None:
    """Run a stage in one of its processes."""
    start_comfyui(*ARGUMENTS)
    from workshop.mini.stages import STAGES

    STAGES[name]()


if __name__ == "__main__":
    sys.exit(environment.run(main, environment.training_packages))
