"""Workflows that come from elsewhere: dropped files, old ones, huge ones, broken ones."""

import json
from pathlib import Path

import pytest
from PIL import Image
from workshop.server.comfy_server import ComfyServer

from .conftest import SAMPLER, content, corpus
from .page import CanvasPage


def test_shared_picture_and_file_bring_their_graph_with_sun(
    page: CanvasPage, plain: dict, server: ComfyServer, tmp_path: Path
) -> None:
    page.load(plain)
    page.convert("speed_up")
    page.run_workflow()
    shared = content(page.graph())
    file = tmp_path / "shared.json"
    file.write_text(json.dumps(page.graph()))
    picture = max((server.base / "output" / "SUN").glob("corpus*.png"), key=lambda path: path.stat().st_mtime)
    ((line,),) = json.loads(Image.open(picture).text["sun"]).values()
    assert line.startswith(f"KSampler #{SAMPLER}: 4 steps"), "it remembers the run"
    for dropped in (picture, file):
        page.load({**plain, "nodes": [], "links": []})
        page.drop(dropped)
        page.page.wait_for_function("app.graph.nodes.length === 8")
        page.frames(3)
        assert content(page.graph()) == shared


def test_workflow_of_an_old_page_is_sped_up_and_restored(page: CanvasPage) -> None:
    workflow = corpus("text_to_image_old_file")
    sampler = next(node for node in workflow["nodes"] if node["id"] == SAMPLER)
    sampler["widgets_values"].insert(1, True)  # "random seed after every generation", as it once was
    page.load(workflow)
    before = content(page.graph())
    page.convert("speed_up")
    assert page.values(SAMPLER)["steps"] == 4
    page.convert("restore")
    assert content(page.graph()) == before


def test_node_with_fewer_values_than_today_gets_the_defaults(page: CanvasPage, plain: dict) -> None:
    """As from a version of the pack that had fewer widgets."""
    page.load(plain)
    page.convert("speed_up")
    workflow = page.graph()
    (sun,) = [node for node in workflow["nodes"] if node["type"] == "SUNSpeedUp"]
    sun["widgets_values"] = sun["widgets_values"][:1]
    page.load(workflow)
    values = page.values(sun["id"])
    assert (values["strength"], values["settings"]) == (1, "automatic")


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_two_thousand_nodes_are_converted_and_the_page_lives(page: CanvasPage, plain: dict) -> None:
    nodes, last = plain["nodes"], plain["last_node_id"]
    reroute = {"type": "Reroute", "size": [75, 26], "flags": {}, "mode": 0, "properties": {}}
    slots = {"inputs": [{"name": "", "type": "*", "link": None}], "outputs": [{"name": "", "type": "*", "links": []}]}
    for i in range(2000):
        place = {"id": last + 1 + i, "pos": [i % 50 * 100, 1000 + i // 50 * 60], "order": i}
        nodes.append({**reroute, **json.loads(json.dumps(slots)), **place})
    plain["last_node_id"] = last + 2000
    page.load(plain)
    page.convert("speed_up")
    assert page.values(SAMPLER)["steps"] == 4
    assert len(page.graph()["nodes"]) == len(nodes) + 1
    assert page.undo_steps() == 1


def test_broken_workflow_loses_nothing(page: CanvasPage, plain: dict) -> None:
    """An unknown node, a value out of range, a link to a node that is not there."""
    plain["nodes"].append(
        {"id": 90, "type": "NodeOfNobody", "pos": [0, 600], "size": [200, 60], "flags": {}, "order": 9, "mode": 0,
         "inputs": [], "outputs": [], "properties": {}, "widgets_values": ["kept"]}
    )  # fmt: skip
    sampler = next(node for node in plain["nodes"] if node["id"] == SAMPLER)
    sampler["widgets_values"][2] = 10**9
    plain["links"].append([999, 555, 0, 666, 0, "MODEL"])
    page.load(plain)
    before = content(page.graph())
    page.convert("speed_up")
    assert page.values(SAMPLER)["steps"] == 4
    (unknown,) = page.nodes("NodeOfNobody")
    assert unknown["widgets_values"] == ["kept"]
    page.convert("restore")
    assert content(page.graph()) == before
