"""A real ComfyUI server on loopback, for the demo and the tests: start it, talk to it, end it."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

START_LIMIT = 300.0  # seconds; a cold start on a slow disk takes about a minute
STOP_LIMIT = 10.0  # seconds
ANSWER_LIMIT = 300.0  # seconds; on a busy machine even a small answer takes its time

# The server ends itself when its standard input closes, which the system does for us however this process ends.
_LIFELINE = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(1)), daemon=True).start()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class ServerError(Exception):
    """What went wrong, in one sentence for the user; `log` holds the server's last lines if they help."""

    def __init__(self, sentence: str, log: str = "") -> None:
        super().__init__(sentence)
        self.log = log


class WorkflowError(ServerError):
    """A node refused or failed: `node` is its class, the sentence what the UI shows on it."""

    def __init__(self, node: str, sentence: str) -> None:
        super().__init__(sentence)
        self.node = node


@dataclass
class Run:
    """A finished workflow: its saved pictures, its texts, and the seconds that each executed node took, by node id."""

    pictures: dict[str, bytes] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)


class ComfyServer:
    """A running ComfyUI over the folder `base` (custom_nodes, models, input, output, user, temp); a context manager.

    `comfyui` is its tree, run by the current Python. Raises ServerError if the port is taken or it does not come up.
    """

    def __init__(self, comfyui: Path, base: Path, port: int | None = None, arguments: tuple[str, ...] = ()) -> None:
        if port is not None and not _is_free(port):
            raise ServerError(
                f"Port {port} is already in use, perhaps by another ComfyUI: "
                "end that, or choose another port with --port."
            )
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = base / "server.log"
        self.base = base
        for folder in ("custom_nodes", "models", "input", "output", "user", "temp"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        # a script's own folder comes first on Python's path, and with -c nothing does that for us
        self._path = os.pathsep.join(filter(None, (str(comfyui), os.environ.get("PYTHONPATH"))))
        self._command = [
            *(sys.executable, "-c", _LIFELINE, str(comfyui / "main.py")),
            *("--listen", "127.0.0.1", "--port", str(self.port), "--base-directory", str(base)),
            *("--disable-auto-launch", "--disable-api-nodes", "--database-url", "sqlite:///:memory:"),
            *arguments,
        ]

    def __enter__(self) -> "ComfyServer":
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.base,
                env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": self._path},
                start_new_session=True,  # Ctrl+C in the terminal reaches us alone: we end the server
            )
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def is_alive(self) -> bool:
        """Tell whether the server's process runs."""
        return self._process.poll() is None

    def wait(self) -> None:
        """Wait until the server ends, which is an error; an exception such as Ctrl+C ends the wait."""
        self._process.wait()
        raise self._death()

    def stop(self) -> None:
        """End the server, first politely."""
        self._process.terminate()
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def get(self, path: str, **query: str) -> Any:
        """Return what the server answers to GET `path`, from JSON."""
        return json.loads(self.download(path, **query))

    def download(self, path: str, **query: str) -> bytes:
        """Return the body that the server answers to GET `path`."""
        url = f"{self.url}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=ANSWER_LIMIT) as answer:
            return bytes(answer.read())

    def run(self, prompt: dict[str, Any], on_progress: Callable[[str, int, int], None] | None = None) -> Run:
        """Queue an API-format workflow and wait for it; `on_progress(node id, step, steps)` is called as it samples.

        Raises WorkflowError with what the UI would show if a node refuses or fails, ServerError if the server dies.
        """
        try:
            return asyncio.run(self._run(prompt, on_progress))
        except (aiohttp.ClientError, ConnectionError, urllib.error.URLError) as error:
            raise self._death() from error

    async def _run(self, prompt: dict[str, Any], on_progress: Callable[[str, int, int], None] | None) -> Run:
        client = uuid.uuid4().hex
        async with (
            aiohttp.ClientSession(self.url) as session,
            session.ws_connect("/ws", params={"clientId": client}, max_msg_size=0) as socket,
        ):
            async with session.post("/prompt", json={"prompt": prompt, "client_id": client}) as response:
                answer = await response.json()
            if response.status != 200:
                raise _refusal(answer)
            run = Run()
            await self._follow(socket, answer["prompt_id"], run, on_progress)
        outputs = self.get(f"/history/{answer['prompt_id']}")[answer["prompt_id"]]["outputs"]
        for node, output in outputs.items():
            for picture in output.get("images", ())[:1]:
                run.pictures[node] = self.download("/view", **picture)
            if "text" in output:
                run.texts[node] = list(output["text"])
        return run

    async def _follow(
        self,
        socket: Any,
        prompt_id: str,
        run: Run,
        on_progress: Callable[[str, int, int], None] | None,
    ) -> None:
        """Read the server's messages until the prompt is done."""
        node, started = None, time.perf_counter()
        async for message in socket:
            if message.type != aiohttp.WSMsgType.TEXT:
                continue  # previews
            event = json.loads(message.data)
            data = event["data"]
            if data.get("prompt_id") != prompt_id:
                continue
            if event["type"] == "progress" and on_progress:
                on_progress(data["node"], data["value"], data["max"])
            elif event["type"] == "executing":
                now = time.perf_counter()
                if node is not None:
                    run.seconds[node] = run.seconds.get(node, 0.0) + now - started
                node, started = data["node"], now
                if node is None:
                    return
            elif event["type"] == "execution_error":
                raise WorkflowError(data["node_type"], data["exception_message"].strip())
            elif event["type"] == "execution_interrupted":
                raise ServerError("The workflow was interrupted.")
        raise self._death()

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            if not self.is_alive():
                raise self._death()
            with suppress(OSError):
                self.download("/system_stats")
                return
            time.sleep(0.1)
        raise ServerError(f"ComfyUI's server did not come up in {START_LIMIT:.0f} seconds.", self._last_lines())

    def _death(self) -> ServerError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_LIMIT)  # a dying server closes its connections before it ends
        code = self._process.poll()
        state = "stopped answering" if code is None else f"died with exit status {code}"
        return ServerError(f"ComfyUI's server {state}; its log is {self.log_file}.", self._last_lines())

    def _last_lines(self, count: int = 15) -> str:
        return "\n".join(self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def _refusal(answer: dict[str, Any]) -> WorkflowError:
    """Return the first error of a prompt that did not pass validation."""
    for error in answer.get("node_errors", {}).values():
        first = error["errors"][0]
        return WorkflowError(error["class_type"], first["details"] or first["message"])
    return WorkflowError("", answer["error"]["message"])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if os.name != "nt":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection that lingers is not a server
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
