"""ComfyUI's page, driven as a user does: mouse, keys and files; what the graph holds is read through its own API."""

import json
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page
from workshop.server.comfy_page import FRAMES, PATIENCE, READY
from workshop.server.comfy_server import ComfyServer

TRACKER = "app.extensionManager.workflow.activeWorkflow.changeTracker"


class CanvasPage:
    """`errors` are what was thrown in the page and not caught."""

    def __init__(self, page: Page, server: ComfyServer) -> None:
        self.page, self.server = page, server
        self.errors: list[str] = []
        self._steps_when_loaded = 0
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def forget_the_user(self) -> None:
        """Remove what the page keeps in the browser: open workflows, drafts, the layout."""
        session = self.page.context.new_cdp_session(self.page)
        kept = "cookies,local_storage,indexeddb,cache_storage"
        session.send("Storage.clearDataForOrigin", {"origin": self.server.url, "storageTypes": kept})
        session.detach()

    def open(self, query: str = "") -> None:
        self.page.goto(f"{self.server.url}/{query}")
        self.page.wait_for_function(READY)
        self.frames(3)

    def frames(self, count: int = 2) -> None:
        """Wait until the page has drawn so many times."""
        self.page.evaluate(FRAMES, count)

    def still(self, expression: str, count: int = 5) -> None:
        """Wait until the page has drawn so many times without a change of what an expression gives."""
        self.page.evaluate(
            f"""async (count) => {{
            let same = 0
            for (let before = null; same < count; ) {{
                await new Promise(requestAnimationFrame)
                const now = {expression}
                same = now === before ? same + 1 : 0
                before = now
            }}
        }}""",
            count,
        )

    def load(self, workflow: dict[str, Any], name: str = "loaded") -> None:
        """Open a workflow as from a file, in a tab of its own."""
        self.page.evaluate("([graph, name]) => app.loadGraphData(graph, true, true, name)", [workflow, name])
        self.settle()

    def settle(self) -> None:
        """Let the page record what it does to a graph by itself: Nodes 2.0 measures nodes once they are there."""
        self.still("JSON.stringify((app.rootGraph ?? app.graph).serialize())")
        self._steps_when_loaded = self.page.evaluate(f"{TRACKER}.checkState() ?? {TRACKER}.undoQueue.length")

    def graph(self) -> dict[str, Any]:
        """The workflow as it would be saved now."""
        return self.page.evaluate("JSON.parse(JSON.stringify((app.rootGraph ?? app.graph).serialize()))")

    def nodes(self, kind: str) -> list[dict[str, Any]]:
        return [node for node in self.graph()["nodes"] if node["type"] == kind]

    def values(self, node: int) -> dict[str, Any]:
        """A node's widgets by name."""
        script = "(id) => Object.fromEntries(app.canvas.graph.getNodeById(id).widgets.map((w) => [w.name, w.value]))"
        return self.page.evaluate(script, node)

    def driven_widgets(self) -> list[list[Any]]:
        """[graph, node, position among the saved values] of every widget whose value comes over a link."""
        return self.page.evaluate("""() => {
            const root = app.rootGraph ?? app.graph
            return [root, ...root.subgraphs.values()].flatMap((graph) => graph.nodes.flatMap((node) => {
                const saved = (node.widgets ?? []).filter((widget) => widget.serialize !== false)
                return node.serialize().inputs
                    .filter((input) => input.widget && input.link != null)
                    .map((input) => saved.findIndex((widget) => widget.name === input.widget.name))
                    .filter((index) => index >= 0)
                    .map((index) => [graph === root ? null : graph.id, Number(node.id), index])
            }))
        }""")

    def undo_steps(self) -> int:
        """How many there are since the workflow was loaded."""
        return self.page.evaluate(f"{TRACKER}.undoQueue.length") - self._steps_when_loaded

    def face(self, node: int) -> Locator:
        """What a SUN node of the root graph says."""
        return self.page.locator(f".sun-face[data-place='root:{node}']")

    def notes(self, node: int) -> list[str]:
        """What SUN says above the title of a node without a face: litegraph's badges, or an element of Nodes 2.0."""
        script = """(id) => {
            if (LiteGraph.vueNodesMode) {
                const above = document.querySelector(`.lg-node[data-node-id="${id}"] .sun-notes`)
                return [...(above?.querySelectorAll('.sun-above') ?? [])].map((note) => note.innerText)
            }
            const { badges } = app.canvas.graph.getNodeById(id)
            const drawn = badges.map((badge) => (typeof badge === 'function' ? badge() : badge))
            return drawn.filter(({ bgColor }) => ['#3d4654', '#e8b339'].includes(bgColor)).map(({ text }) => text)
        }"""
        return [text for text in self.page.evaluate(script, node) if text]

    def expect_notes(self, node: int, *texts: str) -> None:
        """Wait until exactly these are above a node."""
        deadline = time.monotonic() + PATIENCE / 1000
        while self.notes(node) != list(texts):
            assert time.monotonic() < deadline, f"{self.notes(node)} instead of {texts}"
            self.frames(10)

    def command(self, name: str) -> None:
        """Run a command, as a menu or a shortcut does."""
        self.page.evaluate("(name) => app.extensionManager.command.execute(name)", name)
        self.frames(3)

    def convert(self, action: str) -> None:
        """Speed up or restore the whole graph, and wait until it is done."""
        script = "async ([file, action]) => (await import(file)).convert(action, null)"
        self.page.evaluate(script, ["/extensions/sun-for-comfyui/js/conversion.js", action])

    def save(self, name: str) -> dict[str, Any]:
        """Save the workflow under a name: Ctrl+S, the name, Enter."""
        self.press("Control", "s")
        self.page.locator("[role=dialog] input").last.fill(name)
        file = f"{name.replace(' ', '%20')}.json"
        with self.page.expect_response(lambda answer: answer.request.method == "POST" and file in answer.url):
            self.page.keyboard.press("Enter")  # some pages take the name before the file is there
        self.page.wait_for_function(
            "(name) => app.extensionManager.workflow.activeWorkflow.path === `workflows/${name}.json`", arg=name
        )
        return self.saved(name)

    def saved(self, name: str) -> dict[str, Any]:
        return self.server.get(f"/userdata/workflows%2F{name.replace(' ', '%20')}.json")

    def reopen(self, name: str) -> None:
        """Reload the page and open a saved workflow."""
        self.page.reload()
        self.page.wait_for_function(READY)
        self.load(self.saved(name))
        self.show_all()

    def picture_size(self) -> tuple[int, int]:
        """Width and height of the picture that a node shows, on the canvas or as an element."""
        script = """() => {
            const node = app.graph.nodes.find((candidate) => candidate.imgs?.length)
            const picture = node?.imgs[0] ?? document.querySelector(".lg-node img[src*='/view']")
            return picture?.naturalWidth ? [picture.naturalWidth, picture.naturalHeight] : null
        }"""
        width, height = self.page.wait_for_function(script).json_value()
        return width, height

    def show_all(self) -> None:
        """Fit the graph into the window."""
        self.page.evaluate("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.still("[app.canvas.ds.scale, ...app.canvas.ds.offset].join()", 10)  # the view glides there

    def look_at(self, node: int) -> None:
        """Bring a node to the middle of the window, at a size that shows its words."""
        script = """(id) => {
            const { canvas } = app
            const node = canvas.graph.getNodeById(id)
            canvas.ds.scale = 1
            canvas.ds.offset = [600 - node.pos[0], 300 - node.pos[1]]
            canvas.setDirty(true, true)
        }"""
        self.page.evaluate(script, node)
        self.frames(4)

    def set_value(self, node: int, widget: str, value: Any) -> None:
        """Type a value into a widget; what the page itself does once a value was typed."""
        script = """([id, name, value]) => {
            const node = app.canvas.graph.getNodeById(id)
            const widget = node.widgets.find((candidate) => candidate.name === name)
            app.canvas.emitBeforeChange()
            widget.value = value
            widget.callback?.(value, app.canvas, node)
            app.canvas.emitAfterChange()
        }"""
        self.page.evaluate(script, [node, widget, value])
        self.frames()

    def refresh_definitions(self) -> None:
        """The key R."""
        self.command("Comfy.RefreshNodeDefinitions")

    def point_of(self, node: int) -> tuple[float, float]:
        """Where a node's title is in the window."""
        script = """(id) => {
            const [x, y] = app.canvas.graph.getNodeById(id).pos
            return app.canvasPosToClientPos([x + 40, y - 15])
        }"""
        x, y = self.page.evaluate(script, node)
        return x, y

    def select(self, node: int) -> None:
        self.page.mouse.click(*self.point_of(node))
        self.frames(3)

    def right_click(self, x: float, y: float) -> None:
        self.page.mouse.move(x, y)
        self.frames()
        self.page.mouse.click(x, y, button="right")
        self.frames(3)

    def choose(self, entry: str) -> None:
        """An entry of the context menu that is open, whichever kind of menu this frontend has."""
        self.page.locator(".litecontextmenu, [role=menu], .p-contextmenu").get_by_text(entry, exact=True).first.click()

    def press(self, *keys: str) -> None:
        """Keys held together, each a few frames after the one before it, as fingers do."""
        for key in keys:
            self.page.keyboard.down(key)
            self.frames()
        for key in reversed(keys):
            self.page.keyboard.up(key)
            self.frames()

    def undo(self) -> None:
        self._step("z", "redoQueue")

    def redo(self) -> None:
        self._step("y", "undoQueue")

    def _step(self, key: str, grows: str) -> None:
        """Undo or redo one step, and wait until the page has loaded what was before or after it."""
        before = self.page.evaluate(f"{TRACKER}.{grows}.length")
        self.press("Control", key)
        self.page.wait_for_function(
            f"(before) => {TRACKER}.{grows}.length > before && !{TRACKER}._restoringState", arg=before
        )
        self.frames()

    def messages(self, text: str | None = None) -> Locator:
        """The messages that show, or those of them with a text."""
        return self.page.locator(".p-toast-message, [data-testid=toast]", has_text=text)

    def toast(self) -> str:
        """The text of the message that shows, once one does."""
        message = self.messages().last
        message.wait_for()
        return message.inner_text()

    def drop(self, file: Path) -> None:
        """Drag a file from the desktop onto the canvas."""
        session = self.page.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, "x": 700, "y": 450, "data": data})
        self.frames(3)

    def run_workflow(self) -> None:
        """Press Run and wait for the end of it; an error in a node fails the test."""
        self.page.evaluate("""() => {
            window.ended = new Promise((resolve) => {
                for (const event of ['execution_success', 'execution_error'])
                    app.api.addEventListener(event, ({ detail }) => resolve({ event, detail }), { once: true })
            })
        }""")
        self.page.get_by_test_id("queue-button").click()
        ended = self.page.evaluate("window.ended")
        assert ended["event"] == "execution_success", json.dumps(ended["detail"])[:2000]
        self.frames(3)
