"""Pictures that the repository's own code draws, without a model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from workshop.environment.process import INSIDE
from workshop.pictures.registry_pictures import REGISTRY_PICTURES, file_of

from .conftest import SCRIPTS


@pytest.mark.parametrize("name", REGISTRY_PICTURES)
def test_registrys_picture_is_what_the_script_writes(name: str) -> None:
    """`python3 scripts/pictures.py icon banner` writes both."""
    assert file_of(name).read_text(encoding="utf-8") == REGISTRY_PICTURES[name]()


def test_help_names_the_pictures_before_anything_is_installed(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "pictures.py"), "--help"]
    outside = {name: value for name, value in os.environ.items() if name != INSIDE}
    outside |= {"SUN_COMFYUI_CACHE": str(tmp_path)}  # an empty one, which would take minutes to fill
    shown = subprocess.run(command, capture_output=True, text=True, env=outside, timeout=60)
    assert shown.returncode == 0 and "what a help page shows" in shown.stdout, shown.stderr
