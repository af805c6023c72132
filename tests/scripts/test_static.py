"""What the linters and the type checkers find in the code."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from workshop import REPOSITORY, environment

HERE = Path(__file__).parent
MYPY = (
    sys.executable,
    "-m",
    "mypy",
    f"--config-file={REPOSITORY}/pyproject.toml",
    f"--cache-dir={environment.cache_folder() / 'mypy'}",  # torch's types take most of a first run: once for all clones
)


def test_ruff_finds_nothing() -> None:
    assert_passes([sys.executable, "-m", "ruff", "check", str(REPOSITORY)], REPOSITORY)


def test_python_is_formatted() -> None:
    assert_passes([sys.executable, "-m", "ruff", "format", "--check", str(REPOSITORY)], REPOSITORY)


def test_types_of_the_product_are_right(tmp_path: Path) -> None:
    """The pack is a package by whatever name its folder has; mypy needs one that is an identifier."""
    (tmp_path / "sun").symlink_to(REPOSITORY, target_is_directory=True)
    folders = [f"sun/{name}" for name in ("sun_core", "nodes", "conversion", "tools") if (REPOSITORY / name).is_dir()]
    assert_passes([*MYPY, *folders], tmp_path)


def test_types_of_the_scripts_are_right(tmp_path: Path) -> None:
    """The scripts are no part of the pack: Python puts their own folder on the path."""
    (tmp_path / "scripts").symlink_to(REPOSITORY / "scripts", target_is_directory=True)
    assert_passes([*MYPY, "scripts"], tmp_path)


def test_types_of_the_page_are_right(tmp_path: Path) -> None:
    """TypeScript reads the JavaScript of web/js with the types that ComfyUI's frontend publishes."""
    try:
        tools = environment.javascript_tools()
    except environment.SetupError as error:
        pytest.fail(str(error))
    settings = {
        "extends": str(HERE / "javascript" / "tsconfig.json"),
        "compilerOptions": {"paths": {"@comfyorg/*": [f"{tools}/@comfyorg/*"]}},
    }
    (tmp_path / "tsconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    assert_passes(["node", str(tools / "typescript" / "bin" / "tsc"), "--project", str(tmp_path)], tmp_path)


def test_one_function_edits_the_module_path() -> None:
    """Apart from the first lines of the tools, without which they could import nothing of ours."""
    edits = re.compile(r"sys\.path(\[.*\])? *(\+?=|\.(insert|append|extend))")
    found = [
        file.relative_to(REPOSITORY).as_posix()
        for folder in ("nodes", "sun_core", "conversion", "tools", "scripts", "demo", "tests")
        for file in sorted((REPOSITORY / folder).rglob("*.py"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if edits.search(line) and file != Path(__file__)
    ]
    assert found == [*["tools/comfyui.py"] * 2, "tools/convert.py", "tools/evaluate.py", "tools/train.py"]


def assert_passes(command: list[str], folder: Path) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ)
    assert result.returncode == 0, result.stdout + result.stderr
