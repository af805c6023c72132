"""The before/after template with the slider of ComfyUI's ImageCompare node, if this ComfyUI has that node.

A template must not contain nodes that are missing, and older versions of ComfyUI have no ImageCompare. So the file in
example_workflows/ shows the two images side by side. If the node exists, the server sends the variant in with_slider/
instead, which the template browser does not list.
"""

from pathlib import Path

from aiohttp import web
from server import PromptServer

import nodes

PACK = Path(__file__).parents[1]
TEMPLATE = "02 Before and after.json"


def template() -> Path:
    folder = PACK / "example_workflows"
    return (folder / "with_slider" if "ImageCompare" in nodes.NODE_CLASS_MAPPINGS else folder) / TEMPLATE


async def give_template(request: web.Request) -> web.FileResponse:
    return web.FileResponse(template())


def register_template() -> None:
    """Add a route for this one file, which takes precedence over ComfyUI's own route for its folder."""
    if server := getattr(PromptServer, "instance", None):  # absent if nodes are loaded without a server
        server.routes.get(f"/workflow_templates/{PACK.name}/{TEMPLATE}")(give_template)
