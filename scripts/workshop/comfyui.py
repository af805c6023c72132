"""ComfyUI's modules and this repository's own, in one process."""

import sys

from . import REPOSITORY


def start_comfyui(*arguments: str) -> None:
    """Import ComfyUI with the arguments of its main.py, and teach it the mini family. A second call does nothing."""
    add_repository_to_path()
    from tools.comfyui import find_comfyui, start_comfyui

    start_comfyui(find_comfyui(), arguments)
    import mini_family  # noqa: F401  (registers itself)


def device_arguments() -> tuple[str, ...]:
    """Return --cpu if torch finds no accelerator: ComfyUI does not start without it then."""
    add_repository_to_path()
    from tools.comfyui import has_accelerator

    return () if has_accelerator() else ("--cpu",)


def add_repository_to_path() -> None:
    """Make tools, sun_core and the mini family importable, after ComfyUI: both have a top-level module `nodes`."""
    for folder in (REPOSITORY, REPOSITORY / "demo"):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
