"""ComfyUI's page, driven as a user does: mouse, keys and files; what the graph holds is read through its own API."""

import json
from pathlib import Path
from typing import Any

from comfy_server import ComfyServer
from playwright.sync_api import Page

READY = "window.app?.extensionManager?.workflow?.activeWorkflow && app.extensionManager.spinner === false"
FRAMES = """async (count) => { for (let i = 0; i < count; i++) await new Promise(requestAnimationFrame) }"""


class CanvasPage:
    """`errors` are what was thrown in the page and not caught."""

    def __init__(self, page: Page, server: ComfyServer) -> None:
        self.page, self.server = page, server
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, query: str = "") -> None:
        self.page.goto(f"{self.server.url}/{query}")
        self.page.wait_for_function(READY)
        self.frames(3)

    def frames(self, count: int = 2) -> None:
        """Wait until the page has drawn so many times."""
        self.page.evaluate(FRAMES, count)

    def load(self, workflow: dict[str, Any]) -> None:
        """Open a workflow as from a file, in a tab of its own."""
        self.page.evaluate("(graph) => app.loadGraphData(graph, true, true, 'loaded')", workflow)
        self.frames(3)

    def graph(self) -> dict[str, Any]:
        """The workflow as it would be saved now."""
        return self.page.evaluate("JSON.parse(JSON.stringify((app.rootGraph ?? app.graph).serialize()))")

    def nodes(self, kind: str) -> list[dict[str, Any]]:
        return [node for node in self.graph()["nodes"] if node["type"] == kind]

    def values(self, node: int) -> dict[str, Any]:
        """A node's widgets by name."""
        script = "(id) => Object.fromEntries(app.canvas.graph.getNodeById(id).widgets.map((w) => [w.name, w.value]))"
        return self.page.evaluate(script, node)

    def undo_steps(self) -> int:
        return self.page.evaluate("app.extensionManager.workflow.activeWorkflow.changeTracker.undoQueue.length")

    def show_all(self) -> None:
        """Fit the graph into the window."""
        self.page.evaluate("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.page.wait_for_timeout(600)  # the view glides there
        self.frames(3)

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
        self.press("Control", "z")

    def redo(self) -> None:
        self.press("Control", "y")

    def toast(self) -> str:
        """The text of the message that shows, once one does."""
        message = self.page.locator(".p-toast-message, [data-sonner-toast], [role=status], [role=alert]").last
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
