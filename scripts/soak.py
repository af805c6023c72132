"""Run hundreds of workflows on one real ComfyUI server: nothing may change, and nothing may grow.

    python3 scripts/soak.py [--runs 300] [--seed 0] [--json FILE]

The mini family draws with changing workflows, prompts, seeds, sizes and adapters. Some runs are interrupted; before
others all models are unloaded and the adapters' files written anew. A drawing that comes again must be bit-identical,
and the server's memory, open files and threads must not grow. The exit status is 1 if any of this fails.
"""

import argparse
import json
import sys
from pathlib import Path

from workshop import environment


def main() -> int:
    chosen = arguments()
    # These need ComfyUI's own packages.
    from workshop.server.comfy_server import ServerError
    from workshop.soak.soaking import soak

    print(f"{chosen.runs} runs take about {chosen.runs / 60:.0f} minutes on two cores.", flush=True)
    try:
        done = soak(chosen.runs, chosen.seed)
    except ServerError as error:
        print(f"{error}\n{error.log}", file=sys.stderr)
        return 1
    figures = done.summary()
    print("\n" + "\n".join(f"{name}: {value}" for name, value in figures.items()))
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    for sentence in done.failures():
        print(sentence, file=sys.stderr)
    return 1 if done.failures() else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300, metavar="N", help="how many workflows to run (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    chosen = parser.parse_args()
    if chosen.runs < 9:
        parser.error("--runs must be at least 9, so that the thirds can be compared")
    if chosen.json and not chosen.json.absolute().parent.is_dir():
        parser.error(f"there is no folder {chosen.json.absolute().parent} for --json")  # said now, not after minutes
    return chosen


if __name__ == "__main__":
    sys.exit(environment.run(main))
