"""A stand-in for CUDA graphs, where there is no GPU: it records operations and repeats them."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode

RUNS_UNTIL_TRUSTED = 2
"""The second run captures and checks; the third is replayed."""

alive = weakref.WeakSet()
"""Graphs that were not freed."""


class Recorder(TorchDispatchMode):
    """Records operations with the tensors that they read and write."""

    def __init__(self):
        super().__init__()
        self.tape = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.tape.append((function, args, kwargs or {}, result))
        return result


class StandInGraph:
    """Repeats what was recorded, into the same tensors, as a CUDA graph does."""

    replays = 0

    def __init__(self):
        self.recorder = Recorder()
        alive.add(self)

    def pool(self):
        return self.own_pool

    def replay(self):
        StandInGraph.replays += 1
        for function, args, kwargs, result in self.recorder.tape:
            again = function(*args, **kwargs)
            for kept, new in zip(as_tensors(result), as_tensors(again), strict=True):
                if kept.data_ptr() != new.data_ptr():  # which a view has not
                    kept.copy_(new)

    def reset(self):
        self.recorder.tape.clear()
        alive.discard(self)


def as_tensors(result):
    return [result] if isinstance(result, torch.Tensor) else [t for t in result or () if isinstance(t, torch.Tensor)]


class StandInStream:
    """Records the operations that it is current for, outside of captures."""

    def __init__(self, device=None, priority=0):
        self.waits_for, self.recorder = [], Recorder()

    def wait_stream(self, stream):
        self.waits_for.append(stream)


class StandInCapture:
    def __init__(self, graph, pool=None, stream=None, capture_error_mode="global"):
        self.graph = graph
        graph.own_pool, graph.stream = pool or (0, id(graph)), stream
        graph.done_before = len(stream.recorder.tape)

    def __enter__(self):
        self.graph.recorder.__enter__()

    def __exit__(self, *exception):
        self.graph.recorder.__exit__(*exception)


def graphs_of(patched):
    return [captured.graph for captured in patched.captures.kept.values()]
