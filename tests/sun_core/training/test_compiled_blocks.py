"""torch.compile in training: the same losses, few compilations, and training without it if it fails."""

import functools
from dataclasses import replace

import pytest
import tiny_run
import torch
from sun_pack.sun_core.training import compiled_blocks
from torch._dynamo.utils import counters


@pytest.fixture
def traced(monkeypatch):
    """Blocks are traced and then run eagerly: no compiler is needed, and it takes seconds."""
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))


def losses(**settings):
    return [step.loss for step in tiny_run.tiny_trainer(replace(tiny_run.CONFIG, **settings)).steps()]


def test_the_losses_are_those_without_it_and_blocks_that_are_alike_share_their_code(traced):
    """Teacher, student, target and rollouts have 10, 5, 5 and up to 3 rows, in 7 transformer and 8 residual blocks."""
    settings = {"batch_size": 5, "steps": 1, "gradient_checkpointing": True}
    assert losses(compile=True, **settings) == pytest.approx(losses(**settings), rel=1e-4)
    assert 0 < counters["stats"]["unique_graphs"] <= 60


def test_the_blocks_are_as_before_afterwards():
    unet = tiny_run.mini()[0].model.diffusion_model
    with pytest.raises(KeyError), compiled_blocks.compiled_blocks(unet):
        raise KeyError
    assert not any("forward" in vars(module) for module in unet.modules())


def test_if_compiling_fails_training_goes_on_without_it(monkeypatch, caplog):
    torch._dynamo.reset()

    def broken(graph, example_inputs):
        raise RuntimeError("no compiler on this machine")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    assert losses(compile=True) == pytest.approx(losses(), rel=1e-4)
    (told,) = [record.message for record in caplog.records if "torch.compile" in record.message]
    assert told == (
        "torch.compile does not work here (no compiler on this machine); training goes on without it, slower."
    )


def test_where_torch_refuses_to_compile_training_goes_on_without_it(monkeypatch, caplog):
    """As torch 2.9 does in Python 3.14."""

    def refuse(*args, **kwargs):
        raise RuntimeError("not supported on this Python")

    monkeypatch.setattr(torch, "compile", refuse)
    assert losses(compile=True) == losses()
    assert "torch.compile does not work here (not supported on this Python); training goes on without it" in caplog.text
