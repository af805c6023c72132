"""Run the tests against a real ComfyUI, in an environment that the first run makes.

    python3 scripts/test.py                    all of them
    python3 scripts/test.py --quick            what tells most in about a minute: no server, no page, nothing slow
    python3 scripts/test.py [pytest arguments]

COMFYUI_PATH selects another ComfyUI than the one from PyPI (see workshop/environment).
"""

import os
import sys

from workshop import REPOSITORY, environment

QUICK = (
    *("tests/conversion", "tests/nodes", "tests/sun_core", "tests/scripts/test_static.py"),
    *("-m", "not slow"),
)


def main() -> int:
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
    if "--quick" in arguments:
        arguments = [*QUICK, *(argument for argument in arguments if argument != "--quick")]
    environment.exit_on_termination()
    try:
        made = environment.prepare()
        needed = (environment.test_tools, environment.training_packages, environment.metrics_packages)
        folders = [folder for find in needed if (folder := find(made.python))]
    except environment.SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    os.chdir(REPOSITORY)
    environment.become(
        [str(made.python), "-m", "pytest", *arguments],
        {
            "COMFYUI_PATH": str(made.comfyui),
            "COMFYUI_PYTHON": str(made.python),
            "PYTHONPATH": os.pathsep.join(map(str, filter(None, (*folders, os.environ.get("PYTHONPATH"))))),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
