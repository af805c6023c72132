"""When graphs give their memory back, and what happens where there is too little of it."""

import gc

import comfy.model_management
import torch
from sun_pack.sun_core import graphs
from sun_pack.sun_core.apply import apply_sun
from sun_pack.sun_core.settings import SunSettings

from .stand_in_graphs import RUNS_UNTIL_TRUSTED, alive, graphs_of


def test_stream_of_a_graph_that_is_gone_is_used_again(trusted, sun, draw):
    (graph,) = graphs_of(trusted)
    trusted.captures.clear()
    other = sun()
    for _ in range(RUNS_UNTIL_TRUSTED):
        draw(other.model)
    assert graphs_of(other)[0].stream is graph.stream


def test_graphs_of_all_clones_go_with_the_model(trusted, sun, draw):
    other = sun(strength=0.5)
    draw(other.model)  # ComfyUI has this one loaded now, and tells no other that the model goes
    assert graphs_of(trusted)
    comfy.model_management.unload_all_models()
    assert not graphs_of(trusted) and not alive


def test_run_of_another_model_frees_the_graphs_of_one_that_was_pushed_out(
    trusted, model, draw, new_model, reference, reference_weights, adapter
):
    other = new_model(reference.unet_config)
    other.model.diffusion_model.load_state_dict(reference_weights)
    draw(model)
    comfy.model_management.unload_all_models()
    assert graphs_of(trusted), "nothing has told SUN"
    draw(apply_sun(other, adapter, SunSettings()))
    assert not graphs_of(trusted)


def test_memory_of_graphs_does_not_count_as_free(sun, draw, monkeypatch):
    """torch has reserved it, and ComfyUI counts what is reserved and not in use; nothing but graphs can use it."""
    free = [2**31]

    def get_free_memory(device, torch_free_too=False):
        return (free[0], free[0]) if torch_free_too else free[0]

    monkeypatch.setattr(comfy.model_management, "get_free_memory", get_free_memory)
    reserved = iter([100, 100 + 2**30])
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: next(reserved))
    other = sun()
    for _ in range(RUNS_UNTIL_TRUSTED):
        draw(other.model)
    assert other.captures.bytes == 2**30
    draw(other.model)
    assert graphs_of(other)
    free[0] -= 1
    draw(other.model)
    assert not graphs_of(other) and other.captures.bytes == 0


def test_graphs_go_with_the_last_reference_to_the_model(trusted):
    assert alive
    comfy.model_management.current_loaded_models.clear()
    trusted.model = trusted.captures = None
    gc.collect()
    assert not alive


def test_switch_frees_graphs(model, adapter, draw):
    switch = [True]
    patched = apply_sun(model, adapter, SunSettings(), may_capture=lambda: switch[0])
    for _ in range(RUNS_UNTIL_TRUSTED):
        draw(patched)
    assert alive
    switch[0] = False
    draw(patched)
    assert not alive


def test_capture_that_ran_out_of_memory_is_not_tried_again_in_its_run(sun, draw, monkeypatch):
    tried = []

    def out_of_memory(*args, **kwargs):
        tried.append(args)
        raise torch.cuda.OutOfMemoryError("no memory")

    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: None)
    monkeypatch.setattr(torch.cuda, "graph", out_of_memory)
    patched = sun()
    for _ in range(2):
        draw(patched.model)
    assert len(tried) == 1


def test_memory_that_ran_out_before_a_capture_is_not_asked_for_again_in_its_run(sun, draw, monkeypatch):
    tried = []

    def out_of_memory(stream, *args):
        tried.append(stream)
        raise torch.cuda.OutOfMemoryError("no memory")

    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: "cudaMallocAsync")
    monkeypatch.setattr(graphs, "_run_on", out_of_memory)
    patched = sun()
    for _ in range(2):
        draw(patched.model)
    assert len(tried) == 1
    assert graphs._idle_streams[torch.device("cpu")] == tried


def test_fifth_shape_takes_the_place_of_the_first(trusted, draw):
    (first,) = graphs_of(trusted)
    picture = draw(trusted.model)
    for batch in (2, 3, 4, 5):
        for _ in range(RUNS_UNTIL_TRUSTED):
            draw(trusted.model, batch=batch)
    assert len(graphs_of(trusted)) == len(alive) == 4
    assert first not in alive
    assert torch.equal(draw(trusted.model), picture)


def test_graph_that_was_used_longest_ago_goes_first(trusted, draw, monkeypatch):
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 2)
    (first,) = graphs_of(trusted)
    for batch in (2, 1, 3):
        for _ in range(RUNS_UNTIL_TRUSTED):
            draw(trusted.model, batch=batch)
    assert first in graphs_of(trusted), "it was used after the second"
