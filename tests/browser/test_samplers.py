"""What the page shows on the samplers behind SUN, and what it does with them."""

import json

import pytest
from playwright.sync_api import Route, expect
from workshop.server.demo_models import Models

from .conftest import CHECKPOINT, SAMPLER, corpus
from .page import CanvasPage

NOTE = "CFG ignored · negative: “blurry”"
RESTORE_ALL = "Restore everything that SUN changed"


@pytest.fixture
def sped_up(page: CanvasPage, plain: dict) -> int:
    """A graph with SUN on the page; the id of the SUNSpeedUp node."""
    next(node for node in plain["nodes"] if node["id"] == 4)["widgets_values"] = ["blurry"]
    page.load(plain)
    page.convert("speed_up")
    (sun,) = page.nodes("SUNSpeedUp")
    page.show_all()
    return sun["id"]


def test_sampler_shows_that_cfg_is_ignored_and_which_negative_counts(page: CanvasPage, sped_up: int) -> None:
    page.expect_notes(SAMPLER, NOTE)
    assert "CFG ignored" not in json.dumps(page.graph()), "nothing of it is saved"
    page.set_value(4, "text", "people")
    page.expect_notes(SAMPLER, "CFG ignored · negative: “people”")
    page.set_value(sped_up, "strength", 0)
    page.expect_notes(SAMPLER, "SUN is off")
    page.undo()
    page.expect_notes(SAMPLER, "CFG ignored · negative: “people”")
    page.select(sped_up)
    page.press("Delete")
    page.expect_notes(SAMPLER, "SUN is gone")
    page.undo()
    page.expect_notes(SAMPLER, "CFG ignored · negative: “people”")
    page.page.evaluate("app.extensionManager.setting.set('SUN.ShowBadges', false)")
    page.expect_notes(SAMPLER)


def test_sampler_whose_sun_node_was_deleted_says_so_and_is_fixed(page: CanvasPage, sped_up: int) -> None:
    page.select(sped_up)
    page.press("Delete")
    page.expect_notes(SAMPLER, "SUN is gone")
    page.select(SAMPLER)
    page.command("SUN.Fix")
    page.expect_notes(SAMPLER)
    assert page.values(SAMPLER)["steps"] == 25
    page.undo()
    page.expect_notes(SAMPLER, "SUN is gone")
    assert RESTORE_ALL in menu(page, SAMPLER)
    page.set_value(SAMPLER, "steps", 20)
    page.set_value(SAMPLER, "cfg", 7)
    page.expect_notes(SAMPLER)
    assert not any("Restore" in entry for entry in menu(page, SAMPLER)), "there is nothing left to restore"


def test_sampler_whose_sun_node_of_ones_own_was_deleted_says_so_and_is_fixed(page: CanvasPage, sped_up: int) -> None:
    """Nothing says what the sampler had before: the page notes that SUN was there, in the same undo step."""
    by_hand = page.graph()
    for node in by_hand["nodes"]:
        node["properties"].pop("sun_restore", None)
    page.load(by_hand)
    page.show_all()
    page.expect_notes(SAMPLER, NOTE)
    page.select(sped_up)
    page.press("Delete")
    page.expect_notes(SAMPLER, "SUN is gone")
    page.undo()
    page.expect_notes(SAMPLER, NOTE)
    assert "sun_restore" not in json.dumps(page.graph())
    page.redo()
    page.expect_notes(SAMPLER, "SUN is gone")
    page.select(SAMPLER)
    page.command("SUN.Fix")
    page.expect_notes(SAMPLER)
    assert page.values(SAMPLER)["steps"] == 25 and page.values(SAMPLER)["cfg"] == 7
    assert "sun_restore" not in json.dumps(page.graph())


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_sampler_whose_negative_node_was_deleted_says_so_and_is_restored(page: CanvasPage, plain: dict) -> None:
    page.load(plain)
    page.set_value(SAMPLER, "cfg", 1.5)
    page.convert("negative")
    page.show_all()
    page.select(page.nodes("SUNNegative")[0]["id"])
    page.press("Delete")
    page.expect_notes(SAMPLER, "Negative is gone")
    assert RESTORE_ALL in menu(page, SAMPLER)
    page.convert("restore")
    page.expect_notes(SAMPLER)
    assert page.values(SAMPLER)["cfg"] == 1.5 and "sun_negative_restore" not in json.dumps(page.graph())


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_commands_are_for_what_is_selected(page: CanvasPage, sped_up: int) -> None:
    """A selection that has nothing to do with one is no reason to change the whole graph."""
    page.set_value(SAMPLER, "steps", 30)
    expect(page.face(sped_up).locator(".sun-badge")).to_contain_text("30")
    page.select(4)
    for count, command in enumerate(("SUN.Fix", "SUN.Steps6", "SUN.Restore", "SUN.SpeedUp"), 1):
        page.command(command)
        expect(page.messages("This command does not apply to what is selected")).to_have_count(count)
    assert page.values(SAMPLER)["steps"] == 30
    page.select(SAMPLER)
    page.command("SUN.Steps6")
    expect(page.messages("KSampler (#5): 6 steps")).to_have_count(1)
    assert page.values(SAMPLER)["steps"] == 6
    script = """(id) => {
        const group = new LiteGraph.LGraphGroup('Draw')
        app.graph.add(group)
        group.resizeTo([app.graph.getNodeById(id)])
        group.recomputeInsideNodes()
        app.canvas.deselectAll()
        app.canvas.select(group)
    }"""
    page.page.evaluate(script, SAMPLER)
    page.command("SUN.Steps2")
    expect(page.messages("KSampler (#5): 2 steps")).to_have_count(1)
    page.select(SAMPLER)
    page.command("Comfy.Graph.ConvertToSubgraph")  # it stays selected
    page.command("SUN.Steps8")
    expect(page.messages("KSampler (#5): 8 steps")).to_have_count(1)


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_sampler_in_a_subgraph_shows_it_too(page: CanvasPage) -> None:
    page.load(corpus("subgraph_with_the_sampler.expected"))
    (inner,) = page.graph()["definitions"]["subgraphs"]
    sampler = next(node["id"] for node in inner["nodes"] if node["type"] == "KSampler")
    page.page.evaluate("app.canvas.setGraph([...app.rootGraph.subgraphs.values()][0])")
    page.expect_notes(sampler, "CFG ignored · negative: “people, text”")


@pytest.mark.parametrize("name", ["subgraph_with_the_sampler", "subgraph_in_a_subgraph"])
def test_badge_inside_of_a_subgraph_is_above_its_node_too(
    page: CanvasPage, models: Models, frontend: str, drawn_by: str, name: str
) -> None:
    workflow = corpus(f"{name}.expected")
    definitions = {subgraph["id"]: subgraph for subgraph in workflow["definitions"]["subgraphs"]}
    inside = {node["type"]: node for subgraph in definitions.values() for node in subgraph["nodes"]}
    inside["SUNSpeedUp"]["widgets_values"][0] = models.adapter.name
    inside["KSampler"]["widgets_values"][2] = 30
    (outer,) = (node["id"] for node in workflow["nodes"] if node["type"] in definitions)
    next(node for node in workflow["nodes"] if node["id"] == CHECKPOINT)["widgets_values"] = [models.checkpoint.name]
    page.load(workflow)
    page.show_all()
    page.expect_notes(outer, "30 steps")
    page.page.evaluate("(id) => { app.graph.getNodeById(id).mode = 4; app.graph.change() }", outer)
    page.expect_notes(outer)
    page.page.evaluate("(id) => { app.graph.getNodeById(id).mode = 0; app.graph.change() }", outer)
    page.expect_notes(outer, "30 steps")
    if (frontend, drawn_by) == ("1.32.9", "vue"):  # whose menu leaves out what packs offer
        page.select(outer)
        page.command("SUN.Fix")
    else:
        page.right_click(*page.point_of(outer))
        page.choose("Fix: 30 steps")
    page.expect_notes(outer)
    inside = {n["type"]: n for subgraph in page.graph()["definitions"]["subgraphs"] for n in subgraph["nodes"]}
    assert inside["KSampler"]["widgets_values"][2] == 4


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_several_badges_inside_are_one_which_begins_with_what_fix_mends(page: CanvasPage) -> None:
    script = """async (file) => {
        const { showNotes, badgeForSubgraph } = await import(file)
        const shown = (badge) => {
            const node = { badges: [] }
            showNotes(node, { note: null, badge })
            return node
        }
        const nodes = [shown({ text: 'lost', detail: 'one' }), shown({ text: '30 steps', detail: 'two', fix: true })]
        const subgraph = (mode, nodes) => ({ mode, subgraph: { nodes } })
        const [on, muted, bypassed] = [0, 2, 4].map((mode) => subgraph(mode, nodes))
        return [[on, on], [on, muted], [muted, bypassed]].map((nodes) => badgeForSubgraph(subgraph(0, nodes)))
    }"""
    once = {"text": "30 steps (+1)", "detail": "two\none"}
    shown = page.page.evaluate(script, "/extensions/sun-for-comfyui/js/notes.js")
    assert shown == [once, once, None], "a definition that is used twice counts once"


def test_menu_sets_the_steps_in_one_undo_step(page: CanvasPage, sped_up: int, frontend: str, drawn_by: str) -> None:
    if (frontend, drawn_by) == ("1.32.9", "vue"):  # whose menu leaves out what packs offer
        page.command("SUN.Steps6")
    else:
        page.right_click(*page.point_of(sped_up))
        page.choose("Set 6 steps")
    expect(page.messages("KSampler (#5): 6 steps")).to_have_count(1)
    assert page.values(SAMPLER)["steps"] == 6
    page.undo()
    assert page.values(SAMPLER)["steps"] == 4
    expect(page.face(sped_up)).to_contain_text("4 steps, automatic")
    page.undo()
    page.redo()
    page.redo()  # at once, so that Nodes 2.0 keeps the element of the node between
    expect(page.face(sped_up)).to_contain_text("6 steps, automatic")


def menu(page: CanvasPage, node: int, mode: int = 0) -> list[str]:
    """Return what the menus of a node and of the canvas offer while the node has this mode."""
    script = """async ([file, id, mode]) => {
        const { nodeMenu, canvasMenu } = await import(file)
        const node = app.graph.getNodeById(id)
        node.mode = mode
        return [...nodeMenu(node), ...canvasMenu()].map(({ content }) => content)
    }"""
    return page.page.evaluate(script, ["/extensions/sun-for-comfyui/js/menu.js", node, mode])


def test_badge_of_a_sampler_without_sun_says_more_when_it_is_clicked(
    page: CanvasPage, sped_up: int, frontend: str, drawn_by: str
) -> None:
    if (frontend, drawn_by) == ("1.32.9", "litegraph"):
        pytest.skip("badges of that page cannot be clicked")
    page.expect_notes(SAMPLER, NOTE)
    page.look_at(sped_up)
    page.select(sped_up)
    page.press("Delete")
    page.expect_notes(SAMPLER, "SUN is gone")
    page.look_at(SAMPLER)
    if drawn_by == "vue":
        page.page.locator(".sun-badge-above").click()
    else:
        script = """(id) => {
            const node = app.canvas.graph.getNodeById(id)
            const [x, y, width, height] = node.badges.map((badge) => badge()).find(({ text }) => text).boundingRect
            return app.canvasPosToClientPos([node.pos[0] + x + width / 2, node.pos[1] + y + height / 2])
        }"""
        page.page.mouse.click(*page.page.evaluate(script, SAMPLER))
    expect(page.messages("SUN is gone")).to_contain_text("is still set to 4 steps at CFG 1")


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_bypassed_sun_offers_neither_steps_nor_a_comparison(page: CanvasPage, sped_up: int) -> None:
    for mode, are_offered in ((0, True), (4, False)):
        entries = menu(page, sped_up, mode)
        assert ("Set 6 steps" in entries) == are_offered
        assert any("Compare" in entry for entry in entries) == are_offered
        assert any("Restore" in entry for entry in entries)


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_menu_offers_to_speed_up_again_before_the_server_knows_that_sun_was_deleted(
    page: CanvasPage, sped_up: int
) -> None:
    page.expect_notes(SAMPLER, NOTE)
    script = """async ([file, sampler, sun]) => {
        const { nodeMenu } = await import(file)
        const isOffered = () => nodeMenu(app.graph.getNodeById(sampler)).some(
            ({ content }) => content === "Speed up with SUN")
        const before = isOffered()
        app.graph.remove(app.graph.getNodeById(sun))
        return [before, isOffered()]
    }"""
    offered = page.page.evaluate(script, ["/extensions/sun-for-comfyui/js/menu.js", SAMPLER, sped_up])
    assert offered == [False, True]


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_badge_of_a_sampler_is_shown_and_its_fix_offered(page: CanvasPage, sped_up: int) -> None:
    """As the server's check has it if the SUN node before a sampler is off."""

    def with_badge(route: Route) -> None:
        answer = route.fetch()
        badge = {"text": "SUN is off", "detail": "Turn it on.", "fix": True}
        nodes = [*answer.json()["nodes"], {"graph": None, "node": SAMPLER, "face": [], "badge": badge}]
        route.fulfill(json={"nodes": nodes})

    page.page.route("**/sun/check", with_badge)
    page.set_value(SAMPLER, "steps", 30)
    page.expect_notes(SAMPLER, NOTE, "SUN is off")
    page.right_click(*page.point_of(SAMPLER))
    page.choose("Fix: SUN is off")
    page.toast()
    page.page.unroute("**/sun/check")


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_node_that_is_deleted_while_the_server_checks_it_harms_nothing(page: CanvasPage, sped_up: int) -> None:
    page.expect_notes(SAMPLER, NOTE)

    def deleted_meanwhile(route: Route) -> None:
        answer = route.fetch()
        page.page.evaluate("(id) => app.graph.remove(app.graph.getNodeById(id))", sped_up)
        route.fulfill(response=answer)

    page.page.route("**/sun/check", deleted_meanwhile, times=1)
    with page.page.expect_response("**/sun/check"):
        page.set_value(SAMPLER, "steps", 30)
    page.page.evaluate("app.api.dispatchEvent(new CustomEvent('graphChanged'))")
    page.expect_notes(SAMPLER)
