"""See SUN at work: 25 steps with CFG against 4 steps with SUN, in a real ComfyUI, from one command.

    python3 scripts/demo.py [--serve] [--port N] [--output DIR] [--checkpoint FILE --adapter FILE]

The first run makes its environment (several GB, see workshop/environment); later ones start within seconds. Without a
checkpoint the demo uses the mini family, a miniature Stable Diffusion that comes with this repository.
"""

import argparse
import errno
import os
import signal
import sys
from pathlib import Path

from workshop import REPOSITORY, environment


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="leave ComfyUI running, with the workflows ready to open")
    parser.add_argument("--port", type=int, help="port of the server on loopback (default: any free one)")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "output", help="folder for the pictures")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="your own Stable Diffusion 1.5 checkpoint")
    parser.add_argument("--adapter", type=Path, metavar="FILE", help="the SUN adapter for that checkpoint")
    chosen = parser.parse_args()
    if (chosen.checkpoint is None) != (chosen.adapter is None):
        parser.error("--checkpoint and --adapter belong together: an adapter fits the models of one family only")
    return chosen


def main() -> int:
    chosen = arguments()
    for file in filter(None, (chosen.checkpoint, chosen.adapter)):
        if not file.is_file():
            return failed(f"There is no file {file}: check the path that you gave.")
    # the template that trains an adapter needs training's packages
    return environment.run(lambda: demo(chosen), environment.training_packages)


def demo(chosen: argparse.Namespace) -> int:
    # These need ComfyUI's own packages.
    from workshop.server import demonstration
    from workshop.server.comfy_server import ServerError
    from workshop.server.demo_models import full_size, mini_family

    for ending in environment.ENDINGS:
        signal.signal(ending, end_at_once)
    models = mini_family()
    if chosen.checkpoint:
        models = full_size(chosen.checkpoint.absolute(), chosen.adapter.absolute())
    try:
        demonstration.run(models, chosen.output.absolute(), chosen.port, chosen.serve)
    except (ServerError, OSError) as error:
        log = getattr(error, "log", "")
        if os.strerror(errno.ENOSPC) in f"{error} {log}":  # raised here or by the server
            return failed(disk_is_full(chosen.output))
        if log:
            print(log, file=sys.stderr)
        return failed(str(error))
    return 0


def end_at_once(signum: int, frame: object) -> None:
    """End without an exception, which a library below us may swallow; the server ends itself when we are gone."""
    os.write(sys.stdout.fileno(), b"\nStopped.\n")
    os._exit(128 + signum)


def failed(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1


def disk_is_full(output: Path) -> str:
    return (
        f"The disk is full: free some space where {output} or {environment.cache_folder()} lies, or choose other "
        "folders with --output and SUN_COMFYUI_CACHE."
    )


if __name__ == "__main__":
    sys.exit(main())
