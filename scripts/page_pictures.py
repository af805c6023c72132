"""Screenshots of a graph and of single nodes, cut out of ComfyUI's page with the text to image template on it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import environment
from comfy_page import FRAMES
from playwright.sync_api import Page

NODES = (
    *("SUNSpeedUp", "SUNLoadAdapter", "SUNApply", "SUNSampler", "SUNScheduler", "SUNAdapterInfo"),
    *("SUNTrain", "SUNSaveAdapter"),
)
"""The ids of the nodes that have help pages."""
GRAPH = environment.REPOSITORY / "docs" / "images" / "graph.png"
HELP = environment.REPOSITORY / "web" / "docs" / "images"
MARGIN, TITLE = 14, 30  # around what is shown, and a title bar's height

# Runs the workflow; what the picture and the face of SUN show is there once this ends.
RUN = """async () => {
    const ended = new Promise((resolve) => {
        for (const event of ['execution_success', 'execution_error'])
            app.api.addEventListener(event, ({ type }) => resolve(type), { once: true })
    })
    await app.queuePrompt(0)
    return ended
}"""
# The node of a type, linked to what the template has for it, in the place of the template's own.
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
    node.setSize([Math.max(width, 400), height])
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
# Sets the KSampler to 30 steps; gives the ids of SUN's node and of the KSampler.
TOO_MANY_STEPS = """() => {
    const [sun, sampler] = ['SUNSpeedUp', 'KSampler'].map((type) => app.graph.nodes.find((node) => node.type === type))
    sampler.widgets.find(({ name }) => name === 'steps').value = 30
    app.extensionManager.workflow.activeWorkflow.changeTracker.checkState()
    return [sun.id, sampler.id].map(Number)
}"""
# What groups, or the nodes of these ids, take up.
BOX = """(ids) => {
    const parts = ids ? ids.map((id) => app.graph.getNodeById(id)) : app.graph.groups
    const boxes = parts.map(({ pos: [x, y], size: [width, height] }) => [x, y, x + width, y + height])
    return [0, 1, 2, 3].map((side) => (side < 2 ? Math.min : Math.max)(...boxes.map((box) => box[side])))
}"""
# Brings a box to where no menu is, and gives its corners in the window.
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
    """The template after a run."""
    run(page)
    page.locator(".sun-face", has_text="evaluations").wait_for()
    page.locator(".p-toast-message").wait_for(state="hidden")
    return cut_out(page, page.evaluate(BOX), 0.8, GRAPH)


def badge(page: Page) -> Path:
    """The template with a wrong setting."""
    nodes = page.evaluate(TOO_MANY_STEPS)
    page.locator(".sun-badge").wait_for()
    left, top, right, bottom = page.evaluate(BOX, nodes)
    return cut_out(page, (left, top - TITLE, right, bottom), 1, HELP / "badge.png", above=2 * MARGIN)


def node(page: Page, type_: str) -> Path:
    """A node that has looked at what it is linked to and, where it has a face, was run."""
    made = page.evaluate(NODE, type_)
    if page.evaluate("(id) => app.graph.getNodeById(id).widgets.some(({ name }) => name === 'sun_face')", made):
        run(page)
    if type_ in ("SUNSpeedUp", "SUNApply"):
        page.locator(".sun-face", has_text="evaluations").wait_for()
    page.wait_for_timeout(3000)  # the face is written some time after the last change; not every node has words on it
    left, top, right, bottom = page.evaluate(BOX, [made])
    return cut_out(page, (left, top - TITLE, right, bottom), 1, HELP / f"node_{type_}.png", above=3)  # below its badge


def run(page: Page) -> None:
    ended = page.evaluate(RUN)
    assert ended == "execution_success", ended


def cut_out(page: Page, box: Box, scale: float, file: Path, above: float = MARGIN) -> Path:
    """A picture of a part of the canvas."""
    left, top, right, bottom = page.evaluate(SHOW, [box, scale])
    page.evaluate(FRAMES, 5)
    width, height = right - left + 2 * MARGIN, bottom - top + above + MARGIN
    page.screenshot(path=file, clip={"x": left - MARGIN, "y": top - above, "width": width, "height": height})
    return file


PICTURES: dict[str, Callable[[Page], Path]] = {
    "graph": graph,
    "badge": badge,
    **{type_: partial(node, type_=type_) for type_ in NODES},
}
