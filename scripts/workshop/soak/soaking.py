"""The soak: many different runs on one server, whose pictures must not change and whose process must not grow."""

import hashlib
import io
import os
import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image

from ..comfyui import device_arguments
from ..environment import comfyui_path
from ..server.comfy_server import ComfyServer, Interrupted
from ..server.demo_models import Models, mini_family
from ..server.example_workflows import fill, start_from
from ..server.workflows import Workflow
from .drawings import drawing, long_drawing, write_adapters
from .resources import Resources, resources

DRAWINGS = 40
"""Different ones, so that 300 runs draw each about seven times."""
INTERRUPTED, UNLOADED = 0.1, 0.1
"""Shares of the runs."""
ALLOWED_GROWTH = Resources(memory=32 * 2**20, files=8, threads=2)
"""From the median of the middle third of the runs to that of the last; the first third warms up."""
LARGE_BLOCK = 2**16
"""Bytes. Blocks from that size on go back to the system when they are freed (glibc). By itself the allocator keeps them
for later, and its stock changes by more than a leak would."""


@dataclass
class Soak:
    """What the runs so far did."""

    runs: int = 0
    interrupted: int = 0
    unloaded: int = 0
    seen: dict[int, str] = field(default_factory=dict)
    """The pictures' hash, by the drawing's number."""
    drawn_again: int = 0
    drawn_again_after_interrupt: int = 0
    changed: list[str] = field(default_factory=list)
    measured: list[Resources] = field(default_factory=list)

    def compare(self, number: int, pictures: str, after_interrupt: bool) -> None:
        """Note a drawing's pictures, and compare them with those of an earlier run."""
        if number not in self.seen:
            self.seen[number] = pictures
            return
        self.drawn_again += 1
        self.drawn_again_after_interrupt += after_interrupt
        if self.seen[number] != pictures:
            self.changed.append(f"run {self.runs}, drawing {number}")

    def summary(self) -> dict[str, Any]:
        """Return the figures."""
        middle, last = self._later_thirds()
        return {
            "runs": self.runs,
            "interrupted": self.interrupted,
            "unloaded, adapters written anew": self.unloaded,
            "different drawings": len(self.seen),
            "drawn again": self.drawn_again,
            "drawn again right after an interrupt": self.drawn_again_after_interrupt,
            "changed": self.changed,
            "MB after the first run": self.measured[0].memory // 2**20,
            "MB, median of the middle third": int(median(held.memory for held in middle)) // 2**20,
            "MB, median of the last third": int(median(held.memory for held in last)) // 2**20,
            "most open files, middle and last third": [max(held.files for held in part) for part in (middle, last)],
            "most threads, middle and last third": [max(held.threads for held in part) for part in (middle, last)],
        }

    def failures(self) -> list[str]:
        """Say what went wrong, one sentence each."""
        found = [f"A picture drawn again was another one: {where}." for where in self.changed]
        middle, last = self._later_thirds()
        for name, allowed in ALLOWED_GROWTH._asdict().items():
            before, after = (median(getattr(held, name) for held in part) for part in (middle, last))
            if after > before + allowed:
                found.append(f"The server's {name} grew from {before:,.0f} to {after:,.0f} (medians of thirds).")
        return found

    def _later_thirds(self) -> tuple[list[Resources], list[Resources]]:
        third = len(self.measured) // 3
        return self.measured[third : 2 * third], self.measured[2 * third :]


def soak(runs: int, seed: int) -> Soak:
    """Run that many workflows on one server; raises ServerError if it dies, WorkflowError if a node fails."""
    models, done = mini_family(), Soak()
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(LARGE_BLOCK)  # of the server, which inherits it
    with tempfile.TemporaryDirectory(prefix="sun-soak-") as folder:
        base = Path(folder)
        fill(base, models)
        write_adapters(base / "models" / "sun", models)
        with ComfyServer(comfyui_path(), base, arguments=device_arguments()) as server:
            object_info = server.get("/object_info")
            first = drawing(0, models, object_info)
            start_from(server, next(iter(server.run(first.to_api()).pictures.values())))
            _run_all(server, models, object_info, runs, random.Random(seed), done)
    return done


def _run_all(
    server: ComfyServer, models: Models, object_info: dict[str, Any], runs: int, rng: random.Random, done: Soak
) -> None:
    started, number, after_interrupt = time.monotonic(), 0, False
    for done.runs in range(1, runs + 1):
        kind = rng.random()
        if kind < INTERRUPTED:
            interrupted = _interrupt(server, long_drawing(models, object_info, done.runs))
            done.interrupted += interrupted
            after_interrupt = interrupted
        else:
            if kind < INTERRUPTED + UNLOADED:
                write_adapters(server.base / "models" / "sun", models)
                server.forget_results()
                done.unloaded += 1
            # never the one of the run before, whose pictures ComfyUI would give without drawing them
            number = rng.choice([other for other in range(DRAWINGS) if other != number])
            done.compare(number, _draw(server, drawing(number, models, object_info)), after_interrupt)
            after_interrupt = False
        done.measured.append(resources(server.process_id))
        if done.runs % 10 == 0:
            held = done.measured[-1]
            print(
                f"  {done.runs} runs in {time.monotonic() - started:.0f} s: {held.memory // 2**20} MB, {held.files} "
                f"files, {held.threads} threads; {done.drawn_again} drawn again, {len(done.changed)} changed",
                flush=True,
            )


def _draw(server: ComfyServer, workflow: Workflow) -> str:
    """Run a workflow and return the hash of its pictures' pixels."""
    pictures = server.run(workflow.to_api()).pictures
    pixels = (Image.open(io.BytesIO(png)).convert("RGB").tobytes() for _, png in sorted(pictures.items()))
    return hashlib.sha256(b"".join(pixels)).hexdigest()


def _interrupt(server: ComfyServer, workflow: Workflow) -> bool:
    """Interrupt a run in its second step; returns False if it was done before."""

    def at_step_2(node: str, step: int, steps: int) -> None:
        if step == 2:
            server.interrupt()

    try:
        server.run(workflow.to_api(), at_step_2)
    except Interrupted:
        return True
    return False
