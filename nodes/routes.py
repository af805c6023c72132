"""The routes for the page: the adapter files, what each SUN node shows, and plans of edits."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import web
from server import PromptServer

from ..conversion import finite_json
from ..conversion.check import check
from ..conversion.graph import ConversionError
from ..conversion.plain import without_sun
from ..conversion.plan import make_plan, read
from ..conversion.rules import RELEASED
from ..conversion.words import say, speaking
from .installed_files import installed, installed_adapters
from .settings import DEFAULT_USER, page_language, remember_language
from .version import pack_version

VERSION = pack_version()
JSON = "application/json"
LARGEST_BODY = 16 * 2**20
"""Bytes, unpacked; a workflow of 2,000 nodes has about 2 MB."""
MOST_MARKS = 2_000_000
"""The most brackets, braces and commas; a workflow of 5,000 nodes has about 300,000. Python parses a list in C, and no
other thread runs meanwhile: 16 MB of "[]," would stop the server for six seconds.
"""


async def get_adapters(request: web.Request) -> web.Response:
    """GET /sun/adapters: list the adapter files, with an error if one cannot be used, and the one to download."""

    def answer() -> str:
        released = {key: RELEASED[key] for key in ("name", "url", "bytes", "license", "folder")}
        adapters = [
            {"name": adapter.name} if adapter.error is None else {"name": adapter.name, "error": adapter.error}
            for adapter in installed_adapters()
        ]
        return _json({"version": VERSION, "adapters": adapters, "released": released})

    with speaking(page_language(_user_of(request))):
        return web.Response(text=await asyncio.to_thread(answer), content_type=JSON)


async def post_check(request: web.Request) -> web.Response:
    """POST /sun/check {"workflow", "locale"}: list what each SUN node shows on its face.

    Here and below, "locale" may be left out: the answer is then in the language that the user's page showed last.
    """

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        here = installed(None)
        return {"nodes": check(read(body.get("workflow"), here.definitions), here)}

    return await _answer(request, answer)


async def post_plan(request: web.Request) -> web.Response:
    """POST /sun/plan {"action", "workflow", "targets", "adapter", "locale"}: plan edits, with a message about them."""

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        adapter = body.get("adapter")
        here = installed(adapter if isinstance(adapter, str) else None)
        return make_plan(body.get("action", ""), body.get("workflow"), body.get("targets"), here).as_json()

    return await _answer(request, answer)


async def post_plain(request: web.Request) -> web.Response:
    """POST /sun/plain {"workflow", "prompt", "locale"}: return both without SUN, with the settings in words."""

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        workflow, prompt, settings = without_sun(body.get("workflow"), body.get("prompt"), installed(None))
        return {"workflow": workflow, "prompt": prompt, "settings": settings}

    return await _answer(request, answer)


async def _answer(request: web.Request, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> web.Response:
    """Receive a body and answer it in a thread, which parses JSON, reads files and writes JSON."""
    user = _user_of(request)
    with speaking(page_language(user)):  # until the body has said more
        try:
            received = await _received(request)
        except ConversionError as error:
            return web.Response(status=400, text=_json({"error": str(error)}), content_type=JSON)
        status, text = await asyncio.to_thread(_answered, received, answer, user)
    return web.Response(status=status, text=text, content_type=JSON)


def _user_of(request: web.Request) -> str:
    """Return whose settings hold for a request."""
    server = getattr(PromptServer, "instance", None)  # absent if nodes are loaded without a server
    try:
        return server.user_manager.get_request_user_id(request) if server else DEFAULT_USER
    except KeyError:  # with --multi-user, from a page on which nobody is logged in
        return DEFAULT_USER


async def _received(request: web.Request) -> bytes:
    received = bytearray()
    try:
        async for chunk in request.content.iter_chunked(2**16):
            received += chunk
            if len(received) > LARGEST_BODY:
                most = LARGEST_BODY // 2**20
                raise ConversionError(say("The workflow is larger than {most} MB, too large for SUN.", most=most))
    except web.RequestPayloadError:
        raise ConversionError(say("The request is damaged: its content is not what its headers say.")) from None
    return bytes(received)


def _answered(received: bytes, answer: Callable[[dict[str, Any]], dict[str, Any]], user: str) -> tuple[int, str]:
    """Return the status and the JSON for the body of a user; every error becomes one sentence."""
    try:
        body = _parsed(received)
        remember_language(user, body.get("locale"))
        with speaking(body.get("locale", page_language(user))):
            try:
                return 200, _json(answer(body))
            except ConversionError:
                raise
            except Exception:
                logging.exception("SUN could not work on this workflow.")
                raise ConversionError(
                    say("SUN could not read this workflow; it stays as it is, and the log says why.")
                ) from None
    except ConversionError as error:
        return 400, _json({"error": str(error)})


def _parsed(received: bytes) -> dict[str, Any]:
    if sum(map(received.count, (b"[", b"{", b","))) > MOST_MARKS:
        raise ConversionError(say("The workflow holds too many values for SUN; split it to convert its parts."))
    try:
        body = finite_json.parse(received)
    except ValueError:
        raise ConversionError(say("The request is not valid JSON.")) from None
    if not isinstance(body, dict):
        raise ConversionError(say("The request must be a JSON object."))
    return body


def _json(answer: dict[str, Any]) -> str:
    """Write strict JSON: the page cannot parse Python's NaN."""
    return json.dumps(answer, allow_nan=False)


def register_routes() -> None:
    """Add the routes to the running server; tests import the pack without one."""
    server = getattr(PromptServer, "instance", None)
    if server is None:
        return
    server.routes.get("/sun/adapters")(get_adapters)
    server.routes.post("/sun/check")(post_check)
    server.routes.post("/sun/plan")(post_plan)
    server.routes.post("/sun/plain")(post_plain)
