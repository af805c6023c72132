"""Run public packs beside SUN: what docs/compatibility.md says of each, measured again.

    python3 scripts/neighbours.py --packs DIR [--only PACK] [--json FILE]
    python3 scripts/neighbours.py --markdown FILE FILE   # only writes the tables of docs/compatibility.md

DIR holds clones of the packs, in folders of their repositories' names (git clone --recursive); those that are missing
are named and left out. Packs are imported as they are, on a CPU; their installers are never run, and Python refuses
them the network and other programs. COMFYUI_PATH names another ComfyUI. It takes some minutes, and needs Python 3.11 or
newer. The exit status is 1 if a pack does not load or a figure is not as expected. --json keeps what FILE holds of
other packs; --markdown takes one such file for each version of ComfyUI.
"""

import argparse
import sys
from pathlib import Path

from workshop import environment
from workshop.neighbours.pack_list import PACKS
from workshop.neighbours.published import publish
from workshop.neighbours.running import all_ok, run_packs


def main(chosen: argparse.Namespace) -> int:
    results = run_packs(chosen.packs.absolute(), chosen.only or list(PACKS), chosen.json)
    return 0 if all_ok(results) else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", type=Path, metavar="DIR", help="folder of clones of the packs")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=list(PACKS),
        metavar="PACK",
        help="run this pack alone, by its name in docs/compatibility.md; may be repeated",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--markdown", type=Path, nargs="+", metavar="FILE", help="write the tables of these files")
    chosen = parser.parse_args()
    if not chosen.markdown and (chosen.packs is None or not chosen.packs.is_dir()):
        parser.error("--packs must name a folder of clones")
    if chosen.json and not chosen.json.absolute().parent.is_dir():
        parser.error(f"there is no folder {chosen.json.absolute().parent} for --json")  # said now, not after minutes
    return chosen


if __name__ == "__main__":
    chosen = arguments()
    if chosen.markdown:
        publish(chosen.markdown)
        sys.exit()
    sys.exit(environment.run(lambda: main(chosen), environment.neighbour_packages))
