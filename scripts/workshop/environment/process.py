"""Run a command in its environment, and end it on a signal."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from .. import REPOSITORY
from .installation import Environment, prepare
from .setup_error import SetupError

INSIDE = "SUN_COMFYUI_INSIDE"  # set for what runs in the finished environment
ENDINGS = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])
"""The signals by which a user, a shell or a system ends a command."""

Packages = Callable[[Path], Path | None]
"""From a Python to the folder of packages that it needs on its PYTHONPATH."""


def run(main: Callable[[], int], *packages: Packages) -> int:
    """Call `main` in the prepared environment with these packages, and return its exit status.

    Outside of that environment the current command starts again inside it, with the same arguments. A SetupError, also
    one of `main`, becomes one sentence.
    """
    exit_on_termination()
    try:
        if not os.environ.get(INSIDE):
            made = prepare()
            _enter(made, [folder for find in packages if (folder := find(made.python))])
        return main()
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _enter(environment: Environment, folders: list[Path]) -> NoReturn:
    ours = (REPOSITORY / "tools", REPOSITORY / "demo")  # what workshop/comfyui.py imports
    path = os.pathsep.join(filter(None, (*map(str, (*folders, *ours)), os.environ.get("PYTHONPATH"))))
    variables = {INSIDE: "1", "COMFYUI_PATH": str(environment.comfyui), "PYTHONPATH": path}
    become([str(environment.python), *sys.argv], variables)


def comfyui_path() -> Path:
    """Return the ComfyUI of the environment that this command runs in (see `run`)."""
    return Path(os.environ["COMFYUI_PATH"])


def become(command: list[str], variables: dict[str, str]) -> NoReturn:
    """Run `command` in place of this process, with these environment variables added."""
    sys.stdout.flush()
    if os.name == "nt":  # exec on Windows would return to the shell while the command still runs
        sys.exit(subprocess.call(command, env=os.environ | variables))
    os.execve(command[0], command, os.environ | variables)


def exit_on_termination() -> None:
    """Let SIGTERM and a closed terminal unwind the stack, as Ctrl+C does, so that children are ended on the way out.

    Ctrl+C itself is set up as well: a shell starts background jobs with SIGINT ignored.
    """

    def leave(signum: int, frame: object) -> None:
        sys.exit(128 + signum)

    for ending in ENDINGS:
        signal.signal(ending, signal.default_int_handler if ending == signal.SIGINT else leave)
