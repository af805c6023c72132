"""Measure SUN against its peers and its own parts on the mini family, from the shipped weights; or train those again.

    python3 benchmarks/distillation/run.py                 # results.json, tables in README.md, curves and grids
    python3 benchmarks/distillation/run.py --train NAME    # train a peer or an ablation again; `all` for each in turn
    python3 benchmarks/distillation/run.py --tune          # find the peers' best settings again

The first run makes its environment (scripts/environment.py). Training resumes where it was stopped, and leaves its
checkpoints under build/distillation; measuring keeps there what it has measured of files that have not changed.
"""

import argparse
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The first folder on the path is this one. ComfyUI's, and after it the repository's own, follow in import_comfyui.
sys.path[1:1] = [str(ROOT / "scripts" / "mini")]
sys.path.append(str(ROOT / "scripts"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--train", metavar="NAME", help="a name from RUNS in training.py, or `all`")
    what.add_argument("--tune", action="store_true", help="write settings.json anew")
    parser.add_argument("--count", type=int, default=500, help="prompts of each kind (default: 500)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="default: one for each core")
    return parser.parse_args()


def main() -> int:
    chosen = arguments()
    import environment

    try:
        if not os.environ.get(environment.INSIDE):
            made = environment.prepare()
            pinned = (*environment.PEFT, *environment.MATPLOTLIB)
            environment.enter(made, environment.packages(made.python, "distillation", pinned))
    except environment.SetupError as error:
        print(error, file=sys.stderr)
        return 1
    if chosen.train:
        train(chosen.train, chosen.processes)
    elif chosen.tune:
        tune(chosen.processes)
    else:
        evaluate(chosen.count, chosen.processes)
    return 0


def train(chosen: str, processes: int) -> None:
    """Train one run or all; those that are finished are only written to weights/ again."""
    import loop

    import_comfyui()
    import training

    if chosen not in ("all", *training.RUNS):
        sys.exit(f"There is no run {chosen}: choose one of {', '.join(training.RUNS)}, or all.")
    loop.launch(train_stage, list(training.RUNS) if chosen == "all" else [chosen], processes=processes)


def tune(processes: int) -> None:
    """Each peer with each of its candidate settings, on prompts of their own; the nearest to teacher-25 is the best."""
    import_comfyui()
    import figures
    import measuring
    import ways

    found = {}
    candidates_of = {name: tried for name, tried in ways.CANDIDATES.items() if ways.has_weights(name)}
    everything = [measuring.jobs("teacher-25", "tuning", measuring.TUNING)]
    for name, candidates in candidates_of.items():
        everything += [measuring.jobs(name, "tuning", measuring.TUNING, settings=json.dumps(c)) for c in candidates]
    measuring.work_off([job for parts in everything for job in parts], processes)
    for name, candidates in candidates_of.items():
        tried = [{**c, **figures.tuning_row(name, json.dumps(c))} for c in candidates]
        best = min(range(len(tried)), key=lambda i: tried[i]["frechet"])
        found[name] = {"best": candidates[best], "tried": tried}
    ways.SETTINGS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def evaluate(count: int, processes: int) -> None:
    """Everything that README.md shows, from the shipped weights."""
    import_comfyui()
    import figures
    import measuring
    import plots
    import report

    wanted = figures.sets(count)
    measuring.work_off([job for parts in wanted.values() for job in parts], processes)
    results = figures.results(figures.Measured(wanted), count)
    report.write(results)
    plots.training_curve(results)
    plots.strength_curve(results)
    plots.grid()
    print(report.tables(results))


def import_comfyui() -> None:
    from build import import_comfyui

    import_comfyui()


def train_stage(names: list[str]) -> None:
    """What each process of a training does."""
    import_comfyui()
    import training

    training.make_latents()
    for name in names:
        training.train(name)


if __name__ == "__main__":
    sys.exit(main())
