"""The before/after template with the slider of core's ImageCompare, on a ComfyUI that has that node.

A template must open with no node missing, and older cores lack ImageCompare. So example_workflows/before_after.json
shows the two pictures side by side, and its twin in with_slider/, which the template browser does not list, is given
out in its place where the node is known.
"""

from pathlib import Path

from aiohttp import web
from server import PromptServer

import nodes

PACK = Path(__file__).parents[1]
TEMPLATE = "before_after.json"


def template() -> Path:
    folder = PACK / "example_workflows"
    return (folder / "with_slider" if "ImageCompare" in nodes.NODE_CLASS_MAPPINGS else folder) / TEMPLATE


async def give_template(request: web.Request) -> web.FileResponse:
    return web.FileResponse(template())


def register_template() -> None:
    """The address of this one file goes before that of its folder, which ComfyUI gives out itself."""
    if server := getattr(PromptServer, "instance", None):  # none where nodes are loaded without a server
        server.routes.get(f"/workflow_templates/{PACK.name}/{TEMPLATE}")(give_template)
