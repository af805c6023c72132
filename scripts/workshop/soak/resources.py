"""What a process holds."""

import sys
from typing import NamedTuple

import psutil


class Resources(NamedTuple):
    """What a process holds at one moment."""

    memory: int
    """Bytes that would be free without the process (USS): what is shared, or read again from files, is left out."""
    files: int
    """Open files, sockets and pipes; handles on Windows."""
    threads: int


def resources(process_id: int) -> Resources:
    """Measure a running process."""
    process = psutil.Process(process_id)
    files = process.num_handles() if sys.platform == "win32" else process.num_fds()
    return Resources(process.memory_full_info().uss, files, process.num_threads())
