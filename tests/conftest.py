"""Loads ComfyUI (COMFYUI_PATH) and this pack into the test process, as `sun_pack`.

Without a ComfyUI, the tests of conversion/ run all the same. They need nothing but pytest.
"""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from comfyui import start_comfyui

REPOSITORY = Path(__file__).parent.parent
COMFYUI = os.environ.get("COMFYUI_PATH")
NAMES = ("sun_pack", REPOSITORY.name, "__init__")
"""pytest takes the repository for a package too, under its folder's name, or as `__init__` if that is no identifier."""
ALONE = Path(__file__).parent / "conversion"
"""The tests that need no ComfyUI."""


def load_comfyui(folder: str) -> None:
    """Import ComfyUI, on the CPU unless SUN_TEST_DEVICE is another."""
    on_cpu = os.environ.get("SUN_TEST_DEVICE", "cpu") == "cpu"
    if not on_cpu and importlib.util.find_spec("comfy_aimdo"):
        control = importlib.import_module("comfy_aimdo.control")
        control.init()  # before ComfyUI imports the rest of it, as main.py does
        control.set_log_info()
    start_comfyui(Path(folder), ["--cpu"] if on_cpu else [])


def load_pack() -> None:
    """Import this pack as ComfyUI does: a package by its path, under a name that says nothing."""
    spec = importlib.util.spec_from_file_location(
        "sun_pack", REPOSITORY / "__init__.py", submodule_search_locations=[str(REPOSITORY)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules |= dict.fromkeys(NAMES, module)
    spec.loader.exec_module(module)


def load_empty_pack() -> None:
    """Make the pack's parts importable without its __init__.py, which imports the nodes and ComfyUI with them."""
    module = ModuleType("sun_pack")
    module.__path__ = [str(REPOSITORY)]
    sys.modules |= dict.fromkeys(NAMES, module)


def load() -> None:
    """Import ComfyUI and this pack, or the pack alone if there is no ComfyUI."""
    if COMFYUI:
        load_comfyui(COMFYUI)
        load_pack()
    else:
        load_empty_pack()


def pytest_configure(config: pytest.Config) -> None:
    """Load what tests need, unless other processes run them (pytest-xdist): those load it while this one waits."""
    if config.getoption("dist", "no") != "no":
        return
    load()
    if COMFYUI:
        config.pluginmanager.register(importlib.import_module(".comfyui_fixtures", __package__))


def pytest_pycollect_makemodule(module_path: Path) -> None:
    """End the run before a test that needs ComfyUI is imported without one."""
    if not COMFYUI and ALONE not in module_path.parents:
        pytest.exit("COMFYUI_PATH must name a ComfyUI; python3 scripts/test.py sees to it.", returncode=2)
