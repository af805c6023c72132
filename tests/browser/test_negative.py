"""Let the negative prompt count, as an artist does it, and the way back."""

import pytest
from playwright.sync_api import expect

from .conftest import SAMPLER, content, corpus
from .page import CanvasPage

ENTRY = "Let the negative prompt count"


@pytest.fixture
def few_step(plain: dict) -> dict:
    """A workflow that the server can draw, with the settings of a few-step model: 4 steps at CFG 1.5."""
    sampler = next(node for node in plain["nodes"] if node["id"] == SAMPLER)
    sampler["widgets_values"][2:6] = [4, 1.5, "euler", "simple"]
    return plain


def test_from_the_mouse_to_the_picture_and_back(page: CanvasPage, few_step: dict, frontend: str, drawn_by: str) -> None:
    page.load(few_step)
    page.show_all()
    if (frontend, drawn_by) == ("1.32.9", "vue"):  # whose menu leaves out what packs offer
        page.select(SAMPLER)
        page.page.locator(".selection-toolbox .pi-minus-circle, .pi-minus-circle").first.click()
    else:
        page.right_click(*page.point_of(SAMPLER))
        page.choose(ENTRY)
    assert "cfg 1.5 -> 1" in page.toast()
    before = content(few_step)
    (new,) = page.nodes("SUNNegative")
    assert new["widgets_values"] == [3, 5, 0.5, 0, 1, "automatic"], "the face is not saved"
    settings = page.values(SAMPLER)
    assert [settings[name] for name in ("steps", "cfg", "sampler_name", "scheduler")] == [4, 1, "euler", "simple"]
    assert page.undo_steps() == 1

    page.undo()
    assert content(page.graph()) == before
    page.redo()
    assert len(page.nodes("SUNNegative")) == 1

    page.run_workflow()
    expect(page.face(new["id"])).to_contain_text("4 steps · 4 evaluations · ")
    page.set_value(new["id"], "scale", 1)
    expect(page.face(new["id"])).to_contain_text("turned off by its own settings")
    expect(page.face(new["id"])).not_to_contain_text("evaluations")
    page.undo()

    saved = page.save(f"counting {drawn_by}")
    page.reopen(f"counting {drawn_by}")
    assert content(page.graph()) == content(saved)
    page.select(SAMPLER)
    page.page.locator(".pi-replay").first.click()
    assert "Negative Prompt at CFG 1 is removed" in page.toast()
    assert content(page.graph()) == before
    assert page.undo_steps() == 1


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_menus_offer_it_only_where_a_negative_prompt_hardly_counts(page: CanvasPage, few_step: dict) -> None:
    script = """async ([file, id]) => {
        const { nodeMenu, canvasMenu, toolboxCommands } = await import(file)
        const node = app.graph.getNodeById(id)
        return [...nodeMenu(node), ...canvasMenu()].map(({ content }) => content).concat(toolboxCommands(node))
    }"""
    asked = ["/extensions/sun-for-comfyui/js/menu.js"]
    entries = {ENTRY, "Let all negative prompts count", "SUN.Negative"}

    def offered(node: int) -> set[str]:
        return entries & set(page.page.evaluate(script, [*asked, node]))

    page.load(corpus("text_to_image"))
    assert offered(1) == offered(SAMPLER) == set()
    page.load(few_step)
    assert offered(1) == offered(SAMPLER) == entries
    page.convert("negative")
    assert offered(1) == offered(SAMPLER) == set()
    page.load(corpus("reroute_nodes_fan_out.expected"))
    assert offered(6) == offered(8) == set(), "SUN is before both, and before the second one a reroute is between"


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_speed_up_bypasses_the_node_which_gets_a_badge_if_it_is_woken(page: CanvasPage, few_step: dict) -> None:
    page.load(few_step)
    page.show_all()
    page.convert("negative")
    page.convert("speed_up")
    (negative,) = page.nodes("SUNNegative")
    assert negative["mode"] == 4
    page.select(negative["id"])
    page.press("Control", "b")
    page.look_at(negative["id"])
    expect(page.face(negative["id"])).to_contain_text("does nothing here")
    page.convert("restore")
    assert content(page.graph()) == content(few_step)
