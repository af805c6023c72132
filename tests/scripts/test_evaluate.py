"""Evaluation as a user starts it, on the mini family, in a ComfyUI without CLIP's and FID's models."""

import json
from pathlib import Path

import environment
import pytest
from PIL import Image

WEIGHTS = Path(__file__).parents[2] / "demo" / "mini_family" / "weights"


@pytest.fixture
def evaluate(start, ended, tmp_path):
    """`evaluate("--prompts", ...)`: exit status, what was printed, what was complained about."""

    def evaluate(*arguments):
        process = start(
            "evaluate.py", "--output", str(tmp_path / "out"), *map(str, arguments),
            HF_HOME=str(tmp_path / "hf"), TORCH_HOME=str(tmp_path / "torch"),
            SUN_COMFYUI_CACHE=str(environment.cache_folder()),
        )  # fmt: skip
        return ended(process)

    return evaluate


def test_two_prompts_give_a_sheet_and_figures_and_say_what_was_left_out(evaluate, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red cat in the snow\na mushroom in a meadow | yellow\n", encoding="utf-8")
    status, printed, complaint = evaluate("--prompts", prompts)
    assert status == 0, complaint
    found = json.loads((tmp_path / "out" / "figures.json").read_text(encoding="utf-8"))
    teacher, plain, sun = found["ways"]
    assert found["prompts"] == 2
    assert [way["evaluations"] for way in found["ways"]] == [50, 4, 4]
    assert sun["psnr"] > plain["psnr"]
    assert 0 < sun["ssim"] < 1
    assert sun["times faster"] > 1 == teacher["times faster"]
    assert Image.open(tmp_path / "out" / "comparison.png").width > 3 * 192
    assert "No CLIP score: it needs a CLIP model" in printed
    assert "No FID: it needs the weights" in printed


def test_a_pickle_that_is_not_fids_own_is_not_opened(evaluate, tmp_path):
    weights, prompts = tmp_path / "inception.pth", tmp_path / "prompts.txt"
    weights.write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    prompts.write_text("a red cat in the snow\n", encoding="utf-8")
    status, printed, _ = evaluate("--prompts", prompts, "--inception", weights)
    assert status == 0
    assert "is not torch-fidelity's" in printed


def test_an_adapter_of_another_family_is_named(evaluate, tmp_path, reference_folder):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\n", encoding="utf-8")
    adapter = reference_folder / "sun_adapter_fp16.safetensors"
    model = WEIGHTS / "mini-storybook.safetensors"
    status, _, complaint = evaluate("--checkpoint", model, "--adapter", adapter, "--prompts", prompts)
    assert status == 1
    assert "does not fit this MODEL" in complaint


def test_a_missing_prompts_file_is_named(evaluate, tmp_path):
    status, _, complaint = evaluate("--prompts", tmp_path / "none.txt")
    assert status == 1
    assert "none.txt" in complaint
