"""The routes for the page: the adapter files, what each SUN node shows, and plans of edits."""

import asyncio
import json
import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import folder_paths
from aiohttp import web
from server import PromptServer

import nodes

from ..conversion.check import check
from ..conversion.graph import ConversionError
from ..conversion.models import Adapter, Installed, ModelFile
from ..conversion.plain import without_sun
from ..conversion.plan import make_plan, read
from ..conversion.rules import RELEASED, STEPS
from ..conversion.words import say, speaking
from ..sun_core.adapter_file import read_layout
from ..sun_core.errors import SunError
from ..sun_core.model_header import ModelHeader, read_model_header
from .adapter_folder import FOLDER
from .version import pack_version

VERSION = pack_version()
LARGEST_BODY = 32 * 2**20
MODEL_FOLDERS = ("checkpoints", "diffusion_models")
MODEL_EXTENSIONS = (".safetensors", ".sft")


async def get_adapters(request: web.Request) -> web.Response:
    """GET /sun/adapters: list the adapter files with their headers' contents, and the one that can be downloaded."""
    adapters = await asyncio.to_thread(lambda: [describe(name) for name in folder_paths.get_filename_list(FOLDER)])
    released = {key: RELEASED[key] for key in ("name", "url", "bytes", "license", "folder")}
    return web.json_response({"version": VERSION, "adapters": adapters, "released": released})


async def post_check(request: web.Request) -> web.Response:
    """POST /sun/check {"workflow", "locale"}: list what each SUN node shows on its face."""

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
    """Run `answer` on the JSON body, in a thread since it reads files; every error becomes one sentence."""
    try:
        body = await _body(request)
    except ConversionError as error:
        return _refusal(str(error))
    with speaking(body.get("locale")):
        try:
            return web.json_response(await asyncio.to_thread(answer, body), dumps=_dumps)
        except ConversionError as error:
            return _refusal(str(error))
        except Exception:
            logging.exception("SUN could not work on this workflow.")
            return _refusal(say("SUN could not read this workflow; it stays as it is, and the log says why."))


def _refusal(sentence: str) -> web.Response:
    return web.json_response({"error": sentence}, status=400)


def _dumps(answer: dict[str, Any]) -> str:
    """Write strict JSON: the page cannot parse Python's NaN."""
    return json.dumps(answer, allow_nan=False)


async def _body(request: web.Request) -> dict[str, Any]:
    received = bytearray()
    async for chunk in request.content.iter_chunked(2**16):
        received += chunk
        if len(received) > LARGEST_BODY:
            raise ConversionError(f"The workflow is larger than {LARGEST_BODY // 2**20} MB, too large for SUN.")
    try:
        body = json.loads(received)
    except (ValueError, RecursionError):
        raise ConversionError("The request is not valid JSON.") from None
    if not isinstance(body, dict):
        raise ConversionError("The request must be a JSON object.")
    return body


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


def describe(name: str) -> dict[str, Any]:
    """Describe an adapter file for the page."""
    try:
        layout, dtype, metadata, size = _header(*_state(FOLDER, name))
    except (SunError, OSError) as error:
        return {"name": name, "error": _sentence(name, error)}
    return {
        "name": name,
        "family": metadata.get("family", "")[:100] or layout.family or layout.describe(),
        "layers": len(layout.layers),
        "context_dim": layout.context_dim,
        "steps": steps_of(metadata),
        "extra_positive": layout.extra_positive,
        "bytes": size,
        "dtype": str(dtype).removeprefix("torch."),
        "metadata": {key[:100]: value[:2000] for key, value in list(metadata.items())[:100]},
    }


def _adapter(name: str) -> Adapter:
    try:
        layout, _, metadata, size = _header(*_state(FOLDER, name))
    except (SunError, OSError) as error:
        return Adapter(name, error=_sentence(name, error))
    return Adapter(
        name,
        layout.family or metadata.get("family", ""),
        tuple(layout.layers.items()),
        len(layout.layers),
        steps_of(metadata),
        size,
    )


def _sentence(name: str, error: Exception) -> str:
    return str(error) if isinstance(error, SunError) else f"{name} cannot be read; check its permissions."


def steps_of(metadata: dict[str, str]) -> int:
    """Read the number of steps from an adapter's metadata, which is untrusted; STEPS if it is missing or invalid."""
    steps = metadata.get("steps", "")
    return int(steps) if steps.isascii() and steps.isdigit() and len(steps) < 4 and 1 <= int(steps) <= 100 else STEPS


def model_file(names: Any) -> ModelFile | None:
    """Read the header of the first of these files that is in one of the model folders."""
    for name in names:
        for folder in MODEL_FOLDERS:
            if not name.lower().endswith(MODEL_EXTENSIONS) or not folder_paths.get_full_path(folder, name):
                continue
            header = _model_header(*_state(folder, name))
            if header is not None:
                layout = tuple(header.layout.layers.items()) if header.layout else None
                return ModelFile(name, header.family, layout)
    return None


def _state(folder: str, name: str) -> tuple[str, int, int]:
    """Return path, modification time and size of a file: the key of its cached header."""
    path = folder_paths.get_full_path_or_raise(folder, name)
    stat = Path(path).stat()
    return path, stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=256)
def _header(path: str, changed: int, size: int) -> tuple:
    return (*read_layout(path), size)


@lru_cache(maxsize=256)
def _model_header(path: str, changed: int, size: int) -> ModelHeader | None:
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
