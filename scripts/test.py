"""Run the tests against a real ComfyUI, in an environment that the first run makes.

    python3 scripts/test.py                    all of them
    python3 scripts/test.py --quick            the most telling, in about a minute: no server, browser or training
    python3 scripts/test.py [pytest arguments]

Both first forms share the tests among worker processes, one for each core up to four; other pytest options may follow,
such as -x or -n1. Tests that are named, by a path or -k, run in one process unless -n is given.

COMFYUI_PATH selects another ComfyUI than the one from PyPI (see workshop/environment).
"""

import os
import sys

from workshop import REPOSITORY, environment

QUICK = (
    *("tests/conversion", "tests/nodes", "tests/sun_core", "tests/scripts/test_static.py", "-m", "not slow"),
    *("--ignore=tests/sun_core/training", "--ignore=tests/nodes/test_train.py"),
    # hostile files, and what stands beside other packs' nodes or in other families of models
    *("--ignore=tests/conversion/test_hostile_workflows.py", "--ignore=tests/sun_core/test_hostile_adapters.py"),
    *("--ignore=tests/sun_core/test_windows.py", "--ignore=tests/sun_core/test_motion.py"),
    *("--ignore=tests/sun_core/test_regions.py", "--ignore=tests/sun_core/test_core_nodes.py"),
    *("--ignore=tests/sun_core/test_transformers.py", "--ignore=tests/sun_core/replays"),
)
MOST_WORKERS = 4  # each holds ComfyUI, a server and perhaps a browser in memory


def main() -> int:
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
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
    workers = min(os.cpu_count() or 1, MOST_WORKERS)
    variables = {
        "COMFYUI_PATH": str(made.comfyui),
        "COMFYUI_PYTHON": str(made.python),
        "PYTHONPATH": os.pathsep.join(map(str, filter(None, (*folders, os.environ.get("PYTHONPATH"))))),
    }
    arguments = pytest_arguments(sys.argv[1:], workers)
    if "loadgroup" in arguments and "OMP_NUM_THREADS" not in os.environ:
        # threads of several workers on the same cores would only wait for each other
        variables["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    environment.become([str(made.python), "-m", "pytest", *arguments], variables)


def pytest_arguments(given: list[str], workers: int) -> list[str]:
    """Add what --quick means, and how tests are shared among workers unless they are named or debugged."""
    quick = "--quick" in given
    options = [argument for argument in given if argument != "--quick"]
    named = any(not option.startswith("-") for option in options) or {"-s", "--pdb"} & set(options)
    shared = ["-n", str(workers), "--dist", "loadgroup"] if workers > 1 and not named else []
    return [*(QUICK if quick else ()), *shared, *options]


if __name__ == "__main__":
    sys.exit(main())
