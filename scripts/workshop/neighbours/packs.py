"""Load other packs into this process as ComfyUI does; Python refuses them the network and other programs."""

import asyncio
import importlib
import importlib.machinery
import logging
import multiprocessing.util
import subprocess
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FORBIDDEN = (
    "socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname",
    "socket.gethostbyaddr", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn",
)  # fmt: skip
"""What packs do to install or download something while they are imported (audit events of Python)."""

NEEDS = {"ComfyUI-Inspire-Pack": ("ComfyUI-Impact-Pack",)}
"""Packs that another one calls."""


def _stand_in_for_subpack() -> None:
    """The Impact Pack imports detectors from a folder that its installer fetches; no row needs one."""
    sys.modules["impact.subpack_nodes"] = types.ModuleType("impact.subpack_nodes")


def _stand_in_for_chroma() -> None:
    """ComfyUI-NAG derives from classes of another family's model that ComfyUI no longer has."""
    layers = importlib.import_module("comfy.ldm.chroma.layers")
    for name in ("DoubleStreamBlock", "SingleStreamBlock"):
        if getattr(layers, name, None) is None:
            setattr(layers, name, type(name, (), {}))


def _stand_in_for_insightface() -> None:
    """InstantID imports what finds faces; rows give it one."""
    sys.modules["insightface"] = types.ModuleType("insightface")
    sys.modules["insightface.app"] = types.ModuleType("insightface.app")
    vars(sys.modules["insightface.app"])["FaceAnalysis"] = object


def _stand_in_for_compel() -> None:
    """smZNodes imports one of its six ways to encode; it looks for the module as for one that is installed."""
    made = types.ModuleType("compel")
    made.__spec__ = importlib.machinery.ModuleSpec("compel", None)
    vars(made)["Compel"] = object
    sys.modules["compel"] = made


STAND_INS = {
    "ComfyUI-Impact-Pack": _stand_in_for_subpack,
    "ComfyUI-NAG": _stand_in_for_chroma,
    "ComfyUI_InstantID": _stand_in_for_insightface,
    "ComfyUI_smZNodes": _stand_in_for_compel,
}
"""Empty modules and classes for what a pack imports and no row uses."""


class PackError(Exception):
    """Why a pack was not run, in one sentence."""


class MissingNode(Exception):
    """A node that this version of its pack has not."""


def commit_of(folder: Path) -> str:
    """Return the commit of a clone, from git or from a file COMMIT in it; "unknown" if neither says it."""
    named = folder / "COMMIT"
    if named.is_file():
        return named.read_text(encoding="utf-8").strip()[:7]
    if not (folder / ".git").exists():
        return "unknown"
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True)
    return found.stdout.strip()[:7] if found.returncode == 0 else "unknown"


def forbid_programs_and_network() -> None:
    """Let Python refuse what is FORBIDDEN, and new processes of multiprocessing, with a PermissionError.

    Libraries of C that ask the system by themselves are not stopped.
    """

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FORBIDDEN:
            raise PermissionError(f"a pack tried {event} {arguments[:1]}")

    def refuse_process(path: object, args: object, passfds: object) -> int:
        raise PermissionError(f"a pack tried multiprocessing {args}")

    sys.addaudithook(refuse)
    multiprocessing.util.spawnv_passfds = refuse_process  # it starts Python anew without an event, and without the hook


def start_server(packs: Path) -> None:
    """Make the server object that packs register their routes at; it listens nowhere. `packs` is custom_nodes."""
    import server  # ComfyUI's

    server.PromptServer(asyncio.new_event_loop())
    custom_nodes = types.ModuleType("custom_nodes")
    custom_nodes.__path__ = [str(packs)]
    sys.modules["custom_nodes"] = custom_nodes


def load_pack(folder: Path) -> None:
    """Import a pack and register its nodes, by ComfyUI's own function.

    Raises PackError with what ComfyUI logs if that fails.
    """
    import nodes  # ComfyUI's

    for needed in NEEDS.get(folder.name, ()):
        load_pack(folder.parent / needed)
    if not folder.is_dir():
        raise PackError(f"there is no {folder.name} beside it")
    STAND_INS.get(folder.name, lambda: None)()
    with _log() as said:
        loaded = asyncio.run(nodes.load_custom_node(str(folder)))
    if not loaded:
        reason = next((line for line in reversed("\n".join(said).splitlines()) if line.strip()), "no reason given")
        raise PackError(f"ComfyUI cannot load it: {reason}")


@contextmanager
def _log() -> Iterator[list[str]]:
    said: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                said.append(record.getMessage())

    handler = Keep()
    logging.getLogger().addHandler(handler)
    try:
        yield said
    finally:
        logging.getLogger().removeHandler(handler)


def call(node_id: str, *args: Any, **inputs: Any) -> Any:
    """Execute a node, of the new kind or of the old one; returns its outputs. Raises MissingNode."""
    import nodes

    if node_id not in nodes.NODE_CLASS_MAPPINGS:
        raise MissingNode(node_id)
    node = nodes.NODE_CLASS_MAPPINGS[node_id]
    if hasattr(node, "PREPARE_CLASS_CLONE"):
        made = getattr(node.PREPARE_CLASS_CLONE(None), node.FUNCTION)(*args, **inputs)
        return made.args if hasattr(made, "args") else made
    return getattr(node(), node.FUNCTION)(*args, **inputs)


def module_of(pack: str, name: str) -> Any:
    """Return a loaded pack's module, for what none of its nodes gives."""
    ending = f"{pack}.{name}"
    return next(module for key, module in sys.modules.items() if key.endswith(ending))
