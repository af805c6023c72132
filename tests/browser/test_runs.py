"""What SUN nodes say of runs: what they did and took, with SUN and without, in the tab that they came from."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect
from workshop.server.comfy_server import ComfyServer
from workshop.server.demo_models import Models
from workshop.server.example_workflows import examples

from .conftest import SAMPLER, content
from .page import CanvasPage


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


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_changes_are_announced_once_for_each_sampler(page: CanvasPage, sped_up: int) -> None:
    """Two samplers behind one node change other things in every run."""
    run = {"node": str(sped_up), "text": "", "steps": 4, "evaluations": 4, "seconds": 1}
    for changes in ("CFG 7 -> 1", "CFG 8 -> 1") * 3:
        page.page.evaluate("(run) => app.api.dispatchCustomEvent('sun.run', run)", {**run, "changes": changes})
    expect(page.messages("CFG 8 -> 1")).to_have_count(1)
    expect(page.messages("CFG 7 -> 1")).to_have_count(1)


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_what_a_run_found_is_a_badge_until_the_next_run_or_change(page: CanvasPage, sped_up: int) -> None:
    """What its samplers found comes together, and the badge of settings that are wrong goes before it."""
    badge = page.face(sped_up).locator(".sun-badge")
    run = {"node": str(sped_up), "text": "", "steps": 4, "evaluations": 4, "seconds": 1, "changes": ""}

    def run_with(*findings: str) -> None:
        script = """([runs, id]) => {
            app.api.dispatchCustomEvent('execution_start', { prompt_id: id })
            for (const run of runs) app.api.dispatchCustomEvent('sun.run', run)
            app.api.dispatchCustomEvent('executing', null)
        }"""
        runs = [{**run, "findings": [finding] if finding else []} for finding in findings]
        page.page.evaluate(script, [runs, str(findings)])

    run_with("Remove the cache.", "Remove APG.")
    expect(badge).to_contain_text("Look at this run")
    for finding in ("Remove the cache.", "Remove APG."):
        expect(badge.get_by_text(finding)).to_have_count(1)
    page.set_value(SAMPLER, "steps", 30)
    expect(badge).to_contain_text("30 steps")
    expect(page.face(sped_up)).not_to_contain_text("Remove")
    run_with("Remove the cache.")
    expect(page.face(sped_up).locator(".sun-line").get_by_text("Remove the cache.")).to_have_count(1)
    page.set_value(SAMPLER, "steps", 4)
    expect(badge).to_have_count(0)
    run_with("Remove the cache.")
    expect(badge).to_contain_text("Remove the cache.")
    run_with("")
    expect(badge).to_have_count(0)


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_before_and_after_shows_both_times(page: CanvasPage, models: Models, server: ComfyServer) -> None:
    template = examples(models, server.get("/object_info"))["before_after"]
    page.load(template.graph)
    page.run_workflow()
    (sun,) = page.nodes("SUNSpeedUp")
    face = page.face(sun["id"])
    expect(face).to_contain_text(re.compile(r"4 steps · 4 evaluations · \d+\.\d s"))
    expect(face).to_contain_text(re.compile(r"Plain sampler \(#\d+\) without SUN, 25 steps: \d+\.\d s"))


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_time_of_a_run_with_sun_is_never_one_without_it(page: CanvasPage, sped_up: int) -> None:
    face = page.face(sped_up)
    page.run_workflow()
    expect(face).to_contain_text("4 steps · 4 evaluations")
    page.select(sped_up)
    page.press("Control", "b")
    expect(face).to_contain_text("SUN is off")
    expect(face).not_to_contain_text("evaluations")
    expect(face).not_to_contain_text(re.compile("without SUN[:,]"))
    page.set_value(SAMPLER, "steps", 5)
    page.run_workflow()
    expect(face).to_contain_text(re.compile(rf"KSampler \(#{SAMPLER}\) without SUN, 5 steps: \d+\.\d s"))
    page.press("Control", "b")
    expect(face).to_contain_text("4 steps · 4 evaluations")
    expect(face).not_to_contain_text(re.compile("without SUN[:,]"))


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_samplers_of_one_run_are_counted_together(page: CanvasPage, sped_up: int) -> None:
    run = {"node": str(sped_up), "text": "", "steps": 4, "evaluations": 4, "seconds": 0.25, "changes": ""}
    script = """([run, count]) => {
        app.api.dispatchCustomEvent('execution_start', { prompt_id: String(count) })
        for (let i = 0; i < count; i++) app.api.dispatchCustomEvent('sun.run', run)
        app.api.dispatchCustomEvent('executing', null)
    }"""
    page.page.evaluate(script, [run, 2])
    expect(page.face(sped_up)).to_contain_text("Last run, 2 samplings: 8 steps · 8 evaluations · 0.5 s")
    page.page.evaluate(script, [run, 1])
    expect(page.face(sped_up)).to_contain_text("Last run: 4 steps · 4 evaluations · 0.3 s")
    expect(page.face(sped_up)).not_to_contain_text("samplings")


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_comparison_draws_both_with_one_seed_and_leaves_the_graph(
    page: CanvasPage, sped_up: int, server: ComfyServer
) -> None:
    folder = server.base / "output" / "SUN"
    before, graph, steps = set(folder.glob("*.png")), content(page.graph()), page.undo_steps()
    page.page.evaluate("""() => {
        window.ended = new Promise((resolve) => {
            let count = 0
            app.api.addEventListener('execution_success', () => { if (++count === 2) resolve() })
            app.api.addEventListener('execution_error', ({ detail }) => resolve(JSON.stringify(detail)))
        })
    }""")
    page.command("SUN.Compare")
    expect(page.messages("Queued twice")).to_contain_text("Without SUN: KSampler (#5): 25 steps, CFG 7.5")
    assert page.page.evaluate("window.ended") is None
    expect(page.face(sped_up)).to_contain_text("KSampler (#5) without SUN, 25 steps: ")
    expect(page.face(sped_up)).to_contain_text("4 steps · 4 evaluations · ")
    assert content(page.graph()) == graph and page.undo_steps() == steps

    without, with_sun = (drawn_with(file) for file in sorted(set(folder.glob("*.png")) - before))
    assert (with_sun["steps"], with_sun["cfg"], without["steps"], without["cfg"]) == (4, 1, 25, 7.5)
    assert with_sun["seed"] == without["seed"]


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_comparison_whose_half_with_sun_is_refused_does_not_run_the_other(page: CanvasPage, sped_up: int) -> None:
    page.set_value(sped_up, "adapter_name", "gone.safetensors")
    page.page.evaluate("""() => {
        window.ended = new Promise((resolve) => {
            for (const event of ['execution_success', 'execution_error', 'execution_interrupted'])
                app.api.addEventListener(event, () => resolve(event))
        })
    }""")
    page.command("SUN.Compare")
    expect(page.messages("SUN queued nothing")).to_have_count(1)
    assert page.page.evaluate("window.ended") == "execution_interrupted"


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
def test_run_shows_in_the_tab_that_it_came_from_and_in_its_copy(page: CanvasPage, sped_up: int) -> None:
    """Never on a node of another workflow with the same id."""
    start_run(page, steps=60)  # so that it still runs when the other tab is open
    graph = page.graph()
    next(node for node in graph["nodes"] if node["id"] == 4)["widgets_values"] = ["people"]
    page.load({**graph, "id": "00000000-0000-4000-8000-000000000001"}, "another")
    page.page.evaluate("async () => { await window.told; await window.ended }")
    page.frames(10)
    expect(page.face(sped_up)).to_contain_text("60 steps")
    expect(page.face(sped_up)).not_to_contain_text("evaluations")
    page.page.get_by_text("loaded", exact=True).first.click()
    expect(page.face(sped_up)).to_contain_text("60 evaluations")

    start_run(page, steps=61)
    page.load({**page.graph(), "id": "00000000-0000-4000-8000-000000000002"}, "copy")  # as "Save as" leaves it
    expect(page.face(sped_up)).to_contain_text("61 evaluations")
    page.page.evaluate("async () => { await window.ended }")


def start_run(page: CanvasPage, steps: int) -> None:
    """Queue the graph; `window.told` and `window.ended` say how far it is."""
    page.set_value(SAMPLER, "steps", steps)
    page.page.evaluate("""async () => {
        window.told = new Promise((resolve) => app.api.addEventListener('sun.run', resolve, { once: true }))
        window.ended = new Promise((resolve) => {
            for (const event of ['execution_success', 'execution_error']) app.api.addEventListener(event, resolve)
        })
        await app.queuePrompt(0, 1)
    }""")


def drawn_with(picture: Path) -> dict:
    """The settings of the sampler in a picture's metadata, where the workflow has to agree with the prompt."""
    with Image.open(picture) as image:
        inputs = json.loads(image.text["prompt"])[str(SAMPLER)]["inputs"]
        workflow = json.loads(image.text["workflow"])
    (sampler,) = (node for node in workflow["nodes"] if node["type"] == "KSampler")
    assert sampler["widgets_values"][2] == inputs["steps"]
    return inputs
