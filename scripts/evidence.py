"""Measure SUN against its peers and its own parts on the mini family.

    python3 scripts/evidence.py --train NAME  # train a peer or an ablation; `all` for each in turn
    python3 scripts/evidence.py               # results.json, the tables in benchmarks/README.md, curves and grid
    python3 scripts/evidence.py --tune        # find the peers' best settings again
    python3 scripts/evidence.py --negative    # benchmarks/negative.json: a negative prompt without an adapter

Measuring needs the weights of every peer and ablation: one LCM-LoRA ships, the first command makes the others under
build/evidence. Training resumes where it stopped; measuring keeps what it has drawn with files that have not changed.
"""

import argparse
import json
import os
import sys

from workshop import environment
from workshop.comfyui import start_comfyui


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--train", metavar="NAME", help="a name from RUNS in workshop/evidence/runs.py, or `all`")
    what.add_argument("--tune", action="store_true", help="write settings.json again")
    what.add_argument("--negative", action="store_true", help="write negative.json again, of 200 prompts")
    parser.add_argument("--count", type=int, default=500, help="prompts of each kind (default: 500)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="default: one for each core")
    return parser.parse_args()


def main() -> int:
    chosen = arguments()
    start_comfyui("--cpu", "--use-pytorch-cross-attention")
    if chosen.train:
        train(chosen.train, chosen.processes)
    elif chosen.tune:
        tune(chosen.processes)
    elif chosen.negative:
        from workshop.evidence import negative

        negative.write()
    else:
        measure(chosen.count, chosen.processes)
    return 0


def train(chosen: str, processes: int) -> None:
    """Train one run or all; the weights of finished ones are only written again."""
    from workshop.evidence.runs import RUNS
    from workshop.mini.loop import launch

    if chosen not in ("all", *RUNS):
        sys.exit(f"There is no run {chosen}: choose one of {', '.join(RUNS)}, or all.")
    launch(train_runs, list(RUNS) if chosen == "all" else [chosen], processes=processes)


def train_runs(names: list[str]) -> None:
    """Train runs in one of their processes."""
    start_comfyui("--cpu", "--use-pytorch-cross-attention")
    from workshop.evidence import runs

    runs.make_latents()
    for name in names:
        runs.train(name)


def tune(processes: int) -> None:
    """Try each peer's candidate settings on prompts of their own; the nearest to teacher-25 is the best."""
    from workshop.evidence import figures, measuring, methods
    from workshop.evidence.report import SETTINGS

    found = {}
    candidates_of = {name: tried for name, tried in methods.CANDIDATES.items() if methods.has_weights(name)}
    everything = [measuring.jobs("teacher-25", "tuning", measuring.TUNING)]
    for name, candidates in candidates_of.items():
        everything += [measuring.jobs(name, "tuning", measuring.TUNING, settings=json.dumps(c)) for c in candidates]
    measuring.work_off([job for parts in everything for job in parts], processes)
    for name, candidates in candidates_of.items():
        tried = [{**c, **figures.tuning_row(name, json.dumps(c))} for c in candidates]
        best = min(range(len(tried)), key=lambda i: tried[i]["frechet"])
        found[name] = {"best": candidates[best], "tried": tried}
    SETTINGS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure(count: int, processes: int) -> None:
    """Make everything that benchmarks/README.md shows."""
    from workshop.evidence import figures, measuring, methods, plots, report
    from workshop.evidence.runs import RUNS

    if missing := [name for name in RUNS if not methods.has_weights(name)]:
        sys.exit(f"These were not trained yet: {', '.join(missing)}. Train them with --train all.")
    wanted = figures.sets(count)
    measuring.work_off([job for parts in wanted.values() for job in parts], processes)
    earlier = json.loads(report.RESULTS.read_text(encoding="utf-8"))["curve"]
    results = figures.results(figures.Measured(wanted), count, earlier)
    report.write(results)
    plots.training_curve(results)
    plots.strength_curve(results)
    plots.grid()
    print(report.tables(results))


if __name__ == "__main__":
    sys.exit(environment.run(main, environment.evidence_packages))
