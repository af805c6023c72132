"""Speed up with SUN, as an artist does it, and the way back."""

import pytest
from playwright.sync_api import expect

from .conftest import SAMPLER, content, corpus
from .page import CanvasPage
from .test_samplers import menu

SPED_UP = {"steps": 4, "cfg": 1, "sampler_name": "ddim", "scheduler": "simple"}
PLAIN = {"steps": 25, "cfg": 7.5, "sampler_name": "dpmpp_2m", "scheduler": "karras"}


def sampler_settings(page: CanvasPage, node: int = SAMPLER) -> dict:
    values = page.values(node)
    return {name: values[name] for name in PLAIN}


def test_from_the_mouse_to_the_picture_and_back(page: CanvasPage, plain: dict, frontend: str, drawn_by: str) -> None:
    """Insert, undo, redo, run, save and load again, restore: the life of a graph."""
    page.load(plain)
    page.show_all()
    if (frontend, drawn_by) == ("1.32.9", "vue"):  # whose menu leaves out what packs offer
        page.select(SAMPLER)
        page.page.locator(".selection-toolbox .pi-bolt, .pi-bolt").first.click()
    else:
        page.right_click(*page.point_of(SAMPLER))
        page.choose("Speed up with SUN")
    assert "steps 25 -> 4" in page.toast()
    before = content(plain)
    (sun,) = page.nodes("SUNSpeedUp")
    assert sampler_settings(page) == SPED_UP
    assert sun["widgets_values"] == ["sun_mini_4step.safetensors", 1, "automatic"], "the face is not saved"
    assert page.undo_steps() == 1

    page.undo()
    assert content(page.graph()) == before
    page.redo()
    assert sampler_settings(page) == SPED_UP and len(page.nodes("SUNSpeedUp")) == 1

    page.run_workflow()
    assert page.picture_size() == (plain["nodes"][1]["widgets_values"][0], plain["nodes"][1]["widgets_values"][1])
    face = page.face(sun["id"])
    expect(face).to_contain_text("4 steps · 4 evaluations · ")

    saved = page.save(f"sped up {drawn_by}")
    page.reopen(f"sped up {drawn_by}")
    expect(face).to_contain_text("4 steps, automatic")  # the server's answer can make the node taller
    page.settle()
    assert content(page.graph()) == content(saved)
    page.select(SAMPLER)
    page.page.locator(".pi-replay").first.click()
    assert "25" in page.toast()
    assert content(page.graph()) == before
    assert page.undo_steps() == 1


def test_key_speeds_up_what_is_selected(page: CanvasPage) -> None:
    page.load(corpus("two_checkpoints"))
    page.show_all()
    chosen, other = (node["id"] for node in page.nodes("KSampler"))
    before = sampler_settings(page, other)
    page.select(chosen)
    page.press("Control", "Shift", "L")
    page.toast()
    assert sampler_settings(page, chosen) == SPED_UP
    assert sampler_settings(page, other) == before
    assert page.undo_steps() == 1
    page.expect_notes(chosen, "CFG ignored · negative: “people, text”")
    offered = {
        node: {"Speed up with SUN", "Restore what SUN changed"} & set(menu(page, node)) for node in (chosen, other)
    }
    assert offered == {chosen: {"Restore what SUN changed"}, other: {"Speed up with SUN"}}


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_each_part_of_a_custom_sampler_offers_to_speed_it_up(page: CanvasPage) -> None:
    for part in ("CFGGuider", "KSamplerSelect", "BasicScheduler", "SamplerCustomAdvanced"):
        page.load(corpus("custom_advanced"))
        page.show_all()
        (node,) = page.nodes(part)
        page.right_click(*page.point_of(node["id"]))
        page.choose("Speed up with SUN")
        page.page.wait_for_function("app.graph.nodes.some((node) => node.type === 'SUNSpeedUp')")
        (guider,) = page.nodes("CFGGuider")
        assert guider["widgets_values"] == [1]


def test_canvas_menu_speeds_up_the_whole_graph(page: CanvasPage) -> None:
    page.load(corpus("two_checkpoints"))
    page.show_all()
    page.right_click(300, 830)
    page.choose("Speed up the whole graph with SUN")
    page.toast()
    assert len(page.nodes("SUNSpeedUp")) == 2
    page.undo()
    assert content(page.graph()) == content(corpus("two_checkpoints"))


def test_sampler_in_a_subgraph_is_one_undo_step_too(page: CanvasPage) -> None:
    workflow = corpus("subgraph_with_the_sampler")
    page.load(workflow)
    page.show_all()
    page.command("SUN.SpeedUp")
    page.toast()
    (definition,) = page.graph()["definitions"]["subgraphs"]
    assert [node["type"] for node in definition["nodes"]].count("SUNSpeedUp") == 1
    assert page.undo_steps() == 1
    page.undo()
    (definition,) = page.graph()["definitions"]["subgraphs"]
    assert [node["type"] for node in definition["nodes"]].count("SUNSpeedUp") == 0


@pytest.mark.parametrize(("name", "reason"), [("flux", "its model is Flux"), ("sped_up_already", "already")])
def test_what_cannot_be_helped_stays_and_is_explained(page: CanvasPage, name: str, reason: str) -> None:
    page.load(corpus(name))
    before = page.graph()
    page.command("SUN.SpeedUp")
    assert reason in page.toast()
    assert content(page.graph()) == content(before)
    assert page.undo_steps() == 0


@pytest.mark.parametrize("steps_before", [0, 50])  # as many as the page keeps
def test_edits_of_which_one_does_not_fit_change_nothing(page: CanvasPage, plain: dict, steps_before: int) -> None:
    page.load(plain)
    page.page.evaluate(
        """(count) => {
            const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker
            for (let i = 0; i < count; i++) tracker.undoQueue.push(structuredClone(tracker.activeState))
        }""",
        steps_before,
    )
    edits = [
        {"op": "set", "graph": None, "node": SAMPLER, "widget": "steps", "value": 4},
        {"op": "remove", "graph": None, "node": 1},
        {"op": "connect", "graph": None, "from": [555, 0], "to": [SAMPLER, "model"]},
    ]
    script = """async ([file, edits]) => {
        const { applyEdits } = await import(file)
        return applyEdits(edits).then(() => 'applied', (error) => error.message)
    }"""
    said = page.page.evaluate(script, ["/extensions/sun-for-comfyui/js/edits.js", edits])
    assert "no longer has node 555" in said
    assert content(page.graph()) == content(plain)
    if not steps_before:
        assert page.undo_steps() == 0
