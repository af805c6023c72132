"""MODELs whose forwards are captured by a stand-in for CUDA graphs. pytest imports it before ComfyUI is there."""

from collections import defaultdict
from types import SimpleNamespace

import pytest


@pytest.fixture(autouse=True)
def graphs_without_a_gpu(monkeypatch):
    import comfy.model_management
    import torch
    from sun_pack.sun_core import capture, graphs

    from .stand_in_graphs import StandInCapture, StandInGraph, StandInStream

    monkeypatch.setattr(capture, "check_device", lambda device: None)
    monkeypatch.setattr(capture, "_ASK_FOR_MEMORY", ())  # ComfyUI's attention on a CPU does
    stand_ins = {"CUDAGraph": StandInGraph, "graph": StandInCapture, "Stream": StandInStream}
    stand_ins |= {"current_stream": lambda device: None, "memory_reserved": lambda device: 0}
    stand_ins |= {"get_allocator_backend": lambda: "native"}
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(StandInGraph, "replays", 0)
    monkeypatch.setattr(graphs, "_streams", defaultdict(list))
    monkeypatch.setattr(graphs, "_idle_streams", defaultdict(list))
    monkeypatch.setattr(graphs, "_failed", [])
    yield
    comfy.model_management.unload_all_models()


@pytest.fixture
def runs(monkeypatch):
    """What each run did with its captures, the last run last; reports say it on a GPU alone."""
    from sun_pack.sun_core import capture, hooks

    runs = []

    class Recorded(capture.Replays):
        def end(self):
            runs.append(self)
            super().end()

    monkeypatch.setattr(hooks, "Replays", Recorded)
    return runs


@pytest.fixture
def draw(sample):
    """Samples in inference mode, as nodes do: `draw(model, **options of sample)`."""
    import torch

    def draw(model, **options):
        with torch.inference_mode():
            return sample(model, **options)

    return draw


@pytest.fixture
def sun(model, adapter):
    """`sun(may_capture=True, strength=1.0)` -> a patched MODEL and its captures."""
    from sun_pack.sun_core.apply import apply_sun
    from sun_pack.sun_core.settings import SunSettings

    def sun(may_capture=True, strength=1.0):
        patched = apply_sun(model, adapter, SunSettings(strength, strength), may_capture=lambda: may_capture)
        hooks = patched.get_wrappers("outer_sample", "sun")[0].__self__
        return SimpleNamespace(model=patched, captures=hooks.captures)

    return sun


@pytest.fixture
def trusted(sun, draw):
    """A patched MODEL whose next run is replayed whole, and its captures."""
    from .stand_in_graphs import RUNS_UNTIL_TRUSTED

    patched = sun()
    for _ in range(RUNS_UNTIL_TRUSTED):
        draw(patched.model)
    return patched
