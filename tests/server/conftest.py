"""One real ComfyUI server for all tests of this folder, with this pack, the mini family and its adapter."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from workshop.server.comfy_server import ComfyServer
from workshop.server.demo_models import Models, mini_family
from workshop.server.example_workflows import examples, fill, link
from workshop.server.workflows import Workflow


@pytest.fixture(scope="session")
def models() -> Models:
    return mini_family()


@pytest.fixture(scope="session")
def server(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    base = tmp_path_factory.mktemp("comfyui")
    fill(base, models)
    link(Path(__file__).parent / "looping_pack.py", base / "custom_nodes" / "looping_pack.py")
    settings = base / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"Comfy.Locale": "en"}', encoding="utf-8")  # whatever language a test's requests name
    with ComfyServer(Path(os.environ["COMFYUI_PATH"]), base, arguments=("--cpu",)) as running:
        yield running


@pytest.fixture(scope="session")
def object_info(server: ComfyServer) -> dict[str, Any]:
    return server.get("/object_info")


@pytest.fixture
def workflow(object_info: dict[str, Any], models: Models) -> Workflow:
    """The text to image workflow that ships, set to the mini family."""
    return example("text_to_image", object_info, models)


@pytest.fixture
def reference_picture(server: ComfyServer, workflow: Workflow) -> Iterator[None]:
    """Whatever the test provokes, the server must draw the same picture before and after it."""
    good, save = workflow.to_api(), workflow.node_id("Save picture")
    before = server.run(good).pictures[save]
    yield
    server.forget_results()
    assert server.is_alive()
    assert np.array_equal(pixels(server.run(good).pictures[save]), pixels(before))


def example(name: str, object_info: dict[str, Any], models: Models) -> Workflow:
    return examples(models, object_info)[name]


def render(server: ComfyServer, workflow: Workflow, save: str = "Save picture") -> np.ndarray:
    """The pixels that the workflow's node `save` wrote: (height, width, 3), 0..255."""
    return pixels(server.run(workflow.to_api()).pictures[workflow.node_id(save)])


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.int16)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of two pictures, of 255."""
    return float(np.abs(a - b).mean())
