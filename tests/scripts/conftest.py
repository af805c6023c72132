"""The scripts as a user starts them, and their modules."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a script in the environment of the tests: `start("demo.py", "--serve", VARIABLE="value")`."""
    started = []

    def start(script: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        known = {
            "COMFYUI_PATH": os.environ["COMFYUI_PATH"],
            "COMFYUI_PYTHON": sys.executable,
            "SUN_COMFYUI_CACHE": str(tmp_path / "cache"),
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, str(SCRIPTS / script), *arguments]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | known | variables
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                one.kill()
        process.wait()


@pytest.fixture
def ended() -> Callable[[subprocess.Popen[str]], tuple[int, str, str]]:
    """Wait for a script: its exit status, output and errors."""

    def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
        out, err = process.communicate()
        return process.returncode, out, err

    return ended
