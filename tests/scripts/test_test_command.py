"""How scripts/test.py starts pytest."""

import importlib.util
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
