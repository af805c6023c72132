"""What the browser tests and the screenshots need: ComfyUI's page in a given version, and Chromium."""

import sys
from pathlib import Path

from . import debian
from .cache import cached
from .pip import pip
from .setup_error import SetupError

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")  # names of its command
CHROMIUM_PACKAGES = ("chromium", "fonts-noto-cjk", "libatomic1")  # Debian's; the last is for Playwright


def frontend(version: str) -> Path:
    """Return the root of ComfyUI's page in that version, for --front-end-root."""
    package = f"comfyui-frontend-package=={version}"

    def install(folder: Path) -> None:
        pip(Path(sys.executable), f"ComfyUI's frontend {version}", "--no-deps", "--target", str(folder), package)

    return cached("frontend", (package,), install) / "comfyui_frontend_package" / "static"


def chromium() -> str:
    """Return Chromium's command, and install it first if this is root on Debian. Raises SetupError if it is missing."""
    if found := debian.command("Chromium", CHROMIUM, CHROMIUM_PACKAGES):
        return found
    raise SetupError(
        "The browser tests need Chromium, which is not installed: install it (on Debian and Ubuntu the packages "
        f"{', '.join(CHROMIUM_PACKAGES)}), or leave these tests out with --ignore=tests/browser."
    )
