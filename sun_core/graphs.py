"""The captured forwards of a MODEL: CUDA graphs of the U-Net's forward, with the buffers that they read and write.

Inputs, keys and values are copied into buffers that the graph reads. Weights are read where they lie: a graph is used
only while they lie where they did. capture.py decides when.
"""

import contextlib
import ctypes
import sys
import traceback
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from .forward import SunForward
from .resident_weights import CannotCapture, ResidentWeights

MOST_GRAPHS = 4
"""Graphs that one MODEL keeps."""
CHECKS = 2
"""Steps at which a new graph is compared with an eager forward."""

STREAMS = 32
"""Streams of one priority that torch has on a device; it hands them out in turn."""

_failed: list[tuple[torch.cuda.CUDAGraph, BaseException | None]] = []
"""Graphs whose capture failed. After one, nothing is captured in this process: CUDA's state is not sure.

With cudaMallocAsync, the error is kept too: its frames hold memory of a graph that never ran, which must not be freed.
"""

Inputs = dict[str, Tensor | None]
"""What the U-Net is given, by name."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of the U-Net that a run asks for."""

    unet: Callable[[Inputs, dict[str, Any]], Tensor]
    """Evaluates the U-Net eagerly: inputs, transformer_options -> prediction."""
    inputs: Inputs
    options: dict[str, Any]
    """The transformer_options, which hold `sun` under `key`."""
    sun: SunForward
    key: str

    def eager(self) -> Tensor:
        """Evaluate without a graph."""
        return self.unet(self.inputs, self.options)

    def eager_anew(self) -> Tensor:
        """Evaluate without a graph and without kept text, so that each layer asks ComfyUI for its weights."""
        return self.unet(self.inputs, {**self.options, self.key: replace(self.sun, text=None)})


class CapturedForward:
    """One forward of the U-Net as a CUDA graph, with the buffers that it reads and writes."""

    def __init__(
        self, evaluation: Evaluation, weights: ResidentWeights, signature: bytes, eager: Tensor, place: "GraphPlace"
    ):
        """Capture an evaluation, which has just given `eager`; `signature` is of the pages that `weights` lie in."""
        device = eager.device
        self._end_use_of_stream = weakref.finalize(self, _idle_streams[device].append, place.stream)
        self.weights, self.signature = weights, signature
        self.inputs = {name: None if tensor is None else tensor.clone() for name, tensor in evaluation.inputs.items()}
        self.sun_tensors = [tensor.clone() for tensor in evaluation.sun.tensors()]
        self._copied_at_once = _copied_at_once(evaluation.sun.tensors())
        own = {**evaluation.options, evaluation.key: evaluation.sun.with_tensors(iter(self.sun_tensors))}
        self.output = torch.empty_like(eager)
        self.graph = torch.cuda.CUDAGraph()
        self.small = weights.copy_small()
        if place.is_async:
            _run_on(place.stream, lambda: evaluation.unet(self.inputs, own), device)
        self.bytes = 0
        """Memory that the graph added to its pool; ComfyUI takes it for free."""
        with comfy.model_management.interrupt_processing_mutex:  # Cancel waits: a capture must not end halfway
            comfy.model_management.throw_exception_if_processing_interrupted()
            self._capture(lambda: evaluation.unet(self.inputs, own), place, device)
        self.checks_left = CHECKS
        self._loaded: Callable[[], SunForward | None] = lambda: None
        self._free = weakref.finalize(self, _reset, self.graph, device if place.is_async else None)
        self._free.atexit = self._end_use_of_stream.atexit = False

    def _capture(self, evaluate: Callable[[], Tensor], place: "GraphPlace", device: torch.device) -> None:
        stream = torch.cuda.current_stream(device)
        try:
            with (
                self.weights.replaced_small(self.small),
                torch.cuda.graph(self.graph, place.pool, place.stream, capture_error_mode="thread_local"),
            ):
                reserved = _reserved(device, place)
                self.output.copy_(evaluate())
        except BaseException as error:
            torch.cuda.set_stream(stream)  # an invalid capture ends without giving the stream back
            _failed.append((self.graph, error if place.is_async else None))
            if not place.is_async:
                traceback.clear_frames(error.__traceback__)  # they hold the U-Net
            raise
        self.bytes = max(0, _reserved(device, place) - reserved)

    @torch.no_grad()
    def take_small_weights(self, weights: ResidentWeights) -> None:
        """Copy the small weights to where the graph reads them."""
        torch._foreach_copy_(self.small, weights.small_tensors())

    def replay(self, inputs: Inputs, sun: SunForward) -> Tensor:
        """Evaluate with other inputs, and with other keys and values if the run is another one."""
        for name, own in self.inputs.items():
            if own is not None:
                own.copy_(inputs[name])  # type: ignore[arg-type]
        if self._loaded() is not sun:
            tensors = sun.tensors()
            for group in self._copied_at_once:
                torch._foreach_copy_([self.sun_tensors[i] for i in group], [tensors[i] for i in group])
            self._loaded = weakref.ref(sun)
        self.graph.replay()
        return self.output.clone()

    def free(self) -> None:
        """Give the graph's memory back, which otherwise happens with the last reference to it."""
        self._free()
        self._end_use_of_stream()


def _copied_at_once(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Return groups of indices: torch copies all of a list in one launch if they are of one dtype and all dense."""
    groups = defaultdict(list)
    for index, tensor in enumerate(tensors):
        groups[tensor.dtype, tensor.is_contiguous()].append(index)
    return list(groups.values())


@dataclass
class GraphPlace:
    """Where the next graph of a MODEL is captured."""

    pool: Any
    """torch's handle of the memory pool of the MODEL's other graphs, None if it has none: they are replayed one after
    the other, and nothing in it is read after a replay."""
    stream: torch.cuda.Stream
    is_async: bool
    """Whether torch's allocator is cudaMallocAsync: then what is allocated during a capture belongs to the graph."""


_streams: dict[torch.device, list[torch.cuda.Stream]] = defaultdict(list)
"""All streams that graphs have or had."""
_idle_streams: dict[torch.device, list[torch.cuda.Stream]] = defaultdict(list)
"""Those whose graph is gone.

cuBLAS has one workspace per stream. A graph keeps its address, and newer versions of torch free it with any graph that
was captured on that stream. So each graph has a stream of its own.
"""


def _reserved(device: torch.device, place: GraphPlace) -> int:
    """Return the bytes that torch has reserved. cudaMallocAsync's graphs have their memory elsewhere, and it may not
    be asked during a capture.
    """
    return 0 if place.is_async else torch.cuda.memory_reserved(device)


def _run_on(stream: torch.cuda.Stream, evaluate: Callable[[], Tensor], device: torch.device) -> None:
    """Evaluate on the stream that will capture, so that cuBLAS has its workspace there.

    Allocated during a capture by cudaMallocAsync, it would belong to that graph, but stay in use on the stream.
    """
    current = torch.cuda.current_stream(device)
    stream.wait_stream(current)
    try:
        with torch.cuda.stream(stream):
            evaluate()
    finally:
        current.wait_stream(stream)


def _new_stream(device: torch.device) -> torch.cuda.Stream:
    """Return a stream that no graph has, of a priority that ComfyUI does not use; raises CannotCapture without one."""
    for _ in range(STREAMS):
        stream = torch.cuda.Stream(device, priority=-1)
        if stream not in _streams[device]:
            _streams[device].append(stream)
            return stream
    raise CannotCapture("there are too many graphs")


def _reset(graph: torch.cuda.CUDAGraph, trimmed: torch.device | None) -> None:
    """Free a graph, and let the driver of this device give back what it keeps for graphs that are gone.

    torch has no function for the latter. During a capture, the driver must not be asked.
    """
    graph.reset()
    if trimmed is None or torch.cuda.is_current_stream_capturing():
        return
    with contextlib.suppress(OSError, AttributeError):
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        driver.cuDeviceGraphMemTrim(trimmed.index)


_with_graphs: weakref.WeakSet["Captures"] = weakref.WeakSet()
"""The captures that have graphs."""


@dataclass(eq=False)
class Captures:
    """The captured forwards of one patched MODEL; its clones share them."""

    kept: OrderedDict[Hashable, CapturedForward] = field(default_factory=OrderedDict)
    seen: set[Hashable] = field(default_factory=set)
    """What earlier runs needed: a forward that one run needs once is not worth a graph."""
    unfit: dict[Hashable, str] = field(default_factory=dict)
    """Why a forward is not captured again."""
    layouts: dict[Hashable, int] = field(default_factory=dict)
    """A number for each layout of keys and values."""
    base_model: Callable[[], Any] = lambda: None
    """Gives the BaseModel whose weights the graphs read, None once it is gone."""
    bytes: int = 0
    """Memory of the pool."""

    def __deepcopy__(self, memo: dict) -> "Captures":
        """Stay the same in copies of a run's options."""
        return self

    def place(self, device: torch.device) -> GraphPlace:
        """Return where the next graph is to be captured."""
        idle = _idle_streams[device]
        return GraphPlace(
            next((captured.graph.pool() for captured in self.kept.values()), None),
            idle.pop() if idle else _new_stream(device),
            torch.cuda.get_allocator_backend() == "cudaMallocAsync",
        )

    def clear(self) -> None:
        """Free all graphs."""
        for key in list(self.kept):
            self.drop(key)

    def keep(self, key: Hashable, captured: CapturedForward) -> None:
        """Keep a graph, and free the one that was used longest ago if there are too many."""
        self.kept[key] = captured
        self.bytes += captured.bytes
        _with_graphs.add(self)
        while len(self.kept) > MOST_GRAPHS:
            self.drop(next(iter(self.kept)))

    def drop(self, key: Hashable) -> None:
        """Free one graph, if it is there; the pool goes with the last one."""
        captured = self.kept.pop(key, None)
        if captured is None:
            return
        captured.free()
        if not self.kept:
            _with_graphs.discard(self)
            self.bytes = 0


def free_graphs(base_model: Any) -> None:
    """Free all graphs that read the weights of `base_model`, whichever of its clones has them."""
    for captures in list(_with_graphs):
        if captures.base_model() is base_model:
            captures.clear()


def free_graphs_of_unloaded_models() -> None:
    """Free all graphs whose model ComfyUI has pushed out, which it tells the clone alone that it had loaded last."""
    loaded = [entry.model.model for entry in comfy.model_management.current_loaded_models if entry.model is not None]
    for captures in list(_with_graphs):
        if not any(captures.base_model() is base_model for base_model in loaded):
            captures.clear()


def check_no_capture_failed() -> None:
    """Raise CannotCapture if a capture failed in this process."""
    if _failed:
        raise CannotCapture("a capture failed before; restart ComfyUI to try again")
