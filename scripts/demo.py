"""See SUN at work: 25 steps with CFG against 4 steps with SUN, in a real ComfyUI, from one command.

    python3 scripts/demo.py [--serve] [--port N] [--output DIR] [--checkpoint FILE --adapter FILE]

The first run makes its environment (several GB, see environment.py); later ones start within seconds. Without a
checkpoint the mini family is used, a miniature Stable Diffusion that comes with this repository.
"""

import argparse
import errno
import os
import signal
import sys
from pathlib import Path

import environment


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="leave ComfyUI running, with the workflows ready to open")
    parser.add_argument("--port", type=int, help="port of the server on loopback (default: any free one)")
    parser.add_argument(
        "--output", type=Path, default=environment.REPOSITORY / "output", help="folder for the pictures"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="a Stable Diffusion 1.5 checkpoint of yours")
    parser.add_argument("--adapter", type=Path, metavar="FILE", help="the SUN adapter for that checkpoint")
    chosen = parser.parse_args()
    if (chosen.checkpoint is None) != (chosen.adapter is None):
        parser.error("--checkpoint and --adapter belong together: an adapter fits the models of one family only")
    return chosen


def main() -> int:
    environment.exit_on_termination()
    chosen = arguments()
    for file in filter(None, (chosen.checkpoint, chosen.adapter)):
        if not file.is_file():
            return failed(f"There is no file {file}: check the path that you gave.")
    try:
        if not os.environ.get(environment.INSIDE):
            made = environment.prepare()
            environment.enter(made, *filter(None, [environment.training_packages(made.python)]))  # for its template
        # From here on we run beside ComfyUI's own packages, which these modules need.
        import demonstration
        from comfy_server import ServerError
    except environment.SetupError as error:
        return failed(str(error))
    except KeyboardInterrupt:
        return 130

    for ending in environment.ENDINGS:
        signal.signal(ending, end_at_once)
    models = demonstration.mini_family()
    if chosen.checkpoint:
        models = demonstration.full_size(chosen.checkpoint.absolute(), chosen.adapter.absolute())
    try:
        demonstration.run(models, chosen.output.absolute(), chosen.port, chosen.serve)
    except (ServerError, environment.SetupError, OSError) as error:
        log = getattr(error, "log", "")
        if os.strerror(errno.ENOSPC) in f"{error} {log}":  # met here or by the server
            return failed(disk_is_full(chosen.output))
        if log:
            print(log, file=sys.stderr)
        return failed(str(error))
    return 0


def end_at_once(signum: int, frame: object) -> None:
    """Not by an exception, which a library below us may swallow; the server ends itself when this process is gone."""
    os.write(sys.stdout.fileno(), b"\nStopped.\n")
    os._exit(128 + signum)


def failed(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1


def disk_is_full(output: Path) -> str:
    return (
        f"The disk is full: free some space where {output} or {environment.cache_folder()} lies, or name other folders "
        "with --output and SUN_COMFYUI_CACHE."
    )


if __name__ == "__main__":
    sys.exit(main())
