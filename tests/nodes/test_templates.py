"""The order of the templates in the list that ComfyUI gives the page, whoever else answers there."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from server import PromptServer
from sun_pack.nodes.templates import PACK, in_order, register_templates


def listed(body):
    """What the page gets if the list of all templates is `body`."""

    async def answer(_):
        return web.Response(body=body, content_type="application/json")

    async def ask():
        app = web.Application(middlewares=[in_order])
        app.router.add_get("/workflow_templates", answer)
        async with TestClient(TestServer(app)) as client:
            found = await client.get("/workflow_templates")
            return found.status, await found.read()

    return asyncio.run(ask())


def test_titles_of_this_pack_are_sorted_and_those_of_others_stay():
    status, found = listed(json.dumps({"other": ["b", "a"], PACK.name: ["02 b", "10 c", "01 a"]}).encode())
    assert (status, json.loads(found)) == (200, {"other": ["b", "a"], PACK.name: ["01 a", "02 b", "10 c"]})


@pytest.mark.parametrize("body", [b'{"other": ["b", "a"]}', b'["b", "a"]', b"\x1f\x8b packed", b"no JSON", b""])
def test_a_list_of_another_kind_stays_as_it_is(body):
    """As of a pack that answers in ComfyUI's place."""
    assert listed(body) == (200, body)


def test_the_pack_can_be_loaded_anew_while_the_server_runs(monkeypatch):
    """As packs for developers do; the order is there from the first time."""
    app = web.Application()
    monkeypatch.setattr(PromptServer, "instance", SimpleNamespace(app=app, routes=web.RouteTableDef()), raising=False)
    register_templates()
    app.freeze()
    register_templates()
    assert list(app.middlewares) == [in_order]
