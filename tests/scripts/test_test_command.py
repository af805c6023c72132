"""How scripts/test.py starts pytest."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "test.py"


@pytest.fixture(scope="module")
def command() -> ModuleType:
    """Load the script by its path: Python has a module `test` of its own."""
    spec = importlib.util.spec_from_file_location("scripts_test", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_whole_suite_and_the_quick_tier_are_shared_among_workers(command: ModuleType) -> None:
    assert command.pytest_arguments([], 2) == ["-n", "2", "--dist", "loadgroup"]
    quick = command.pytest_arguments(["--quick", "-x"], 2)
    assert quick == [*command.QUICK, "-n", "2", "--dist", "loadgroup", "-x"]


@pytest.mark.parametrize("given", [["tests/nodes"], ["-k", "batch"], ["--pdb"], ["-s"]])
def test_tests_that_are_named_or_debugged_run_in_one_process(given: list[str], command: ModuleType) -> None:
    assert command.pytest_arguments(given, 2) == given


def test_one_core_needs_no_workers(command: ModuleType) -> None:
    assert command.pytest_arguments(["-q"], 1) == ["-q"]


def test_the_quick_tier_names_folders_that_exist(command: ModuleType) -> None:
    paths = [word.removeprefix("--ignore=") for word in command.QUICK if word.removeprefix("--ignore=")[:6] == "tests/"]
    assert len(paths) > 4
    assert all((SCRIPT.parents[1] / path).exists() for path in paths)


def test_conversions_tests_run_without_comfyui_and_torch(tmp_path: Path) -> None:
    """With pytest alone: whatever else this environment has cannot be imported."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules |= dict.fromkeys(('torch', 'comfy', 'comfy_api', 'numpy', 'safetensors'))\n"
    )
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    variables = {name: value for name, value in os.environ.items() if name != "COMFYUI_PATH"} | {"PYTHONPATH": path}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "tests/conversion/test_words.py"]
    result = subprocess.run(command, cwd=SCRIPT.parents[1], env=variables, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
