"""What becomes of captured forwards, on the CPU: a stand-in for CUDA graphs records operations and repeats them.

Only a GPU shows whether CUDA replays rightly; test_capture.py does that. Here are the rules around it: what is copied
into a graph's buffers, what graphs share, and when they are freed.
"""

import gc
import threading
from contextlib import contextmanager, nullcontext
from copy import deepcopy

import comfy.ldm.modules.attention
import comfy.model_management
import pytest
import torch
from sun_pack.sun_core import capture, graphs, run
from sun_pack.sun_core.apply import apply_negative, apply_sun
from sun_pack.sun_core.resident_weights import SMALL
from sun_pack.sun_core.settings import NegativeSettings, SunSettings

from .stand_in_graphs import RUNS_UNTIL_TRUSTED, StandInCapture, StandInGraph, StandInStream, alive, graphs_of


def test_replays_draw_what_eager_forwards_draw(trusted, sun, draw, conditioning, difference):
    eager = sun(may_capture=False).model
    first = draw(eager)
    for change in ({}, {"negative": conditioning("neg1")}, {"positive": conditioning("pos1")}, {}):
        before = StandInGraph.replays
        replayed = draw(trusted.model, **change)
        assert StandInGraph.replays == before + 4
        assert torch.equal(replayed, draw(eager, **change))
        assert not change or difference(replayed, first) > 1e-3


def test_replays_of_a_negative_without_an_adapter_draw_what_eager_forwards_draw(model, draw, conditioning, difference):
    captured = apply_negative(model, NegativeSettings())
    eager = apply_negative(model, NegativeSettings(), may_capture=lambda: False)
    for _ in range(RUNS_UNTIL_TRUSTED):
        draw(captured)
    first = draw(eager)
    for change in ({}, {"negative": conditioning("neg1")}, {"positive": conditioning("pos1")}, {}):
        before = StandInGraph.replays
        replayed = draw(captured, **change)
        assert StandInGraph.replays == before + 4
        assert torch.equal(replayed, draw(eager, **change))
        assert not change or difference(replayed, first) > 1e-3


def test_graph_of_negatives_without_strength_is_not_replayed_for_others(model, draw, conditioning):
    """What guides away from them is no tensor, and part of a graph."""
    captured = apply_negative(model, NegativeSettings())
    eager = apply_negative(model, NegativeSettings(), may_capture=lambda: False)

    def negative(strength):
        return [entry for name in ("neg0", "neg1") for entry in conditioning(name, strength=strength)]

    for strength in (0.0, 1.0) * (RUNS_UNTIL_TRUSTED + 1):
        drawn = draw(captured, negative=negative(strength))
        assert torch.equal(drawn, draw(eager, negative=negative(strength)))


def test_graphs_of_a_model_share_a_pool_and_each_has_its_own_stream(trusted, sun, draw):
    other = sun(strength=0.5)
    for _ in range(RUNS_UNTIL_TRUSTED):
        draw(trusted.model, batch=2)
        draw(other.model)
    first, second = graphs_of(trusted)
    (third,) = graphs_of(other)
    assert first.pool() == second.pool() != third.pool()
    assert len({first.stream, second.stream, third.stream}) == 3


def test_forward_runs_on_the_stream_before_the_capture_with_cuda_malloc_async(sun, draw, monkeypatch):
    """There, cuBLAS must not take its workspace from the graph's memory."""
    current = StandInStream()
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: "cudaMallocAsync")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream.recorder)
    patched = sun()
    for _ in range(RUNS_UNTIL_TRUSTED):
        draw(patched.model)
    (graph,) = graphs_of(patched)
    assert 0 < len(graph.recorder.tape) - graph.done_before <= 1, "the same, and the copy to the graph's output"
    assert graph.stream.waits_for == [current] and current.waits_for == [graph.stream]
    assert torch.equal(draw(patched.model), draw(sun(may_capture=False).model))
    trimmed = []
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: trimmed.append(True) or False)
    patched.captures.clear()
    assert not alive and trimmed


def test_all_layers_ask_for_their_weights_before_a_capture_in_any_step(sun, draw, monkeypatch):
    """Dynamic VRAM has the weights at hand that were asked for last; a layer whose K and V are kept asks for none."""
    patched = sun()
    draw(patched.model)
    to_k = patched.model.model.diffusion_model.middle_block[1].transformer_blocks[0].attn2.to_k
    called, forward = [], type(to_k).forward
    monkeypatch.setattr(type(to_k), "forward", lambda linear, x: called.append(linear) or forward(linear, x))
    free = iter([float("inf"), 0.0])  # at the run's start, and in its first step
    monkeypatch.setattr(capture.Replays, "_free_memory", lambda replays: next(free, float("inf")))
    draw(patched.model)
    assert graphs_of(patched)
    assert called.count(to_k) == 4, "in step 1, in step 2 and in its capture, and in step 3, which keeps it"


def test_one_image_needs_one_graph_whether_its_text_is_kept_or_not(trusted, draw, monkeypatch):
    monkeypatch.setattr(run, "MOST_BYTES", -1)
    before = StandInGraph.replays
    draw(trusted.model)
    assert StandInGraph.replays == before + 4 and len(graphs_of(trusted)) == 1


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


def test_graphs_are_found_and_freed_if_a_clone_without_sun_was_pushed_out(trusted, model, draw):
    draw(model)
    comfy.model_management.unload_all_models()
    assert graphs_of(trusted), "nothing has told SUN"
    graphs.free_graphs_of_unloaded_models()
    assert not graphs_of(trusted)


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


def test_memory_of_graphs_is_taken_for_free(trusted, sun, draw, monkeypatch):
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


def test_options_that_a_node_copies_are_replayed(trusted, draw):
    first = draw(trusted.model)
    beside = trusted.model.clone()

    def with_copy(apply_model, given):
        options = deepcopy(given["c"]["transformer_options"])
        return apply_model(given["input"], given["timestep"], **{**given["c"], "transformer_options": options})

    beside.set_model_unet_function_wrapper(with_copy)
    before = StandInGraph.replays
    assert torch.equal(draw(beside), first)
    assert StandInGraph.replays == before + 4


def test_graphs_stay_while_clones_take_turns(trusted, model, draw):
    for _ in range(2):
        draw(model)
        before = StandInGraph.replays
        draw(trusted.model)
        assert StandInGraph.replays == before + 4


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


def test_attention_that_asks_for_the_free_memory_is_not_captured(sun, draw, monkeypatch):
    monkeypatch.setattr(capture, "_ASK_FOR_MEMORY", (comfy.ldm.modules.attention.optimized_attention,))
    patched = sun()
    for _ in range(RUNS_UNTIL_TRUSTED):
        draw(patched.model)
    assert not graphs_of(patched)


def test_cancel_waits_for_the_end_of_a_capture(sun, draw, monkeypatch):
    cancelling = []

    class CancelledCapture(StandInCapture):
        def __enter__(self):
            thread = threading.Thread(target=comfy.model_management.interrupt_current_processing)
            cancelling.append(thread)
            thread.start()
            super().__enter__()

    patched = sun()
    draw(patched.model)
    with monkeypatch.context() as changed, pytest.raises(comfy.model_management.InterruptProcessingException):
        changed.setattr(torch.cuda, "graph", CancelledCapture)
        draw(patched.model)
    cancelling[0].join()
    assert not graphs._failed
    for _ in range(2):
        draw(patched.model)
    before = StandInGraph.replays
    assert torch.equal(draw(patched.model), draw(sun(may_capture=False).model))
    assert StandInGraph.replays == before + 4


@contextmanager
def replaced(module, name, value):
    own = module._parameters[name]
    module._parameters[name] = torch.nn.Parameter(value, requires_grad=False)
    try:
        yield
    finally:
        module._parameters[name] = own


def test_large_weight_that_was_replaced_between_runs_is_used(trusted, sun, draw, difference):
    first = draw(trusted.model)
    modules = [m for m in trusted.model.model.diffusion_model.modules() if getattr(m, "weight", None) is not None]
    large = max(modules, key=lambda module: module.weight.nbytes)
    assert large.weight.nbytes > SMALL
    with replaced(large, "weight", large.weight * 2):
        changed = draw(trusted.model)
        assert torch.equal(changed, draw(sun(may_capture=False).model))
        assert difference(changed, first) > 1e-3
    assert torch.equal(draw(trusted.model), first)


def test_small_weight_that_was_replaced_between_runs_is_used(trusted, sun, draw, difference):
    first = draw(trusted.model)
    out = trusted.model.model.diffusion_model.out[2]
    assert out.bias.nbytes <= SMALL
    with replaced(out, "bias", out.bias + 1):
        before = StandInGraph.replays
        changed = draw(trusted.model)
        assert StandInGraph.replays == before + 4
        assert torch.equal(changed, draw(sun(may_capture=False).model))
        assert difference(changed, first) > 1e-3


def test_pages_that_moved_cause_an_eager_forward(trusted, draw, monkeypatch):
    first = draw(trusted.model)
    monkeypatch.setattr(capture, "pinned", lambda block: nullcontext(b"other pages"))
    before = StandInGraph.replays
    assert torch.equal(draw(trusted.model), first)
    assert StandInGraph.replays == before and not graphs_of(trusted)


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
    for batch in (2, 1, 3):
        for _ in range(RUNS_UNTIL_TRUSTED):
            draw(trusted.model, batch=batch)
    before = StandInGraph.replays
    draw(trusted.model)
    assert StandInGraph.replays == before + 4, "the first graph, which was used after the second"


def test_interrupt_between_replays_ends_the_run(trusted, draw):
    first = draw(trusted.model)
    interrupted, steps = trusted.model.clone(), []

    def interrupt(executor, *args, **kwargs):
        steps.append(StandInGraph.replays)
        if len(steps) == 2:
            comfy.model_management.interrupt_current_processing()
        return executor(*args, **kwargs)

    interrupted.add_wrapper_with_key("predict_noise", "test", interrupt)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        draw(interrupted)
    assert len(steps) == 2 and StandInGraph.replays == steps[-1]
    assert torch.equal(draw(trusted.model), first)


def test_weights_are_looked_for_once_in_a_run(trusted, draw, monkeypatch):
    looked, look = [], capture.resident_weights
    monkeypatch.setattr(capture, "resident_weights", lambda *args: looked.append(args) or look(*args))
    draw(trusted.model)
    assert len(looked) == 1


def test_weights_that_are_loaded_anew_within_a_run_are_used(trusted, sun, draw, difference):
    """As when ComfyUI pushes a part of the model out and back between two steps, for another model."""
    first = draw(trusted.model)
    out, base = trusted.model.model.diffusion_model.out[2], trusted.model.model
    own, loaded = out.bias, base.model_loaded_weight_memory

    def draw_beside(model):
        model, steps = model.clone(), []

        def load_anew(executor, *args, **kwargs):
            steps.append(args)
            if len(steps) == 3:
                out._parameters["bias"] = torch.nn.Parameter(own + 1, requires_grad=False)
                base.model_loaded_weight_memory += 1
            return executor(*args, **kwargs)

        model.add_wrapper_with_key("predict_noise", "test", load_anew)
        try:
            return draw(model)
        finally:
            out._parameters["bias"], base.model_loaded_weight_memory = own, loaded

    before = StandInGraph.replays
    changed = draw_beside(trusted.model)
    assert StandInGraph.replays == before + 4
    assert torch.equal(changed, draw_beside(sun(may_capture=False).model)) and difference(changed, first) > 1e-3


def test_another_runs_keys_and_values_are_copied_in_few_operations(trusted, draw, conditioning, monkeypatch):
    """torch does so for tensors of one dtype that are dense, and copies any other list one by one."""
    lists, copy = [], torch._foreach_copy_
    monkeypatch.setattr(torch, "_foreach_copy_", lambda own, given: lists.append(given) or copy(own, given))
    draw(trusted.model, negative=conditioning("neg1"))
    assert lists
    for tensors in lists:
        assert len({tensor.dtype for tensor in tensors}) == 1
        assert all(tensor.is_contiguous() for tensor in tensors)
    assert len(lists) <= 3, "small weights; keys and values in half precision; scales"
