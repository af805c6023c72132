"""How the tools find ComfyUI and start it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIND = "from comfyui import find_comfyui; print(find_comfyui())"


def run(code: str, tools: Path = ROOT / "tools", **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("COMFYUI_PATH", "PYTHONPATH")}
    environment |= {"PYTHONPATH": str(tools)} | variables
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    """A folder that looks like ComfyUI."""
    (tmp_path / "ComfyUI" / "comfy").mkdir(parents=True)
    (tmp_path / "ComfyUI" / "custom_nodes").mkdir()
    (tmp_path / "ComfyUI" / "main.py").touch()
    return tmp_path / "ComfyUI"


def test_the_comfyui_that_the_pack_lies_in_is_found(comfyui: Path) -> None:
    pack = comfyui / "custom_nodes" / "any-name"
    pack.symlink_to(ROOT, target_is_directory=True)
    assert run(FIND, tools=pack / "tools").stdout.strip() == str(comfyui)


def test_comfyui_path_comes_first(comfyui: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "comfy").mkdir(parents=True)
    (other / "main.py").touch()
    pack = comfyui / "custom_nodes" / "sun"
    pack.symlink_to(ROOT, target_is_directory=True)
    assert run(FIND, tools=pack / "tools", COMFYUI_PATH=str(other)).stdout.strip() == str(other)


def test_a_pack_outside_of_comfyui_is_told_what_to_do() -> None:
    assert run(FIND).stderr.splitlines()[-1] == (
        f"comfyui.ComfyUIError: {ROOT} does not lie in the custom_nodes of a ComfyUI: set COMFYUI_PATH to the folder "
        "that ComfyUI's main.py lies in."
    )


def test_a_python_without_torch_is_told_what_to_do(comfyui: Path) -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom comfyui import *\nstart_comfyui(find_comfyui())"
    answer = run(code, COMFYUI_PATH=str(comfyui)).stderr.splitlines()[-1]
    assert "has no torch: run this command with the Python that runs ComfyUI" in answer


def test_comfyui_starts_once_and_its_modules_come_before_ours() -> None:
    code = (
        "from comfyui import find_comfyui, start_comfyui\n"
        "for _ in range(2): start_comfyui(find_comfyui(), ['--cpu'])\n"
        "import sys, comfy.cli_args, nodes, sun_core\n"
        "print(comfy.cli_args.args.cpu, sys.argv, nodes.__file__, sun_core.__file__, sep='\\n')"
    )
    printed = run(
        code,
        COMFYUI_PATH=os.environ["COMFYUI_PATH"],
        PYTHONPATH=os.pathsep.join([str(ROOT / "tools"), os.environ.get("PYTHONPATH", "")]),
    ).stdout.splitlines()
    assert printed[-4:] == [
        "True",
        "['-c']",
        str(Path(os.environ["COMFYUI_PATH"]) / "nodes.py"),
        str(ROOT / "sun_core" / "__init__.py"),
    ]


@pytest.mark.parametrize("tool", ["convert.py", "evaluate.py", "train.py"])
def test_a_command_starts_in_a_python_that_leaves_its_folder_out(tool: str) -> None:
    """As ComfyUI's portable one does, because of the ._pth file beside it; -I stands for that."""
    command = [sys.executable, "-I", str(ROOT / "tools" / tool), "--help"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
