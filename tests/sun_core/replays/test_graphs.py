"""What becomes of captured forwards, on the CPU: a stand-in for CUDA graphs records operations and repeats them.

Only a GPU shows whether CUDA replays rightly; test_capture.py does that. Here are the rules around it: what is copied
into a graph's buffers, what graphs share, and when they are freed.
"""

import threading
from contextlib import contextmanager, nullcontext
from copy import deepcopy

import comfy.ldm.modules.attention
import comfy.model_management
import pytest
import torch
from sun_pack.sun_core import capture, graphs, run
from sun_pack.sun_core.apply import apply_negative
from sun_pack.sun_core.resident_weights import SMALL
from sun_pack.sun_core.settings import NegativeSettings

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


def test_options_that_a_node_copies_are_replayed(trusted, draw, runs):
    first = draw(trusted.model)
    beside = trusted.model.clone()

    def with_copy(apply_model, given):
        options = deepcopy(given["c"]["transformer_options"])
        return apply_model(given["input"], given["timestep"], **{**given["c"], "transformer_options": options})

    beside.set_model_unet_function_wrapper(with_copy)
    assert torch.equal(draw(beside), first)
    assert runs[-1].count == 4


def test_graphs_stay_while_clones_take_turns(trusted, model, draw, runs):
    for _ in range(2):
        draw(model)
        draw(trusted.model)
        assert runs[-1].count == 4


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
