"""Run the rows of one pack in a process of its own: packs change ComfyUI for all that comes after them.

python -m workshop.neighbours.one_pack PACK FOLDER_OF_PACKS RESULT.json
"""

import asyncio
import importlib
import json
import logging
import sys
import tempfile
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from comfyui import find_comfyui, start_comfyui

from .pack_list import CORE, PACKS


def main(pack: str, packs: Path, result: Path) -> None:
    """Write what the rows of `pack` measured, or why it was not run, into a JSON file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "custom_nodes").symlink_to(packs, target_is_directory=True)
        start_comfyui(find_comfyui(), ["--cpu", "--base-directory", folder, "--database-url", "sqlite:///:memory:"])
        found: dict[str, Any] = {"pack": pack, "commit": "", "comfyui": _version(), "why": None, "rows": []}
        try:
            found |= _measure(pack, packs)
        except _pack_error() as error:
            found["why"] = str(error)
        result.write_text(json.dumps(found), encoding="utf-8")


def _version() -> str:
    from comfyui_version import __version__

    return str(__version__)


def _pack_error() -> type[Exception]:
    from .packs import PackError

    return PackError


def _measure(pack: str, packs: Path) -> dict[str, Any]:
    import comfy.utils

    import nodes  # ComfyUI's

    from .packs import commit_of, forbid_programs_and_network, load_pack, start_server

    comfy.utils.PROGRESS_BAR_ENABLED = False
    logging.getLogger().setLevel(logging.WARNING)
    start_server(packs)
    commit = "" if pack == CORE else commit_of(packs / pack)
    forbid_programs_and_network()
    if pack == CORE:
        asyncio.run(nodes.init_builtin_extra_nodes())
    else:
        load_pack(packs / pack)
    rows = [
        _row(row)
        for module in PACKS[pack].modules
        for row in importlib.import_module(f".{module}", __package__).ROWS.get(pack, [])
    ]
    return {"commit": commit, "rows": rows}


def _row(row: Any) -> dict[str, Any]:
    import torch

    from .packs import MissingNode

    measured: dict[str, Any] = {name: getattr(row, name) for name in ("name", "order", "test", "section")}
    try:
        with torch.inference_mode():
            checks = list(row.measure())
    except MissingNode as missing:
        return measured | {"checks": [], "missing": str(missing)}
    except Exception as error:  # whatever a pack raises is a result
        traceback.print_exc()
        return measured | {"checks": [], "error": f"{type(error).__name__}: {error}".splitlines()[0]}
    return measured | {"checks": [asdict(check) | {"ok": check.ok, "expected": check.expected} for check in checks]}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
