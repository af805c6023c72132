"""Settings of a sampler in a subgraph that stand on the subgraph's node: what would be queued, with SUN and without."""

from typing import Any

import pytest
from sun_pack.conversion.plan import convert

from .conftest import content, corpus
from .page import CanvasPage

NAMES = (
    "subgraph_with_promoted_settings",
    "subgraph_with_settings_promoted_by_an_older_page",
    "subgraph_with_proxies_of_settings",
    "subgraph_with_promoted_settings_used_twice",
    "subgraph_with_promoted_settings_in_a_subgraph",
    "subgraph_with_promoted_steps_driven_from_outside",
    "subgraph_with_promoted_steps_of_two_samplers",
)
SETTINGS = ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise")
SPED_UP = {"steps": 4, "cfg": 1, "sampler_name": "ddim", "scheduler": "simple"}

Queued = dict[str, dict[str, Any]]


def queued(page: CanvasPage, workflow: dict[str, Any] | None = None) -> Queued:
    """The settings that each sampler would be queued with, of a workflow that is loaded first, or as the page is."""
    if workflow is not None:
        page.load(workflow)
    output = page.page.evaluate("async () => (await app.graphToPrompt()).output")
    samplers = {number: node["inputs"] for number, node in output.items() if node["class_type"] == "KSampler"}
    return {number: {name: inputs[name] for name in SETTINGS} for number, inputs in samplers.items()}


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
@pytest.mark.parametrize("name", NAMES)
def test_promoted_settings_are_sped_up_and_come_back(page: CanvasPage, no_adapter: None, name: str) -> None:
    before, loaded = queued(page, corpus(name)), content(page.graph())
    sped_up = {number: {**settings, **SPED_UP} for number, settings in before.items()}
    assert before and before != sped_up

    page.convert("speed_up")
    assert queued(page) == sped_up
    assert queued(page, page.graph()) == sped_up, "saved and loaded again"
    page.convert("restore")
    assert queued(page) == before and content(page.graph()) == loaded
    assert queued(page, page.graph()) == before, "saved and loaded again"

    file = corpus(f"{name}.expected")
    assert queued(page, file) == sped_up, "by convert.py"
    assert queued(page, convert("restore", page.graph())[0]) == before, "by the page's file and convert.py"
    assert queued(page, convert("restore", file)[0]) == before, "by convert.py there and back"
    assert queued(page, file) == sped_up
    page.convert("restore")
    assert queued(page) == before, "by convert.py and the page"
