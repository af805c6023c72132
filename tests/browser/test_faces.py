"""What SUN nodes say on the page: faces, badges, the adapter that is missing; and that they say it as text."""

import pytest
from demonstration import Models
from playwright.sync_api import expect

from .conftest import SAMPLER, corpus
from .page import CanvasPage

HOSTILE = '<img src=x onerror="window.injected = true"><script>window.injected = true</script>'


@pytest.fixture
def sped_up(page: CanvasPage, plain: dict) -> int:
    """A graph with SUN on the page; the id of the SUNSpeedUp node."""
    page.load(plain)
    page.convert("speed_up")
    (sun,) = page.nodes("SUNSpeedUp")
    page.look_at(sun["id"])
    return sun["id"]


def test_wrong_settings_raise_a_badge_that_fixes_them(page: CanvasPage, sped_up: int) -> None:
    face = page.face(sped_up)
    expect(face).to_contain_text("4 steps")
    expect(face.locator(".sun-badge")).to_have_count(0)
    page.set_value(SAMPLER, "steps", 30)
    expect(face.locator(".sun-badge")).to_contain_text("30")
    face.locator(".sun-fix").click()
    expect(face.locator(".sun-badge")).to_have_count(0)
    assert page.values(SAMPLER)["steps"] == 4
    page.undo()
    assert page.values(SAMPLER)["steps"] == 30
    expect(page.face(sped_up).locator(".sun-badge")).to_contain_text("30")


def test_fix_is_offered_in_the_menu_or_the_toolbox_and_as_a_command(
    page: CanvasPage, sped_up: int, frontend: str, drawn_by: str
) -> None:
    page.set_value(SAMPLER, "steps", 30)
    expect(page.face(sped_up).locator(".sun-badge")).to_contain_text("30")
    if (frontend, drawn_by) == ("1.32.9", "vue"):  # whose menu leaves out what packs offer
        page.select(sped_up)
        page.page.locator(".selection-toolbox .pi-wrench, .pi-wrench").first.click()
    else:
        page.right_click(*page.point_of(sped_up))
        page.choose("Fix: 30 steps")
    expect(page.messages("Fixed: 30 steps")).to_have_count(1)
    assert page.values(SAMPLER)["steps"] == 4
    page.undo()
    assert page.values(SAMPLER)["steps"] == 30
    expect(page.face(sped_up).locator(".sun-badge")).to_contain_text("30")
    page.command("SUN.Fix")
    page.page.wait_for_function("(id) => app.graph.getNodeById(id).widgets.some((w) => w.value === 4)", arg=SAMPLER)
    assert page.values(SAMPLER)["steps"] == 4


@pytest.mark.usefixtures("frontend")  # which `page` has parameters of
@pytest.mark.parametrize("announced", [True, False])
def test_automatic_settings_announce_themselves_where_they_are_let(
    settings: dict, announced: bool, plain: dict, request: pytest.FixtureRequest
) -> None:
    settings["SUN.AnnounceAutomatic"] = announced
    page: CanvasPage = request.getfixturevalue("page")
    sun: int = request.getfixturevalue("sped_up")
    page.set_value(SAMPLER, "cfg", 7)
    page.run_workflow()
    if announced:
        expect(page.messages("SUN's automatic settings")).to_contain_text("CFG 7 -> 1")
    expect(page.face(sun)).to_contain_text("evaluations")
    if not announced:
        assert page.messages("SUN's automatic settings").count() == 0


def test_missing_adapter_is_named_with_size_license_folder_and_link(page: CanvasPage, no_adapter: None) -> None:
    page.load(corpus("text_to_image"))
    page.refresh_definitions()
    page.convert("speed_up")
    (sun,) = page.nodes("SUNSpeedUp")
    page.look_at(sun["id"])
    face = page.face(sun["id"])
    for word in ("sun_adapter_sdv15_4step_addpos.safetensors", "76.8 MB", "MIT", "models/sun"):
        expect(face).to_contain_text(word)
    link = face.get_by_role("link", name="Download").get_attribute("href")
    assert link.startswith("https://huggingface.co/Williechai/SpeedUpNet/")
    (model,) = sun["properties"]["models"]
    assert model == {"name": sun["widgets_values"][0], "url": link, "directory": "sun"}


def test_hostile_words_are_shown_and_never_run(page: CanvasPage, plain: dict) -> None:
    for node in plain["nodes"]:
        node["title"] = HOSTILE
    page.load(plain)
    page.convert("speed_up")
    assert "<img src=x" in page.toast()
    (sun,) = page.nodes("SUNSpeedUp")
    page.look_at(sun["id"])
    page.set_value(SAMPLER, "steps", 30)
    expect(page.face(sun["id"]).locator(".sun-badge")).to_contain_text("30")
    assert page.face(sun["id"]).locator("img, script").count() == 0
    assert page.page.evaluate("window.injected") is None


def test_hostile_words_in_a_badge_are_no_part_of_the_menus_page(page: CanvasPage, sped_up: int) -> None:
    """A badge quotes the sampler's name, and the menu the badge."""
    page.set_value(sped_up, "settings", "from sampler")
    page.set_value(SAMPLER, "sampler_name", "<img src=x onerror=window.injected=1>")
    expect(page.face(sped_up).locator(".sun-badge")).to_contain_text("sampler <img src=x")
    page.right_click(*page.point_of(sped_up))
    page.frames(10)
    assert page.page.locator(".litecontextmenu img, [role=menu] img[src=x]").count() == 0
    assert page.page.evaluate("window.injected") is None


def test_adapter_info_is_shown_on_its_node(page: CanvasPage, models: Models) -> None:
    page.load(adapter_info(models.adapter.name))
    page.look_at(2)
    page.page.get_by_test_id("queue-button").click()
    expect(page.face(2)).to_contain_text("Family: mini")
    expect(page.face(2)).to_contain_text("Cross-attention layers: 7")


def adapter_info(adapter: str) -> dict:
    """Load SUN Adapter -> SUN Adapter Info."""
    kind = {"name": "sun_adapter", "type": "SUN_ADAPTER"}
    return {
        "last_node_id": 2, "last_link_id": 1, "version": 0.4, "groups": [], "config": {}, "extra": {},
        "links": [[1, 1, 0, 2, 0, "SUN_ADAPTER"]],
        "nodes": [
            {"id": 1, "type": "SUNLoadAdapter", "pos": [50, 50], "size": [320, 160], "flags": {}, "order": 0, "mode": 0,
             "inputs": [], "outputs": [{"name": "SUN_ADAPTER", "type": "SUN_ADAPTER", "links": [1]}], "properties": {},
             "widgets_values": [adapter]},
            {"id": 2, "type": "SUNAdapterInfo", "pos": [450, 50], "size": [360, 160], "flags": {}, "order": 1,
             "mode": 0, "inputs": [{**kind, "link": 1}], "outputs": [{"name": "info", "type": "STRING", "links": []}],
             "properties": {}, "widgets_values": []},
        ],
    }  # fmt: skip


def test_badges_can_be_switched_off(page: CanvasPage, sped_up: int) -> None:
    page.set_value(SAMPLER, "steps", 30)
    expect(page.face(sped_up).locator(".sun-badge")).to_have_count(1)
    page.page.evaluate("app.extensionManager.setting.set('SUN.ShowBadges', false)")
    expect(page.face(sped_up).locator(".sun-badge")).to_have_count(0)


def test_pages_own_list_of_missing_models_offers_the_adapter(
    settings: dict, no_adapter: None, frontend: str, request: pytest.FixtureRequest
) -> None:
    settings["Comfy.Workflow.ShowMissingModelsWarning"] = True
    page: CanvasPage = request.getfixturevalue("page")
    page.load(corpus("text_to_image"))
    page.convert("speed_up")
    page.load(page.graph())
    if frontend == "1.58.1":  # a panel, where before there was a dialog
        page.page.get_by_role("button", name="View details").click()
        offer = page.page.get_by_role("button", name="Download sun_adapter_sdv15_4step_addpos.safetensors")
        expect(offer).to_be_visible()
    else:
        expect(page.page.locator(".comfy-missing-models")).to_contain_text("sun_adapter_sdv15_4step_addpos.safetensors")
    (sun,) = page.nodes("SUNSpeedUp")
    assert sun["widgets_values"][0] == "sun_adapter_sdv15_4step_addpos.safetensors"
