"""ComfyUI's page in Chromium, as the browser tests and the screenshots open it."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, sync_playwright

from .. import environment

PATIENCE = 180_000  # milliseconds that anything on the page may take on a busy machine
READY = "window.app?.extensionManager?.workflow?.activeWorkflow && app.extensionManager.spinner === false"
FRAMES = """async (count) => { for (let i = 0; i < count; i++) await new Promise(requestAnimationFrame) }"""
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Locale": "en",
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.EnableTooltips": False,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.UseNewMenu": "Top",
}
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # nothing but this machine can be reached
)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium without a window."""
    command = environment.chromium()  # its packages are needed to start Playwright, too
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=command, args=[*ARGUMENTS])
        yield browser
        browser.close()


def write_settings(base: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of the one user of the server with this base folder."""
    user = base / "user" / "default"
    user.mkdir(parents=True, exist_ok=True)
    (user / "comfy.settings.json").write_text(json.dumps(settings), encoding="utf-8")


def new_window(browser: Browser, width: int, height: int) -> BrowserContext:
    """Open a window of a new user, with its inner size in pixels."""
    context = browser.new_context(viewport={"width": width, "height": height})
    context.add_init_script("localStorage.vueNodesBannerDismissed = 'true'")
    context.set_default_timeout(PATIENCE)
    return context
