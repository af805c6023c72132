"""What the linter and the type checker say of the code."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_ruff_finds_nothing() -> None:
    assert_passes("ruff", "check", str(REPOSITORY), folder=REPOSITORY)


def test_mypy_finds_nothing(tmp_path: Path) -> None:
    """The pack is a package by whatever name its folder has; mypy needs one that is an identifier."""
    (tmp_path / "sun").symlink_to(REPOSITORY, target_is_directory=True)
    settings = ("--config-file", str(REPOSITORY / "pyproject.toml"), "--cache-dir", str(REPOSITORY / ".mypy_cache"))
    assert_passes("mypy", *settings, "sun/sun_core", "sun/nodes", "sun/conversion", folder=tmp_path)


def assert_passes(tool: str, *arguments: str, folder: Path) -> None:
    command = [sys.executable, "-m", tool, *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ)
    assert result.returncode == 0, result.stdout + result.stderr
