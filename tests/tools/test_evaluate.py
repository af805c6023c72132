"""tools/evaluate.py as a user starts it, on the mini family, in a ComfyUI without CLIP's and FID's models."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import comfy.model_base
import comfy.model_patcher
import comfy.supported_models
import evaluation
import metrics
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
TOOLS, DEMO = ROOT / "tools", ROOT / "demo"
WEIGHTS = DEMO / "mini_family" / "weights"
CPU = torch.device("cpu")
WITH_MINI_FAMILY = """
import runpy, sys
from comfyui import find_comfyui, start_comfyui
start_comfyui(find_comfyui(), ["--cpu"])
import mini_family
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a tool in a ComfyUI that knows the mini family, as a pack in custom_nodes would teach it."""


@pytest.fixture
def evaluate(tmp_path):
    """Run the tool, `evaluate(prompts=FILE)`: its exit status, output and errors."""
    defaults = {
        "--checkpoint": WEIGHTS / "mini-storybook.safetensors", "--adapter": WEIGHTS / "sun_mini_4step.safetensors",
        "--output": tmp_path / "out", "--cfg": 3, "--size": 96,
    }  # fmt: skip

    def evaluate(**options):
        chosen = defaults | {f"--{name}": value for name, value in options.items()}
        words = [str(word) for option in chosen.items() for word in option]
        command = [sys.executable, "-c", WITH_MINI_FAMILY, str(TOOLS / "evaluate.py"), *words]
        path = os.pathsep.join(filter(None, (str(TOOLS), str(DEMO), os.environ.get("PYTHONPATH"))))
        variables = {"HF_HOME": str(tmp_path / "hf"), "TORCH_HOME": str(tmp_path / "torch"), "PYTHONPATH": path}
        ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | variables)
        return ended.returncode, ended.stdout, ended.stderr

    return evaluate


@pytest.fixture
def prompts(tmp_path):
    """Write a prompts' file: `prompts("a cat")`."""

    def prompts(*lines):
        file = tmp_path / "prompts.txt"
        file.write_text("\n".join(lines), encoding="utf-8")
        return file

    return prompts


def test_two_prompts_give_a_sheet_and_figures_and_say_what_was_left_out(evaluate, prompts, tmp_path):
    status, printed, complaint = evaluate(prompts=prompts("a red cat in the snow", "a mushroom in a meadow | yellow"))
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


def test_a_pickle_that_is_not_fids_own_is_not_opened(tmp_path):
    weights = tmp_path / "inception.pth"
    weights.write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    figures = metrics.Figures(torch.zeros(2, 3, 16, 16), ["a", "b"], str(tmp_path), weights)
    assert any("is not torch-fidelity's" in note for note in figures.notes)
    assert "fid" not in figures.of(torch.ones(2, 3, 16, 16))


def test_likeness_is_measured_without_torchmetrics(monkeypatch):
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None)
    figures = metrics.Figures(torch.zeros(1, 3, 16, 16), ["a"], None, None)
    assert figures.of(torch.full((1, 3, 16, 16), 0.1)) == {"psnr": 20.0}
    assert "torchmetrics" in figures.notes[0]


def test_an_adapter_of_another_family_is_named(evaluate, prompts, reference_folder):
    adapter = reference_folder / "sun_adapter_fp16.safetensors"
    status, _, complaint = evaluate(adapter=adapter, prompts=prompts("a cat"))
    assert status == 1
    assert "does not fit this MODEL" in complaint


class SdxlClip:
    """Returns zeros in the shape of what SDXL's text encoders return; their weights are not available here."""

    def tokenize(self, text):
        return text

    def encode_from_tokens(self, text):
        return torch.zeros(1, 77, 48)

    def encode_from_tokens_scheduled(self, text):
        return [[torch.zeros(1, 77, 48), {"pooled_output": torch.zeros(1, 1280)}]]


def test_sdxl_is_drawn_with_its_pooled_text(reference):
    config = dict(reference.unet_config) | {
        "channel_mult": [1, 2], "num_res_blocks": [1, 1], "transformer_depth": [0, 2], "transformer_depth_middle": 2,
        "transformer_depth_output": [0, 0, 2, 2], "adm_in_channels": 2816, "num_classes": "sequential",
        "use_linear_in_transformer": True, "dtype": torch.float32,
    }  # fmt: skip
    base = comfy.model_base.SDXL(comfy.supported_models.SDXL(config), device=CPU).requires_grad_(False).eval()
    for parameter in base.diffusion_model.parameters():
        parameter.fill_(0.01)
    method = evaluation.Method("plain", 1, 1.0, comfy.model_patcher.ModelPatcher(base, CPU, CPU))
    vae = SimpleNamespace(decode=lambda latent: torch.zeros(len(latent), 64, 64, 3))
    drawn = evaluation.draw(method, [("a cat", "")], SdxlClip(), vae, size=64, seed=0)
    assert drawn.pictures.shape == (1, 3, 64, 64)


def test_a_missing_prompts_file_is_named(evaluate, tmp_path):
    status, _, complaint = evaluate(prompts=tmp_path / "none.txt")
    assert status == 1
    assert "none.txt" in complaint
