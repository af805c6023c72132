"""Screenshots of a graph and of single nodes, cut out of ComfyUI's page that shows the text to image template."""

import io
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from .. import REPOSITORY, environment
from ..server.comfy_page import FRAMES, READY, SETTINGS, chromium, new_window, write_settings
from ..server.comfy_server import ComfyServer
from ..server.demo_models import mini_family
from ..server.example_workflows import base_folder, examples, fill
from .help_pictures import IMAGES

NODES = (
    *("SUNSpeedUp", "SUNLoadAdapter", "SUNApply", "SUNSampler", "SUNScheduler", "SUNAdapterInfo"),
    *("SUNTrain", "SUNSaveAdapter", "SUNNegative"),
)
"""The ids of the nodes that have help pages."""
GRAPH = REPOSITORY / "docs" / "images" / "graph.png"
MARGIN, TITLE = 14, 30  # around what is shown, and a title bar's height

# Runs the workflow; the picture and the face of SUN are there when this ends.
RUN = """async () => {
    const ended = new Promise((resolve) => {
        for (const event of ['execution_success', 'execution_error'])
            app.api.addEventListener(event, ({ type }) => resolve(type), { once: true })
    })
    await app.queuePrompt(0)
    return ended
}"""
# Adds a node of a type, linked to the template's nodes, and replaces the template's own one.
NODE = """(type) => {
    const { graph } = app
    const named = (title) => graph.nodes.find((node) => node.title === title)
    const made = (type) => {
        const node = LiteGraph.createNode(type)
        graph.add(node)
        return node
    }
    const node = made(type)
    const takes = (input) => node.inputs.some(({ name }) => name === input)
    const before = { SUNSpeedUp: 'SUN 4-Step Speed-Up', SUNApply: 'SUN 4-Step Speed-Up', SUNSampler: 'KSampler' }[type]
    if (before) takePlace(named(before))
    else if (takes('model')) named('Checkpoint').connect(0, node, 'model')
    if (takes('sun_adapter')) made('SUNLoadAdapter').connect(0, node, 'sun_adapter')
    const [width, height] = node.computeSize()
    node.setSize([Math.max(width, 400), type === 'SUNAdapterInfo' ? 240 : height]) // which has more to say
    node.pos = [0, -4000]
    app.extensionManager.workflow.activeWorkflow.changeTracker.checkState()
    return Number(node.id)

    function takePlace(old) {
        for (const [slot, { name, link }] of old.inputs.entries()) {
            if (link == null || !takes(name)) continue
            old.getInputNode(slot).connect(old.getInputLink(slot).origin_slot, node, name)
        }
        for (const { target_id, target_slot } of old.outputs[0].links.map((id) => graph.links.get(id))) {
            node.connect(0, graph.getNodeById(target_id), target_slot)
        }
        graph.remove(old)
    }
}"""
# Sets the KSampler to 30 steps; returns the ids of SUN's node and of the KSampler.
TOO_MANY_STEPS = """() => {
    const [sun, sampler] = ['SUNSpeedUp', 'KSampler'].map((type) => app.graph.nodes.find((node) => node.type === type))
    sampler.widgets.find(({ name }) => name === 'steps').value = 30
    app.extensionManager.workflow.activeWorkflow.changeTracker.checkState()
    return [sun.id, sampler.id].map(Number)
}"""
# Returns the box around the nodes of these ids, or around all groups.
BOX = """(ids) => {
    const parts = ids ? ids.map((id) => app.graph.getNodeById(id)) : app.graph.groups
    const boxes = parts.map(({ pos: [x, y], size: [width, height] }) => [x, y, x + width, y + height])
    return [0, 1, 2, 3].map((side) => (side < 2 ? Math.min : Math.max)(...boxes.map((box) => box[side])))
}"""
# Moves a box away from the menus, and returns its corners in the window.
SHOW = """([box, scale]) => {
    const [left, top, right, bottom] = box
    app.canvas.deselectAll?.()
    app.canvas.ds.scale = scale
    app.canvas.ds.offset = [100 / scale - left, 150 / scale - top]
    app.canvas.setDirty(true, true)
    return [...app.canvasPosToClientPos([left, top]), ...app.canvasPosToClientPos([right, bottom])]
}"""

Box = tuple[float, float, float, float]


def graph(page: Page) -> Path:
    """Take the template after a run."""
    run(page)
    page.locator(".sun-text", has_text="evaluations").wait_for()
    page.locator(".p-toast-message").wait_for(state="hidden")
    page.wait_for_function("() => app.graph.nodes.some((node) => node.imgs?.length)")
    return cut_out(page, page.evaluate(BOX), 0.8, GRAPH)


def badge(page: Page) -> Path:
    """Take the template with a wrong setting."""
    nodes = page.evaluate(TOO_MANY_STEPS)
    page.locator(".sun-badge").wait_for()
    left, top, right, bottom = page.evaluate(BOX, nodes)
    return cut_out(page, (left, top - TITLE, right, bottom), 1, IMAGES / "badge.png", above=2 * MARGIN)


def node(page: Page, type_: str) -> Path:
    """Take a node that has looked at what it is linked to and, if it has a face, was run."""
    made = page.evaluate(NODE, type_)
    if page.evaluate("(id) => app.graph.getNodeById(id).widgets.some(({ name }) => name === 'sun_face')", made):
        run(page)
    if type_ in ("SUNSpeedUp", "SUNApply"):
        page.locator(".sun-text", has_text="evaluations").wait_for(state="attached")  # it is out of sight
    page.wait_for_timeout(3000)  # the face is written some time after the last change; not every node has words on it
    left, top, right, bottom = page.evaluate(BOX, [made])
    # cut off below its badge
    return cut_out(page, (left, top - TITLE, right, bottom), 1, IMAGES / f"node_{type_}.png", above=3)


def run(page: Page) -> None:
    """Run the workflow on the page."""
    ended = page.evaluate(RUN)
    assert ended == "execution_success", ended


def cut_out(page: Page, box: Box, scale: float, file: Path, above: float = MARGIN) -> Path:
    """Take a picture of a part of the canvas."""
    left, top, right, bottom = page.evaluate(SHOW, [box, scale])
    page.evaluate(FRAMES, 5)
    width, height = right - left + 2 * MARGIN, bottom - top + above + MARGIN
    taken = page.screenshot(clip={"x": left - MARGIN, "y": top - above, "width": width, "height": height})
    with Image.open(io.BytesIO(taken)) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)  # a third of the bytes
    return file


PICTURES: dict[str, Callable[[Page], Path]] = {
    "graph": graph,
    "badge": badge,
    **{type_: partial(node, type_=type_) for type_ in NODES},
}


def take_screenshots(names: Iterable[str], frontend: str) -> None:
    """Take the pictures of these names from ComfyUI's page in that version."""
    base, models = base_folder(), mini_family()
    fill(base, models)
    arguments = ("--cpu", "--front-end-root", str(environment.frontend(frontend)))
    with ComfyServer(environment.comfyui_path(), base, arguments=arguments) as server:
        write_settings(base, {**SETTINGS, "Comfy.InstalledVersion": frontend})
        workflow = examples(models, server.get("/object_info"))["text_to_image"]
        with chromium() as browser:
            page = new_window(browser, 1800, 1100).new_page()
            page.goto(server.url)
            page.wait_for_function(READY)
            for name in names:
                page.evaluate("(graph) => app.loadGraphData(graph, true, true, 'SUN')", workflow.graph)
                page.evaluate(FRAMES, 5)
                print(f"  made: {PICTURES[name](page).name}", flush=True)
