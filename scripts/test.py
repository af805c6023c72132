"""Run the tests against a real ComfyUI, in an environment that is made on the first run.

    python3 scripts/test.py [arguments for pytest]

COMFYUI_PATH names another ComfyUI than the one from PyPI (see environment.py).
"""

import os
import sys

import environment


def main() -> int:
    environment.exit_on_termination()
    try:
        made = environment.prepare()
        added = [environment.test_tools(made.python), environment.training_packages(made.python)]
        added.append(environment.packages(made.python, "metrics", environment.METRICS))
    except environment.SetupError as error:
        print(error, file=sys.stderr)
        return 1
    os.chdir(environment.REPOSITORY)
    environment.become(
        [str(made.python), "-m", "pytest", *sys.argv[1:]],
        {
            "COMFYUI_PATH": str(made.comfyui),
            "COMFYUI_PYTHON": str(made.python),
            "PYTHONPATH": os.pathsep.join(map(str, filter(None, (*added, os.environ.get("PYTHONPATH"))))),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
