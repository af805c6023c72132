"""Make the pictures of the templates, the help pages and the README with the mini family, and the registry's.

    python3 scripts/pictures.py [names]

Without a name all are made. Names:
    a workflow's, for example_workflows/<name>.jpg
    what a help page shows, such as `strength`, for web/docs/images/<name>.jpg
    `comparison`, for the README's docs/images/comparison.jpg
    `graph`, `badge` or a node's id, for a screenshot of ComfyUI's page
    `icon` or `banner`, for the registry's docs/<name>.svg
"""

import argparse
import sys

from workshop import environment

FRONTEND = "1.32.9"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="what to make (default: all)")
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> int:
    # These need ComfyUI's own packages.
    from workshop.pictures.drawn_pictures import DRAWN, make_drawn
    from workshop.pictures.page_pictures import PICTURES, take_screenshots
    from workshop.pictures.registry_pictures import REGISTRY_PICTURES, write_registry_pictures

    known = (*DRAWN, *PICTURES, *REGISTRY_PICTURES)
    names = chosen.names or known
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"There is no picture {unknown[0]}: choose from {', '.join(known)}.")
    if drawn := [name for name in names if name in DRAWN]:
        make_drawn(drawn)
    if taken := [name for name in names if name in PICTURES]:
        take_screenshots(taken, FRONTEND)
    write_registry_pictures([name for name in names if name in REGISTRY_PICTURES])
    return 0


if __name__ == "__main__":
    chosen = arguments()
    needed = (environment.test_tools, environment.training_packages, environment.evidence_packages)
    sys.exit(environment.run(lambda: main(chosen), *needed))
