"""A real page in Chromium against a real server, on two frontends and with both ways to draw nodes.

Pictures of every test's last moment are kept in build/browser/.
"""

import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect
from workshop import REPOSITORY, environment
from workshop.server import comfy_page
from workshop.server.comfy_server import ComfyServer
from workshop.server.demo_models import Models, mini_family
from workshop.server.example_workflows import fill

from ..conversion.compare import meaning
from .page import CanvasPage

OLDEST_AND_NEWEST = "1.32.9 1.58.1"
"""The frontend that the oldest supported ComfyUI asks for, and the newest one."""
FRONTENDS = os.environ.get("SUN_TEST_FRONTENDS", OLDEST_AND_NEWEST).split()
PICTURES = REPOSITORY / "build" / "browser"
DRAWN_BY = {"litegraph": False, "vue": True}  # the setting Comfy.VueNodes.Enabled


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let parallel workers take one frontend, or one file of other tests, as a whole: its server starts once."""
    for item in items:
        parameters = getattr(item, "callspec", None)
        frontend = parameters.params.get("frontend") if parameters else None
        item.add_marker(pytest.mark.xdist_group(frontend or str(item.path)))


@pytest.fixture(scope="session")
def models() -> Models:
    return mini_family()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Not for the whole session: while Playwright is on, no other test could run an event loop of its own."""
    expect.set_options(timeout=comfy_page.PATIENCE)
    with comfy_page.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def window(chromium: Browser) -> Iterator[BrowserContext]:
    """One for many tests, as it remembers the files of the page, which take seconds to fetch."""
    context = comfy_page.new_window(chromium, 1500, 900)
    yield context
    context.close()


@pytest.fixture(scope="session", params=FRONTENDS)
def frontend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def server(frontend: str, models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    base = tmp_path_factory.mktemp("comfyui")
    fill(base, models)
    page = ("--front-end-root", str(environment.frontend(frontend)))
    with ComfyServer(Path(os.environ["COMFYUI_PATH"]), base, arguments=("--cpu", *page)) as running:
        yield running


@pytest.fixture(params=DRAWN_BY)
def drawn_by(request: pytest.FixtureRequest) -> str:
    """Who draws the nodes: litegraph on a canvas, or Vue ("Nodes 2.0")."""
    return request.param


@pytest.fixture
def settings(drawn_by: str) -> dict[str, object]:
    """Of the page's user, for a test to add to before it asks for the page."""
    return {**comfy_page.SETTINGS, "Comfy.VueNodes.Enabled": DRAWN_BY[drawn_by]}


@pytest.fixture
def page(
    window: BrowserContext,
    server: ComfyServer,
    frontend: str,
    settings: dict[str, object],
    request: pytest.FixtureRequest,
) -> Iterator[CanvasPage]:
    """The page of a new user with an empty graph. No error may be thrown in it during the test."""
    comfy_page.write_settings(server.base, {**settings, "Comfy.InstalledVersion": frontend})
    page = CanvasPage(window.new_page(), server)
    page.forget_the_user()
    page.open()
    yield page
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.page.screenshot(path=PICTURES / f"{re.sub(r'[^a-z0-9.]+', '-', request.node.name)}.png")
    page.page.close()
    assert page.errors == []


CORPUS = Path(__file__).parents[1] / "conversion" / "corpus"
SAMPLER, CHECKPOINT, SIZE, POSITIVE, NEGATIVE, SAVE = 5, 1, 2, 3, 4, 7  # ids in the corpus' text_to_image


seeds = itertools.count(42)  # another for each test: the server does not draw again what it has drawn


def corpus(name: str) -> dict[str, Any]:
    """A workflow of the conversion's corpus."""
    return json.loads((CORPUS / f"{name}.json").read_text(encoding="utf-8"))


def content(workflow: dict[str, Any]) -> dict[str, Any]:
    """What a workflow does. Where its nodes stand is aside: Nodes 2.0 of frontend 1.32.9 spreads them when it loads."""
    graphs = meaning(workflow)
    for graph in graphs.values():
        for node in graph["nodes"].values():
            del node["pos"]
    return graphs


@pytest.fixture
def plain(models: Models) -> dict[str, Any]:
    """A workflow without SUN that the server can draw: 25 steps, CFG 7.5, dpmpp_2m karras."""
    workflow = corpus("text_to_image")
    nodes = {node["id"]: node for node in workflow["nodes"]}
    nodes[SAMPLER]["widgets_values"][0] = next(seeds)
    nodes[CHECKPOINT]["widgets_values"] = [models.checkpoint.name]
    nodes[SIZE]["widgets_values"] = [models.width, models.height, 1]
    nodes[POSITIVE]["widgets_values"] = [models.positive]
    nodes[NEGATIVE]["widgets_values"] = [models.negative]
    return workflow


@pytest.fixture
def no_adapter(server: ComfyServer, models: Models) -> Iterator[None]:
    """The server without any adapter file."""
    file = server.base / "models" / "sun" / models.adapter.name
    away = server.base / models.adapter.name
    file.rename(away)
    yield
    away.rename(file)


@pytest.fixture
def sped_up(page: CanvasPage, plain: dict) -> int:
    """A graph with SUN on the page; the id of the SUNSpeedUp node."""
    page.load(plain)
    page.convert("speed_up")
    (sun,) = page.nodes("SUNSpeedUp")
    page.look_at(sun["id"])
    return sun["id"]
