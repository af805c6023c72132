"""Time, memory and name of the device that ComfyUI samples on."""

import contextlib
import ctypes
import platform
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management
import comfyui_version
import torch


def device() -> torch.device:
    """Return the device that ComfyUI samples on."""
    return comfy.model_management.get_torch_device()


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what `work` returns, and the seconds until the device has finished it."""
    synchronize()
    started = time.perf_counter()
    result = work()
    synchronize()
    return result, time.perf_counter() - started


def synchronize() -> None:
    """Wait until the device has done all its work."""
    if device().type != "cpu":
        getattr(torch, device().type).synchronize()


def busy_seconds(work: Callable[[], Any]) -> float | None:
    """Return how long CUDA kernels run during `work`; None on other devices."""
    if device().type != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work()
        synchronize()
    return sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6


class PeakMemory:
    """The most memory in use since this object was made: CUDA's, or the process's on a Linux CPU."""

    _status = Path("/proc/self/status")

    def __init__(self) -> None:
        if device().type == "cuda":
            torch.cuda.reset_peak_memory_stats(device())
        elif self._status.exists():
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)

    def gigabytes(self) -> float | None:
        """Return the peak; None if the system does not tell."""
        if device().type == "cuda":
            return torch.cuda.max_memory_allocated(device()) / 1e9
        if device().type == "cpu" and self._status.exists():
            kibibytes = re.search(r"VmHWM:\s*(\d+) kB", self._status.read_text())
            return int(kibibytes.group(1)) * 1024 / 1e9 if kibibytes else None
        return None


def graph_memory() -> int:
    """Return the bytes that the driver keeps for what this process's CUDA graphs allocate with cudaMallocAsync."""
    reserved_now, size = 2, ctypes.c_uint64()  # CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT
    driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    failed = driver.cuDeviceGetGraphMemAttribute(device().index or 0, reserved_now, ctypes.byref(size))
    assert not failed, f"the driver answers with error {failed}"
    return size.value


def machine() -> dict[str, str | int]:
    """Describe what the figures were measured on."""
    return {
        "device": torch.cuda.get_device_name(device()) if device().type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "comfyui": comfyui_version.__version__,
        "python": platform.python_version(),
    }


def processor() -> str:
    """Return the processor's name if Linux tells it, else what Python knows."""
    with contextlib.suppress(OSError):
        if name := re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text()):
            return name.group(1)
    return platform.processor()
