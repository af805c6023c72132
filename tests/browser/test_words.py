"""Templates, help pages, languages, settings, the about page."""

import json

import pytest
from playwright.sync_api import expect
from workshop.server.demo_models import Models
from workshop.server.example_workflows import TITLES, example_file

from .page import CanvasPage


@pytest.fixture
def sun(page: CanvasPage) -> int:
    """A SUNSpeedUp node alone on the page."""
    node = page.page.evaluate("""() => {
        const node = LiteGraph.createNode('SUNSpeedUp')
        node.pos = [300, 300]
        app.graph.add(node)
        return Number(node.id)
    }""")
    page.frames(3)
    page.look_at(node)
    return node


def test_template_opens_with_no_node_missing(page: CanvasPage) -> None:
    page.command("Comfy.BrowseTemplates")
    page.page.get_by_text("sun-for-comfyui").first.click()
    page.page.get_by_text(TITLES["text_to_image"]).first.click()
    page.page.wait_for_function("(app.rootGraph ?? app.graph).nodes.some((node) => node.type === 'SUNSpeedUp')")
    known = set(page.server.get("/object_info")) | {"MarkdownNote", "Note"}
    assert {node["type"] for node in page.graph()["nodes"]} <= known


@pytest.mark.usefixtures("frontend")  # which `page` has parameters of
@pytest.mark.parametrize("locale", ["en", "zh"])
def test_node_and_its_help_speak_the_users_language(
    settings: dict, locale: str, request: pytest.FixtureRequest
) -> None:
    settings["Comfy.Locale"] = locale
    page: CanvasPage = request.getfixturevalue("page")
    node = request.getfixturevalue("sun")
    title, strength, command = {
        "en": ("SUN 4-Step Speed-Up", "strength", "Speed up with SUN"),
        "zh": ("SUN 4 步加速", "强度", "用 SUN 加速"),
    }[locale]
    script = """(id) => {
        const node = app.graph.getNodeById(id)
        const widget = node.widgets.find((candidate) => candidate.name === 'strength')
        const command = app.extensionManager.command.commands.find(({ id }) => id === 'SUN.SpeedUp')
        return [node.title, widget.label ?? widget.name, command.label]
    }"""
    assert page.page.evaluate(script, node) == [title, strength, command]
    page.select(node)
    expect(page.face(node)).to_contain_text({"en": "7 layers", "zh": "7 层"}[locale])
    page.page.get_by_test_id("info-button").click()
    text = {"en": "negative", "zh": "负面"}[locale]
    expect(page.page.locator(".node-help-content").last).to_contain_text(text)


@pytest.mark.usefixtures("frontend")  # which `page` has parameters of
@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_words_are_of_the_page_and_not_of_the_file(settings: dict, request: pytest.FixtureRequest) -> None:
    """A loaded node speaks the reader's language, and nothing of it goes into what is saved."""
    settings["Comfy.Locale"] = "zh"
    page: CanvasPage = request.getfixturevalue("page")
    page.load(json.loads(example_file("text_to_image").read_text(encoding="utf-8")))
    shown = page.page.evaluate("""() => {
        const { inputs, outputs } = app.graph.nodes.find((node) => node.type === 'SUNSpeedUp')
        return [...inputs, ...outputs].map((slot) => slot.label || slot.localized_name || slot.name)
    }""")
    assert shown == ["模型", "适配器", "强度", "采样设置", "模型"]
    (saved,) = page.nodes("SUNSpeedUp")
    assert not any("label" in slot for slot in [*saved["inputs"], *saved["outputs"]])


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_settings_and_about_page_show_sun(page: CanvasPage, models: Models) -> None:
    page.command("Comfy.ShowSettingsDialog")
    dialog = page.page.locator("[role=dialog]").last
    dialog.get_by_text("SUN", exact=True).first.click()
    expect(dialog.get_by_text("Show badges on SUN nodes")).to_be_visible()
    expect(dialog.get_by_text("Adapter to speed up with")).to_be_visible()
    for chosen, other in (("Whichever fits", models.adapter.name), (models.adapter.name, "Whichever fits")):
        dialog.get_by_text(chosen).first.click()
        page.page.get_by_role("option", name=other).click()
        expect(dialog.get_by_text(other).first).to_be_visible()
    dialog.get_by_text("About", exact=True).first.click()
    badge = dialog.get_by_role("link", name="SUN 0.")
    expect(badge).to_be_visible()
    assert badge.get_attribute("href").startswith("https://")
