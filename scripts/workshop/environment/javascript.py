"""What checks the page's JavaScript: TypeScript, with the types that ComfyUI's frontend publishes."""

import subprocess
from pathlib import Path

from . import debian
from .cache import cached
from .setup_error import SetupError

JAVASCRIPT_TOOLS = ("typescript@5.9.3", "@comfyorg/comfyui-frontend-types@1.45.6")
NODE_PACKAGES = ("nodejs", "npm")  # Debian's


def javascript_tools() -> Path:
    """Install the JavaScript checker and the frontend's types; return their node_modules.

    Raises SetupError if npm is missing and cannot be installed, or if npm fails.
    """
    npm = debian.command("Node.js", ("npm",), NODE_PACKAGES)
    if npm is None:
        raise SetupError(
            "The JavaScript check needs Node.js with npm, which is not installed: install it and try again."
        )

    def install(folder: Path) -> None:
        print("Installing the JavaScript check ...", flush=True)
        # peer dependencies are what the types were built with: nothing here needs them
        quietly = ("--no-audit", "--no-fund", "--no-package-lock", "--legacy-peer-deps", "--ignore-scripts")
        command = [npm, "install", *quietly, "--prefix", str(folder), *JAVASCRIPT_TOOLS]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            raise SetupError(f"npm could not install the JavaScript check: {made.stderr.strip()[-300:]}")

    return cached("javascript-tools", JAVASCRIPT_TOOLS, install) / "node_modules"
