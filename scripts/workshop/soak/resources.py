"""What a process holds."""

import sys
from typing import NamedTuple

import psutil


class Resources(NamedTuple):
    """What a process holds at one moment."""

    memory: int
    """Resident set in bytes."""
    files: int
    """Open files, sockets and pipes; handles on Windows."""
    threads: int


def resources(process_id: int) -> Resources:
    """Measure a running process."""
    process = psutil.Process(process_id)
    files = process.num_handles() if sys.platform == "win32" else process.num_fds()
    return Resources(process.memory_info().rss, files, process.num_threads())
