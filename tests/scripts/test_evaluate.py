"""Evaluation as a user starts it, on the mini family, in a ComfyUI without CLIP's and FID's models."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import comfy.model_base
import comfy.model_patcher
import comfy.supported_models
import environment
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "demo" / "mini_family" / "weights"
CPU = torch.device("cpu")


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


@pytest.fixture
def evaluation(monkeypatch):
    """The script's module here, without the figures' packages, which are only in the scripts' own environment."""
    monkeypatch.setitem(sys.modules, "metrics", MagicMock())
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    import evaluation

    yield evaluation
    del sys.modules["evaluation"]


class SdxlClip:
    """Numbers in the shape of what SDXL's text encoders give, which are not to be had here."""

    def tokenize(self, text):
        return text

    def encode_from_tokens(self, text):
        return torch.zeros(1, 77, 48)

    def encode_from_tokens_scheduled(self, text):
        return [[torch.zeros(1, 77, 48), {"pooled_output": torch.zeros(1, 1280)}]]


def test_sdxl_is_drawn_with_its_pooled_text(evaluation, reference):
    config = dict(reference.unet_config) | {
        "channel_mult": [1, 2], "num_res_blocks": [1, 1], "transformer_depth": [0, 2], "transformer_depth_middle": 2,
        "transformer_depth_output": [0, 0, 2, 2], "adm_in_channels": 2816, "num_classes": "sequential",
        "use_linear_in_transformer": True, "dtype": torch.float32,
    }  # fmt: skip
    base = comfy.model_base.SDXL(comfy.supported_models.SDXL(config), device=CPU).requires_grad_(False).eval()
    for parameter in base.diffusion_model.parameters():
        parameter.fill_(0.01)
    way = evaluation.Way("plain", 1, 1.0, comfy.model_patcher.ModelPatcher(base, CPU, CPU))
    subject = evaluation.Subject(Path(), Path(), [("a cat", "")], 7.0, 64)
    vae = SimpleNamespace(decode=lambda latent: torch.zeros(len(latent), 64, 64, 3))
    pictures, _ = evaluation.draw(way, subject, SdxlClip(), vae, seed=0)
    assert pictures.shape == (1, 3, 64, 64)


def test_a_missing_prompts_file_is_named(evaluate, tmp_path):
    status, _, complaint = evaluate("--prompts", tmp_path / "none.txt")
    assert status == 1
    assert "none.txt" in complaint
