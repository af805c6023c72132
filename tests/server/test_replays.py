"""Forwards that a real server, started with ComfyUI's defaults, replays as CUDA graphs. It needs an NVIDIA GPU.

SUN_TEST_DEVICE=cuda python3 scripts/test.py tests/server/test_replays.py
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from workshop.server.comfy_server import ComfyServer
from workshop.server.demo_models import Models
from workshop.server.example_workflows import fill, set_seed

from .conftest import example, render

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need an NVIDIA GPU")


def test_replayed_runs_draw_what_the_first_ones_drew(models: Models, tmp_path: Path) -> None:
    fill(tmp_path, models)
    pictures: dict[int, list[np.ndarray]] = {1: [], 2: []}
    with ComfyServer(Path(os.environ["COMFYUI_PATH"]), tmp_path) as server:
        workflow = example("text_to_image", server.get("/object_info"), models)
        for seed in (1, 2, 1, 2, 1):
            set_seed(workflow, seed)
            pictures[seed].append(render(server, workflow))
        log = server.log_file.read_text(encoding="utf-8", errors="replace")
    assert log.count("SUN: replayed as a CUDA graph") == 3, "all runs after the second"
    for eager, *replayed in pictures.values():
        assert all(np.array_equal(eager, picture) for picture in replayed)
    assert not np.array_equal(pictures[1][0], pictures[2][0])
