"""The routes for the page: the adapter files, what each SUN node shows, and plans of edits."""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import folder_paths
from aiohttp import web
from server import PromptServer

import nodes

from ..conversion import finite_json
from ..conversion.check import check
from ..conversion.graph import ConversionError
from ..conversion.models import Adapter, Installed, ModelFile
from ..conversion.plain import without_sun
from ..conversion.plan import make_plan, read
from ..conversion.rules import RELEASED
from ..conversion.words import say, speaking
from ..sun_core.adapter_file import AdapterLayout, read_layout, steps_of
from ..sun_core.errors import SunError, Text
from ..sun_core.model_header import ModelHeader, read_model_header
from .adapter_folder import FOLDER, shown_metadata
from .language import translated
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
MODEL_FOLDERS = ("checkpoints", "diffusion_models")
MODEL_EXTENSIONS = (".safetensors", ".sft")


async def get_adapters(request: web.Request) -> web.Response:
    """GET /sun/adapters: list the adapter files with their headers' contents, and the one that can be downloaded."""

    def answer() -> str:
        released = {key: RELEASED[key] for key in ("name", "url", "bytes", "license", "folder")}
        adapters = [describe(name) for name in folder_paths.get_filename_list(FOLDER)]
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


def installed(default: str | None) -> Installed:
    """Return the adapters and models on this machine, with the adapter that the user prefers."""
    adapters = [_adapter(name) for name in folder_paths.get_filename_list(FOLDER)]
    return Installed(adapters, default, model_file, node_definition)


def node_definition(node_type: str) -> dict[str, Any] | None:
    """Return what /object_info says of a node type's inputs, or None if it is not installed."""
    node_class = nodes.NODE_CLASS_MAPPINGS.get(node_type)
    if node_class is None:
        return None
    try:
        return {"input": node_class.INPUT_TYPES()}
    except Exception:  # of another pack, whatever it is; /object_info leaves such a node out as well
        logging.exception("SUN could not read the inputs of %s.", node_type)
        return {}


@dataclass(frozen=True)
class AdapterHeader:
    """What the page is told of an adapter file; small, since the file may hold anything."""

    layout: AdapterLayout
    dtype: str
    family: str
    """As the metadata say; '' if they do not."""
    steps: int
    metadata: dict[str, str]
    bytes: int


def describe(name: str) -> dict[str, Any]:
    """Describe an adapter file for the page, in the language that is spoken."""
    header = adapter_header(name)
    if isinstance(header, str):
        return {"name": name, "error": translated(header)}
    return {
        "name": name,
        "family": header.family or header.layout.family or translated(header.layout.describe()),
        "layers": len(header.layout.layers),
        "context_dim": header.layout.context_dim,
        "steps": header.steps,
        "extra_positive": header.layout.extra_positive,
        "bytes": header.bytes,
        "dtype": header.dtype,
        "metadata": header.metadata,
    }


def _adapter(name: str) -> Adapter:
    header = adapter_header(name)
    if isinstance(header, str):
        return Adapter(name, error=translated(header))
    layout = header.layout
    return Adapter(
        name,
        layout.family or header.family,
        tuple(layout.layers.items()),
        len(layout.layers),
        header.steps,
        header.bytes,
    )


def adapter_header(name: str) -> AdapterHeader | str:
    """Read the header of an adapter file, or say in one sentence why it cannot be used."""
    try:
        return _adapter_header(*_state(FOLDER, name))
    except OSError:
        return Text("{name} cannot be read; check its permissions.", name=name)


def model_file(names: Any) -> ModelFile | None:
    """Read the header of the first of these files that is in one of the model folders."""
    for name in names:
        for folder in MODEL_FOLDERS:
            if not name.lower().endswith(MODEL_EXTENSIONS) or not folder_paths.get_full_path(folder, name):
                continue
            header = _model_header(*_state(folder, name))
            if header is not None:
                layout = tuple(header.layout.layers.items()) if header.layout else None
                return ModelFile(name, translated(header.family), layout)
    return None


def _state(folder: str, name: str) -> tuple[str, int, int, int]:
    """Return path and state of a file: the key of its cached header. The change of permissions is a state too."""
    path = folder_paths.get_full_path_or_raise(folder, name)
    stat = Path(path).stat()
    return path, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size


@lru_cache(maxsize=256)
def _adapter_header(path: str, modified: int, changed: int, size: int) -> AdapterHeader | str:
    try:
        layout, dtype, metadata = read_layout(path)
    except SunError as error:
        return error.sentence
    return AdapterHeader(
        layout,
        str(dtype).removeprefix("torch."),
        metadata.get("family", "")[:100],
        steps_of(metadata),
        shown_metadata(metadata),
        size,
    )


@lru_cache(maxsize=256)
def _model_header(path: str, modified: int, changed: int, size: int) -> ModelHeader | None:
    return read_model_header(path)


def register_routes() -> None:
    """Add the routes to the running server; tests import the pack without one."""
    server = getattr(PromptServer, "instance", None)
    if server is None:
        return
    server.routes.get("/sun/adapters")(get_adapters)
    server.routes.post("/sun/check")(post_check)
    server.routes.post("/sun/plan")(post_plan)
    server.routes.post("/sun/plain")(post_plain)
