"""Packages beside ComfyUI's own, each set in a folder for PYTHONPATH: nothing is added to a user's own ComfyUI."""

import subprocess
from pathlib import Path

from .cache import cached
from .pip import pip

TEST_TOOLS = ("pytest==9.2.0", "pytest-xdist==3.8.0", "ruff==0.17.6", "mypy==2.4.1", "playwright==1.65.2")

# The following sets list what their packages need too, apart from ComfyUI's requirements, so that pip does not install
# torch again.
TRAINING = (
    "accelerate==1.15.0",
    "webdataset==1.0.2", "braceexpand==0.1.7",
    "tensorboard==2.21.0", "tensorboard-data-server==0.7.2", "absl-py==2.5.1", "grpcio==1.85.1", "markdown==3.11.3",
    "protobuf==7.36.2", "werkzeug==3.1.9",
)  # fmt: skip
METRICS = ("torchmetrics==1.9.0", "lightning-utilities==0.15.3", "torch-fidelity==0.4.0")
MATPLOTLIB = (
    "matplotlib==3.10.9", "contourpy==1.3.2; python_version < '3.14'", "contourpy==1.3.3; python_version >= '3.14'",
    "cycler==0.12.1", "fonttools==4.65.0", "kiwisolver==1.5.1",
    "pyparsing==3.3.3", "python-dateutil==2.9.0.post0", "six==1.17.0",
)  # fmt: skip
EVIDENCE = ("peft==0.21.2", "accelerate==1.15.0", *MATPLOTLIB)
NEIGHBOURS = (  # what public packs import
    *MATPLOTLIB, "cachetools==8.0.2", "colorama==0.4.6", "dill==0.4.1", "lark==1.3.1",
    "opencv-python-headless==5.0.0.93", "piexif==1.1.3", "pywavelets==1.9.0", "segment-anything==1.0",
    "simpleeval==1.0.8", "webcolors==25.10.0", "scikit-image==0.26.0", "imageio==2.38.1", "lazy-loader==0.6",
    "tifffile==2026.3.3", "gguf==0.19.0",
)  # fmt: skip


def test_tools(python: Path) -> Path:
    """Return the folder of the test tools for `python`."""

    def install(folder: Path) -> None:
        pip(python, "the test tools", "--target", str(folder), *TEST_TOOLS)

    return cached("test-tools", (*TEST_TOOLS, str(python)), install)


def training_packages(python: Path) -> Path | None:
    """Return the folder of what training needs, or None if `python` has all of it, in any version."""
    names = [package.split("==")[0] for package in TRAINING]
    look = "import sys, importlib.metadata; [importlib.metadata.distribution(name) for name in sys.argv[1:]]"
    if subprocess.run([str(python), "-c", look, *names], capture_output=True).returncode == 0:
        return None
    return _without_dependencies(python, "training", TRAINING)


def metrics_packages(python: Path) -> Path:
    """Return the folder of what tools/evaluate.py measures with."""
    return _without_dependencies(python, "metrics", METRICS)


def evidence_packages(python: Path) -> Path:
    """Return the folder of what the evidence is made with."""
    return _without_dependencies(python, "evidence", EVIDENCE)


def neighbour_packages(python: Path) -> Path:
    """Return the folder of what the packs import that scripts/neighbours.py runs."""
    return _without_dependencies(python, "neighbours", NEIGHBOURS)


def _without_dependencies(python: Path, purpose: str, pinned: tuple[str, ...]) -> Path:
    """Return the folder of exactly these packages for `python`."""

    def install(folder: Path) -> None:
        pip(python, f"the packages for {purpose}", "--no-deps", "--target", str(folder), *pinned)

    return cached(purpose, (*pinned, str(python)), install)
