"""The order of the templates, and the before/after template with the slider of ComfyUI's ImageCompare node.

ComfyUI lists templates as the file system does. Their titles begin with numbers, and the page shall keep that order.

A template must not contain nodes that are missing, and older versions of ComfyUI have no ImageCompare. So the file in
example_workflows/ shows the two images side by side. If this ComfyUI has the node, the server sends the variant in
with_slider/ instead, which the template browser does not list.
"""

import json
from contextlib import suppress
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler
from server import PromptServer

import nodes

PACK = Path(__file__).parents[1]
TEMPLATE = "02 Before and after.json"


def template() -> Path:
    folder = PACK / "example_workflows"
    return (folder / "with_slider" if "ImageCompare" in nodes.NODE_CLASS_MAPPINGS else folder) / TEMPLATE


async def give_template(request: web.Request) -> web.FileResponse:
    return web.FileResponse(template())


@web.middleware
async def in_order(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Sort this pack's titles in the list of all templates."""
    response = await handler(request)
    is_list = request.path.removeprefix("/api") == "/workflow_templates" and response.status == 200
    if is_list and isinstance(response, web.Response):
        with suppress(ValueError, TypeError, KeyError):  # what another pack answers in ComfyUI's place stays as it is
            titles = json.loads(response.text or "")
            response.text = json.dumps({**titles, PACK.name: sorted(titles[PACK.name])})
    return response


def register_templates() -> None:
    """Add a route for that one file, which takes precedence over ComfyUI's own route for its folder, and the order."""
    if server := getattr(PromptServer, "instance", None):  # absent if nodes are loaded without a server
        server.routes.get(f"/workflow_templates/{PACK.name}/{TEMPLATE}")(give_template)
        if not server.app.frozen:  # as it is for packs that load others anew while the server runs
            server.app.middlewares.append(in_order)
