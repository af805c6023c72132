"""train.py as a user starts it, on the mini family at few pixels."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "demo" / "mini_family" / "weights" / "mini-storybook.safetensors"
SETTINGS = ("width=16", "height=16", "batch_size=2", "steps=2", "guidance=3", "recipe.segments=2")

Start = Callable[..., subprocess.Popen[str]]
Ended = Callable[[subprocess.Popen[str]], tuple[int, str, str]]


@pytest.fixture
def train(start: Start, ended: Ended) -> Callable[..., tuple[int, str, str]]:
    def train(
        *arguments: str | Path, settings: tuple[str, ...] = SETTINGS, checkpoint: Path = CHECKPOINT
    ) -> tuple[int, str, str]:
        sets = [word for setting in settings for word in ("--set", setting)]
        return ended(start("train.py", "--checkpoint", str(checkpoint), "--cpu", *map(str, arguments), *sets))

    return train


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


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("steps=[2",), "--set steps=[2 is not YAML"),
        (("recipe=3", "recipe.segments=2"), "--set recipe.segments=2 is for a group of settings"),
        (("precision=fp16",), "needs a GPU"),
    ],
)
def test_a_setting_that_cannot_be_is_named(
    settings: tuple[str, ...], says: str, train: Callable, tmp_path: Path
) -> None:
    code, _, complaints = train("--out", tmp_path, "--dry-run", settings=settings)
    assert code == 1
    assert says in complaints.splitlines()[-1], complaints


def test_files_of_another_kind_are_named(train: Callable, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_bytes(b"a caf\xe9\n")
    code, _, complaints = train("--prompts", prompts, "--out", tmp_path / "out")
    assert code == 1
    assert complaints.splitlines()[-1].startswith(f"{prompts} is not a text in UTF-8"), complaints
    adapter = ROOT / "tests" / "reference" / "sun_adapter_fp16.safetensors"
    code, _, complaints = train("--out", tmp_path / "out", "--dry-run", checkpoint=adapter)
    assert code == 1
    assert complaints.splitlines()[-1].startswith(f"ComfyUI cannot load {adapter}"), complaints


def test_a_file_that_is_not_there_is_named_before_anything_is_installed(start: Start, ended: Ended) -> None:
    code, _, complaints = ended(start("train.py", "--checkpoint", "nowhere.safetensors", "--data", ".", "--out", "x"))
    assert (code, complaints) == (1, "There is no file nowhere.safetensors: check the path that you gave.\n")
