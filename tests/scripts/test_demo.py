"""The demo from the outside: what it makes, how it fails, and that it leaves nothing running."""

import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from PIL import Image
from workshop.server.demo_models import mini_family
from workshop.server.example_workflows import OWN_WORKFLOWS

Start = Callable[..., subprocess.Popen[str]]
Ended = Callable[[subprocess.Popen[str]], tuple[int, str, str]]
END_LIMIT = 600  # seconds; far more than any ending takes, also on a busy machine


def test_the_pictures_the_table_and_a_page_to_open(start: Start, ended: Ended, tmp_path: Path) -> None:
    demo = start("demo.py", "--serve", "--output", str(tmp_path / "output"))
    printed = read_until(demo, "ComfyUI is running: ")
    page = printed.rsplit("ComfyUI is running: ", 1)[1].strip()
    with urllib.request.urlopen(page) as answer:
        assert answer.status == 200
    server = page.split("/?")[0]
    with urllib.request.urlopen(f"{server}/api/workflow_templates/{OWN_WORKFLOWS}/before_after.json") as answer:
        assert b"SUNSpeedUp" in answer.read()

    models = mini_family()
    for name in ("plain_25_steps", "sun_4_steps", "plain_25_steps_changed_negative", "sun_4_steps_changed_negative"):
        assert Image.open(tmp_path / "output" / f"{name}.png").size == (models.width, models.height)
        assert f"{name}.png" in printed
    side_by_side = Image.open(tmp_path / "output" / "side_by_side.png")
    assert side_by_side.width > 1000 and side_by_side.height > 1000
    assert "times faster" in printed

    second, _, complaint = ended(start("demo.py", "--output", str(tmp_path)))
    assert (second, complaint) == (1, "Another demo of this checkout is running: end that one first.\n")

    processes = [demo, *children(demo)]
    demo.send_signal(signal.SIGINT)
    status, _, _ = ended(demo)
    assert status != 0
    assert_all_end(processes[1:])


@pytest.mark.parametrize(
    "ending",
    [
        signal.SIGINT,
        signal.SIGTERM,
        pytest.param(getattr(signal, "SIGKILL", None), id="killed before it can clean up"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_no_process_is_left_behind(start: Start, ended: Ended, tmp_path: Path, ending: signal.Signals) -> None:
    demo = start("demo.py", "--output", str(tmp_path))
    server = wait_for_server(demo)
    demo.send_signal(ending)
    status, printed, complaint = ended(demo)
    assert status != 0, printed + complaint
    assert_all_end([server])


def test_a_server_that_dies_is_one_sentence(start: Start, ended: Ended, tmp_path: Path) -> None:
    demo = start("demo.py", "--output", str(tmp_path))
    wait_for_server(demo).kill()
    status, _, complaint = ended(demo)
    assert status == 1
    assert "ComfyUI's server died" in complaint.splitlines()[-1]
    assert "Traceback" not in complaint


def test_a_busy_port_is_one_sentence(start: Start, ended: Ended) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        status, _, complaint = ended(start("demo.py", "--port", port))
    assert status == 1
    assert complaint.startswith(f"Port {port} is already in use")
    assert len(complaint.splitlines()) == 1


def test_a_missing_file_is_one_sentence(start: Start, ended: Ended, tmp_path: Path) -> None:
    status, printed, complaint = ended(
        start("demo.py", "--checkpoint", str(tmp_path / "a.safetensors"), "--adapter", str(tmp_path / "b.safetensors"))
    )
    assert (status, printed) == (1, "")
    assert complaint == f"There is no file {tmp_path / 'a.safetensors'}: check the path that you gave.\n"


def test_a_wrong_adapter_is_what_the_node_says(start: Start, ended: Ended, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter.safetensors"
    adapter.write_bytes(b"no adapter")
    arguments = ("--checkpoint", str(mini_family().checkpoint), "--adapter", str(adapter), "--output", str(tmp_path))
    status, _, complaint = ended(start("demo.py", *arguments))
    assert status == 1
    assert complaint.startswith("adapter.safetensors is not a safetensors file")
    assert len(complaint.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_a_full_disk_is_one_sentence(start: Start, ended: Ended, tmp_path: Path) -> None:
    (tmp_path / "plain_25_steps.png").symlink_to("/dev/full")
    status, _, complaint = ended(start("demo.py", "--output", str(tmp_path)))
    assert status == 1
    assert complaint.startswith("The disk is full")
    assert len(complaint.splitlines()) == 1


def test_a_folder_without_comfyui_is_one_sentence(start: Start, ended: Ended, tmp_path: Path) -> None:
    status, _, complaint = ended(start("demo.py", COMFYUI_PATH=str(tmp_path)))
    assert status == 1
    assert complaint.startswith(f"COMFYUI_PATH is {tmp_path}, which holds no ComfyUI")
    assert len(complaint.splitlines()) == 1


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Read what the script prints, up to and including the line with `text`."""
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if text in line:
            return printed
    pytest.fail(f"The script ended without printing {text!r}: {printed} {process.communicate()[1]}")


def wait_for_server(demo: subprocess.Popen[str]) -> psutil.Process:
    """Find the ComfyUI process as soon as it runs; the demo still waits for it then."""
    read_until(demo, "Starting ComfyUI")
    while demo.poll() is None:
        if found := children(demo):
            return found[0]
    pytest.fail(f"The demo ended before it started a server: {demo.communicate()}")


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def assert_all_end(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=END_LIMIT)
    assert not alive
