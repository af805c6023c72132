"""tools/train.py as a user starts it, on the mini family at few pixels."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "demo" / "mini_family" / "weights" / "mini-storybook.safetensors"
SETTINGS = ("width=16", "height=16", "batch_size=2", "steps=2", "guidance=3", "recipe.segments=2")
WITH_MINI_FAMILY = """
import sys
from comfyui import find_comfyui, start_comfyui
start_comfyui(find_comfyui(), ["--cpu"])
import mini_family
import train
sys.exit(train.main())
"""

Train = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path) -> Train:
    """Run Python with ComfyUI's path and the folder of the tools: its exit status, output and errors."""

    def run(*arguments: str, **variables: str) -> tuple[int, str, str]:
        folders = (ROOT / "tools", ROOT / "demo", os.environ.get("PYTHONPATH"))
        path = os.pathsep.join(str(folder) for folder in folders if folder)
        environment = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"} | variables
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=tmp_path
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def train(run: Train) -> Train:
    def train(
        *arguments: str | Path, settings: tuple[str, ...] = SETTINGS, checkpoint: Path = CHECKPOINT
    ) -> tuple[int, str, str]:
        sets = [word for setting in settings for word in ("--set", setting)]
        return run("-c", WITH_MINI_FAMILY, "--checkpoint", str(checkpoint), "--cpu", *map(str, arguments), *sets)

    return train


def test_interrupt_at_the_start_ends_the_command_without_a_traceback(run: Train) -> None:
    interrupted = """
import sys
import train
def interrupt(files):
    raise KeyboardInterrupt
train.check_files = interrupt
sys.exit(train.main())
"""
    code, _, complaints = run("-c", interrupted, "--checkpoint", "a", "--prompts", "b", "--out", "c")
    assert (code, complaints) == (130, "")


def test_prompts_become_an_adapter_that_says_how_it_was_made(train: Callable, tmp_path: Path) -> None:
    prompts, out = tmp_path / "prompts.txt", tmp_path / "out"
    prompts.write_text("a red cat in the snow\na blue boat at sunset\n")
    arguments = ("--prompts", prompts, "--pictures", "3", "--out", out)
    code, _, complaints = train(*arguments)
    assert code == 0, complaints
    assert "loss" in complaints and "2/2" in complaints, "the progress bar"
    with safe_open(out / "sun_adapter.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["steps"] == "2"
    assert json.loads(metadata["recipe"])["guidance"] == [3.0, 3.0]
    assert json.loads(metadata["data"])["examples"] == 3
    assert json.loads(metadata["evaluation"])["psnr_to_teacher_25"] > 0
    assert str(tmp_path) not in str(metadata) and "cat" not in str(metadata)
    assert {path.name for path in out.iterdir()} == {
        "sun_adapter.safetensors", "cache", "checkpoint.pt", "config.yaml",
        "grids", "logs", "loss.png",
    }  # fmt: skip

    code, _, complaints = train(*arguments, settings=(*SETTINGS, "learning_rate=0.5"))
    assert code == 1
    assert complaints.strip().endswith("choose another folder with --out.")


def test_a_dry_run_tells_memory_and_time_and_leaves_nothing(train: Callable, tmp_path: Path) -> None:
    code, printed, complaints = train("--out", tmp_path / "out", "--dry-run")
    assert code == 0, complaints
    for what in ("U-Net", "adapter", "images/s", "time for 2 steps"):
        assert what in printed
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_a_checkpoint_is_named(train: Train, tmp_path: Path) -> None:
    adapter = ROOT / "tests" / "reference" / "sun_adapter_fp16.safetensors"
    code, _, complaints = train("--out", tmp_path / "out", "--dry-run", checkpoint=adapter)
    assert code == 1
    assert complaints.splitlines()[-1].startswith(f"ComfyUI cannot load {adapter}"), complaints


def test_fp16_on_a_cpu_is_named(train: Train, tmp_path: Path) -> None:
    code, _, complaints = train("--out", tmp_path, "--dry-run", settings=("precision=fp16",))
    assert code == 1
    assert "needs a GPU" in complaints.splitlines()[-1], complaints


COMMAND = (str(ROOT / "tools" / "train.py"), "--checkpoint", str(CHECKPOINT), "--dry-run", "--out", "x", "--cpu")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--set", "steps=[2"), "--set steps=[2 is not YAML"),
        (("--set", "recipe=3", "--set", "recipe.segments=2"), "--set recipe.segments=2 is for a group of settings"),
        (("--set", "steps"), "--set steps sets nothing; write NAME=VALUE."),
        (("--prompts", "latin.txt"), "latin.txt is not a text in UTF-8"),
        (("--prompts", "empty.txt"), "empty.txt holds no prompts; write one on each line."),
        (("--config", "list.yaml"), "list.yaml holds no settings; it must be a list of names with values."),
        (("--config", "nowhere.yaml"), "There is no file nowhere.yaml; check the path that you gave."),
        ((), "which holds no ComfyUI (main.py and comfy/): set it to the folder that ComfyUI's main.py lies in."),
    ],
)
def test_a_mistake_is_named_before_anything_is_loaded(
    arguments: tuple[str, ...], says: str, run: Train, tmp_path: Path
) -> None:
    (tmp_path / "latin.txt").write_bytes(b"a caf\xe9\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "list.yaml").write_text("- steps\n")
    code, _, complaints = run(*COMMAND, *arguments, COMFYUI_PATH=str(tmp_path))
    assert code == 1
    assert says in complaints and complaints.count("\n") == 1, complaints


def test_several_processes_are_launched_and_end_with_the_reason(run: Train) -> None:
    """Without the mini family, neither process knows its checkpoint."""
    code, _, complaints = run(*COMMAND, "--processes", "2")
    assert code == 1
    assert complaints.count(f"ComfyUI cannot load {CHECKPOINT}") == 2, complaints
