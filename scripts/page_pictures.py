"""Screenshots of a graph and of single nodes, cut out of ComfyUI's page with the text to image template on it."""

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
    const [checkpoint, sampler] = [named('Checkpoint'), named('KSampler')]
    for (const node of graph.nodes.filter(({ type }) => type === 'SUNSpeedUp')) graph.remove(node)
    const node = made(type)
    const takes = (input) => node.inputs.some(({ name }) => name === input)
    if (takes('model')) checkpoint.connect(0, node, 'model')
    if (takes('sun_adapter')) made('SUNLoadAdapter').connect(0, node, 'sun_adapter')
    if (node.outputs.some(({ type }) => type === 'MODEL')) node.connect(0, sampler, 'model')
    if (type === 'SUNSampler') {
        const sun = made('SUNSpeedUp')
        checkpoint.connect(0, sun, 'model')
        sun.connect(0, node, 'model')
    }
    const [width, height] = node.computeSize()
    node.setSize([Math.max(width, 400), height])
    node.pos = [0, -4000]
    app.extensionManager.workflow.activeWorkflow.changeTracker.checkState()
    return Number(node.id)
}"""
NODE_BOX = """(id) => {
    const { pos: [x, y], size: [width, height] } = app.graph.getNodeById(id)
    return [x, y, x + width, y + height]
}"""
GROUPS_BOX = """() => {
    const boxes = app.graph.groups.map(({ pos: [x, y], size: [width, height] }) => [x, y, x + width, y + height])
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
    ended = page.evaluate(RUN)
    assert ended == "execution_success", ended
    page.locator(".sun-face", has_text="evaluations").wait_for()
    page.locator(".p-toast-message").wait_for(state="hidden")
    return cut_out(page, page.evaluate(GROUPS_BOX), 0.8, GRAPH)


def node(page: Page, type_: str) -> Path:
    """A node that has looked at what it is linked to."""
    made = page.evaluate(NODE, type_)
    page.wait_for_timeout(3000)  # the face is written some time after the last change; not every node has words on it
    left, top, right, bottom = page.evaluate(NODE_BOX, made)
    return cut_out(page, (left, top - TITLE, right, bottom), 1, HELP / f"node_{type_}.png", above=3)  # below its badge


def cut_out(page: Page, box: Box, scale: float, file: Path, above: float = MARGIN) -> Path:
    """A picture of a part of the canvas."""
    left, top, right, bottom = page.evaluate(SHOW, [box, scale])
    page.evaluate(FRAMES, 5)
    width, height = right - left + 2 * MARGIN, bottom - top + above + MARGIN
    page.screenshot(path=file, clip={"x": left - MARGIN, "y": top - above, "width": width, "height": height})
    return file
