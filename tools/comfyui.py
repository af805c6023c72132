"""Start ComfyUI within a command or a test: the one place that puts it on sys.path and imports it."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


class ComfyUIError(Exception):
    """Why there is no ComfyUI to start, in one sentence for the user."""


def find_comfyui() -> Path:
    """Find ComfyUI's folder: COMFYUI_PATH, else the ComfyUI whose custom_nodes this pack lies in.

    Raises ComfyUIError if neither holds a ComfyUI.
    """
    if named := os.getenv("COMFYUI_PATH"):
        comfyui = Path(named).expanduser().absolute()
        if _is_comfyui(comfyui):
            return comfyui
        raise ComfyUIError(
            f"COMFYUI_PATH is {comfyui}, which holds no ComfyUI (main.py and comfy/): set it to the folder that "
            "ComfyUI's main.py lies in."
        )
    # both, because the pack may be linked into custom_nodes, and because the shell may have followed the link
    for pack in (Path(__file__).absolute().parents[1], REPOSITORY):
        if _is_comfyui(pack.parents[1]):
            return pack.parents[1]
    raise ComfyUIError(
        f"{REPOSITORY} does not lie in the custom_nodes of a ComfyUI: set COMFYUI_PATH to the folder that ComfyUI's "
        "main.py lies in."
    )


def start_comfyui(comfyui: Path, arguments: Sequence[str] = ()) -> None:
    """Import ComfyUI from its folder with the arguments of its main.py (such as --cpu), and make sun_core importable.

    ComfyUI comes first on the path and this repository last, because both have a top-level module `nodes`. --cpu is
    added if torch finds no accelerator. A second call does nothing. Raises ComfyUIError if this Python lacks torch.
    """
    if "comfy.cli_args" in sys.modules:
        return
    if importlib.util.find_spec("torch") is None:
        raise ComfyUIError(
            f"{sys.executable} has no torch: run this command with the Python that runs ComfyUI (the portable "
            "ComfyUI's is python_embeded/python.exe)."
        )
    sys.path.insert(0, str(comfyui))
    sys.path.append(str(REPOSITORY))
    import comfy.options

    comfy.options.enable_args_parsing()
    device = [] if "--cpu" in arguments or has_accelerator() else ["--cpu"]
    command, sys.argv = sys.argv, [sys.argv[0], *arguments, *device]
    try:
        import comfy.cli_args
        import utils.extra_config  # noqa: F401  (ComfyUI's `utils`, before a package of that name is imported)
    finally:
        sys.argv = command


def has_accelerator() -> bool:
    """Tell whether torch finds a GPU; without one, ComfyUI does not start unless it is given --cpu."""
    import torch

    xpu = getattr(torch, "xpu", None)  # missing in the oldest torch that ComfyUI runs on
    return torch.cuda.is_available() or torch.backends.mps.is_available() or bool(xpu and xpu.is_available())


def _is_comfyui(folder: Path) -> bool:
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir()
