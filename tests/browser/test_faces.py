"""What SUN nodes say on the page: faces, badges, the adapter that is missing; and that they say it as text."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from workshop.server.comfy_server import ComfyServer
from workshop.server.demo_models import Models

from .conftest import SAMPLER, corpus
from .page import CanvasPage

RELEASED = "sun_adapter_sdv15_4step_addpos.safetensors"
HOSTILE = '<img src=x onerror="window.injected = true"><script>window.injected = true</script>'


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


def test_sun_that_is_off_names_the_sampler_that_it_leaves_at_few_steps(page: CanvasPage, sped_up: int) -> None:
    badge = page.face(sped_up).locator(".sun-badge")
    page.select(sped_up)
    page.press("Control", "b")
    expect(badge).to_contain_text(f"SUN 4-Step Speed-Up (#{sped_up}) is off, and KSampler (#{SAMPLER}) is still set to")
    expect(badge).to_contain_text("4 steps at CFG 1")
    page.press("Control", "b")
    expect(badge).to_have_count(0)
    page.set_value(sped_up, "strength", 0)
    expect(badge).to_contain_text("SUN is off")
    badge.get_by_role("button", name="Fix").click()
    expect(badge).to_have_count(0)
    assert page.values(SAMPLER)["steps"] == 25
    page.set_value(sped_up, "strength", 1)
    expect(badge).to_contain_text("25 steps")


def test_badge_goes_however_soon_sun_is_on_again(page: CanvasPage, sped_up: int) -> None:
    """Whether or not the page noticed in between that SUN was off."""
    badge = page.face(sped_up).locator(".sun-badge")
    for _ in range(5):
        page.page.evaluate(
            """(id) => {
            app.graph.getNodeById(id).mode = 4;
            app.api.dispatchEvent(new CustomEvent("graphChanged"));
        }""",
            sped_up,
        )
        expect(badge).to_contain_text("SUN is off")
        page.page.evaluate("(id) => { app.graph.getNodeById(id).mode = 0; }", sped_up)
        expect(badge).to_have_count(0)


def test_missing_adapter_is_named_with_size_license_folder_and_link(page: CanvasPage, no_adapter: None) -> None:
    page.load(corpus("text_to_image"))
    page.refresh_definitions()
    page.convert("speed_up")
    (sun,) = page.nodes("SUNSpeedUp")
    page.look_at(sun["id"])
    face = page.face(sun["id"])
    for word in (RELEASED, "76.8 MB", "MIT", "models/sun"):
        expect(face).to_contain_text(word)
    link = face.get_by_role("link", name="Download").get_attribute("href")
    assert link.startswith("https://huggingface.co/Williechai/SpeedUpNet/")
    (model,) = sun["properties"]["models"]
    assert model == {"name": sun["widgets_values"][0], "url": link, "directory": "sun"}


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_another_adapter_that_is_missing_is_no_reason_to_download_the_released_one(
    page: CanvasPage, no_adapter: None
) -> None:
    page.load(corpus("text_to_image"))
    page.refresh_definitions()
    page.convert("speed_up")
    (sun,) = page.nodes("SUNSpeedUp")
    page.set_value(sun["id"], "adapter_name", "mine.safetensors")
    face = page.face(sun["id"])
    expect(face).to_contain_text("mine.safetensors is not in models/sun")
    expect(face.get_by_role("link")).to_have_count(0)


@pytest.fixture
def download(server: ComfyServer, models: Models, no_adapter: None) -> Iterator[Path]:
    """Where the released adapter is to be put; whatever a test puts there goes afterwards."""
    file = server.base / "models" / "sun" / RELEASED
    yield file
    file.unlink(missing_ok=True)


def test_downloaded_adapter_is_offered_once_the_page_is_refreshed(
    page: CanvasPage, plain: dict, models: Models, download: Path
) -> None:
    page.load(plain)
    page.refresh_definitions()
    shutil.copy(models.adapter, download)
    page.refresh_definitions()
    page.convert("speed_up")
    (sun,) = page.nodes("SUNSpeedUp")
    offered = "(id) => app.graph.getNodeById(id).widgets.find(({ name }) => name === 'adapter_name').options.values"
    page.page.wait_for_function(f"(id) => ({offered})(id).includes('{RELEASED}')", arg=sun["id"])
    page.load(page.graph())
    assert page.page.evaluate(offered, sun["id"]) == [RELEASED]
    page.look_at(sun["id"])
    expect(page.face(sun["id"])).to_contain_text("7 layers")
    download.unlink()
    page.refresh_definitions()
    page.page.wait_for_function(f"(id) => !({offered})(id).includes('{RELEASED}')", arg=sun["id"])
    expect(page.face(sun["id"])).to_contain_text("Download")


def test_node_does_not_grow_with_what_it_says(page: CanvasPage, sped_up: int) -> None:
    face = page.face(sped_up)
    expect(face).to_contain_text("7 layers")
    shape = "(id) => { const { size } = app.graph.getNodeById(id); return [...size] }"
    before, height = page.page.evaluate(shape, sped_up), face.bounding_box()["height"]
    page.set_value(SAMPLER, "steps", 30)
    expect(face.locator(".sun-badge")).to_contain_text("30")
    page.frames(5)
    assert page.page.evaluate(shape, sped_up) == before
    assert face.bounding_box()["height"] == height
    assert before[0] >= 300
    page.page.evaluate("(id) => app.graph.getNodeById(id).collapse()", sped_up)
    page.expect_notes(sped_up, "30 steps")


def test_text_that_is_longer_than_its_node_is_shown_whole(page: CanvasPage, sped_up: int) -> None:
    """Also over the node below, whose widgets would hide it."""
    page.set_value(sped_up, "settings", "from sampler")
    page.set_value(SAMPLER, "cfg", 7)
    face = page.face(sped_up)
    expect(face.locator(".sun-badge")).to_contain_text("CFG 7")
    page.frames(5)
    script = """(face) => {
        const text = face.querySelector('.sun-text')
        const lines = [...text.querySelectorAll('.sun-short, .sun-detail, .sun-line')]
        return [text.scrollHeight <= text.clientHeight, lines.map((line) => {
            const { left, right, top, bottom } = line.getBoundingClientRect()
            return [[left + 2, top + 2], [left + 2, bottom - 2], [right - 2, bottom - 2]].every(([x, y]) =>
                face.contains(document.elementFromPoint(x, y)))
        })]
    }"""
    whole, seen = face.evaluate(script)
    assert whole and len(seen) > 2 and all(seen)


@pytest.mark.usefixtures("frontend")  # which `page` has parameters of
@pytest.mark.parametrize("drawn_by", ["vue"], indirect=True)
@pytest.mark.parametrize("palette", ["light", "solarized"])
def test_words_stand_out_on_light_and_dim_palettes(
    settings: dict, palette: str, request: pytest.FixtureRequest
) -> None:
    """By at least 4.5 to 1, as WCAG 2 asks of text."""
    settings["Comfy.ColorPalette"] = palette
    page: CanvasPage = request.getfixturevalue("page")
    sun: int = request.getfixturevalue("sped_up")
    page.set_value(SAMPLER, "steps", 30)
    expect(page.face(sun).locator(".sun-badge")).to_contain_text("30")
    contrasts = page.face(sun).evaluate("""(face) => {
        const light = (color) => {
            const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((part) => {
                const value = part / 255
                return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4
            })
            return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05
        }
        const behind = (element) => {
            const color = getComputedStyle(element).backgroundColor
            return /, 0\\)$/.test(color) ? behind(element.parentElement) : color
        }
        return [...face.querySelectorAll('.sun-short, .sun-detail, .sun-line, .sun-fix')].map((element) => {
            const both = [light(getComputedStyle(element).color), light(behind(element))]
            return Math.max(...both) / Math.min(...both)
        })
    }""")
    assert len(contrasts) >= 4 and min(contrasts) >= 4.5


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_mouse_over_a_face_is_for_the_node(page: CanvasPage, sped_up: int) -> None:
    """Its menu opens, and the wheel zooms."""
    expect(page.face(sped_up)).to_contain_text("7 layers")
    box = page.face(sped_up).bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.page.mouse.move(*middle)
    page.page.mouse.wheel(0, -100)
    page.page.wait_for_function("app.canvas.ds.scale > 1")
    page.right_click(*middle)
    page.choose("Restore what SUN changed")
    page.page.wait_for_function("!app.graph.nodes.some((node) => node.type === 'SUNSpeedUp')")


def test_node_whose_id_is_a_word_speaks_and_is_fixed(page: CanvasPage, models: Models) -> None:
    """As the page makes of the API's format, where ids may be words, or "5:7" from inside of a subgraph."""
    link = ["5:7", 0]
    prompt = {
        "5:7": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": models.checkpoint.name}},
        "sun": {
            "class_type": "SUNSpeedUp",
            "inputs": {"model": link, "adapter_name": models.adapter.name, "strength": 1, "settings": "automatic"},
        },
        "my sampler": {
            "class_type": "KSampler",
            "inputs": {"model": ["sun", 0], "seed": 1, "steps": 30, "cfg": 1, "sampler_name": "ddim",
                       "scheduler": "simple", "denoise": 1},
        },
    }  # fmt: skip
    page.page.evaluate("(prompt) => app.loadApiJson(prompt, 'of words')", prompt)
    page.settle()
    (sun,), (sampler,) = page.nodes("SUNSpeedUp"), page.nodes("KSampler")
    page.look_at(sun["id"])
    face = page.face(sun["id"])
    expect(face.locator(".sun-badge")).to_contain_text("30")
    face.locator(".sun-fix").dispatch_event("click")  # no mouse: Nodes 2.0 of 1.32.9 puts such nodes over each other
    expect(face.locator(".sun-badge")).to_have_count(0)
    assert page.values(sampler["id"])["steps"] == 4


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


def test_hostile_words_in_a_badge_are_no_part_of_the_menus_page(
    page: CanvasPage, sped_up: int, frontend: str, drawn_by: str
) -> None:
    """A badge quotes the sampler's name, and the menu the badge."""
    page.set_value(sped_up, "settings", "from sampler")
    page.set_value(SAMPLER, "sampler_name", "<img src=x onerror=window.injected=1>")
    expect(page.face(sped_up).locator(".sun-badge")).to_contain_text("sampler <img src=x")
    page.right_click(*page.point_of(sped_up))
    if (frontend, drawn_by) != ("1.32.9", "vue"):  # whose menu leaves out what packs offer
        menu = page.page.locator(".litecontextmenu, [role=menu], .p-contextmenu")
        expect(menu.get_by_text("Fix: sampler img src=x").first).to_be_visible()
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
    if frontend == "1.32.9":  # a dialog, where later there is a panel
        expect(page.page.locator(".comfy-missing-models")).to_contain_text(RELEASED)
    else:
        page.page.get_by_role("button", name="View details").click()
        offer = page.page.get_by_role("button", name=f"Download {RELEASED}")
        expect(offer).to_be_visible()
    (sun,) = page.nodes("SUNSpeedUp")
    assert sun["widgets_values"][0] == RELEASED
