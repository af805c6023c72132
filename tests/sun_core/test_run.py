"""What a run keeps between its steps, and that nothing of it stays."""

import gc

import comfy.model_management
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from sun_pack.sun_core.adapter import SunAdapter, SunLayer
from sun_pack.sun_core.apply import apply_sun
from sun_pack.sun_core.branches import AdapterBranches
from sun_pack.sun_core.conditioning import CachedContext, NegativeEntry
from sun_pack.sun_core.run import RunReport, SunRun
from sun_pack.sun_core.settings import SunSettings

SIGMA, CPU = torch.ones(1), torch.device("cpu")


@pytest.fixture
def sun(model, adapter):
    return apply_sun(model, adapter, SunSettings())


@pytest.fixture
def projections(monkeypatch):
    """Row counts of the contexts that the adapter made K and V of so far."""
    calls: list[int] = []
    project = SunLayer.keys_values

    def counting(layer, branch, context):
        calls.append(len(context))
        return project(layer, branch, context)

    monkeypatch.setattr(SunLayer, "keys_values", counting)
    return calls


def test_ordinary_run_does_not_look_for_compiled_modules(sun, sample, monkeypatch):
    """There are 800 of them; only layers that record nothing make it worth a look."""
    unet = sun.model.diffusion_model
    walks, modules = [], unet.modules
    monkeypatch.setattr(unet, "modules", lambda: walks.append(unet) or modules())
    sample(sun)
    assert not walks


def kept_contexts() -> list[CachedContext]:
    gc.collect()
    return [o for o in gc.get_objects() if issubclass(type(o), CachedContext)]


@pytest.mark.parametrize("steps", [4, 7])
@pytest.mark.parametrize("batch", [1, 3])
def test_keys_and_values_are_made_once_per_run_and_context(sun, sample, projections, steps, batch):
    sample(sun, steps=steps, batch=batch)
    assert projections == [1] * (16 * 2), "both branches of 16 layers, one row however large the batch"


def test_keys_and_values_are_made_anew_for_each_run(sun, sample, projections):
    for _ in range(2):
        sample(sun)
    assert len(projections) == 2 * 16 * 2


def test_each_combined_context_is_projected_once(sun, sample, conditioning, projections):
    positive, negative = (conditioning(f"{which}0") + conditioning(f"{which}1") for which in ("pos", "neg"))
    sample(sun, positive=positive, negative=negative)
    assert len(projections) == 2 * 16 * 2


def test_negative_is_projected_once_beside_a_positive_with_an_area(sun, sample, conditioning, projections):
    """For the area ComfyUI gives the negative a second entry, with the same context."""
    sample(sun, positive=conditioning("pos0") + conditioning("pos1", area=(8, 8, 4, 4), strength=1.0))
    assert len(projections) == (2 + 1) * 16


def test_nothing_is_kept_after_a_run(sun, sample):
    sample(sun)
    assert kept_contexts() == []


def test_nothing_is_kept_after_an_interrupt(sun, sample):
    """Even while the exception, which holds the frames of the run, is alive."""

    def interrupt(executor, *args, **kwargs):
        if len(steps) == 2:
            raise comfy.model_management.InterruptProcessingException
        steps.append(1)
        return executor(*args, **kwargs)

    steps = []
    interrupted = sun.clone()
    interrupted.add_wrapper_with_key("predict_noise", "test", interrupt)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(interrupted)
    assert len(steps) == 2
    assert not any(context._kv for context in kept_contexts())
    assert sample(sun).isfinite().all()


def test_context_that_changes_within_a_run_is_noticed(adapter):
    """Context windows give the rows of one entry other contexts from call to call."""
    run = SunRun(AdapterBranches({CPU: adapter}), [NegativeEntry(torch.zeros(1, 77, 48))])
    x, first, second = torch.zeros(2, 4, 8, 8), torch.randn(2, 77, 48), torch.randn(2, 77, 48)

    def forward(context):
        return run.forward(x, context, ["a"], SIGMA, torch.float32)

    kept = forward(first)
    assert forward(first.clone()) is kept
    changed = forward(second).layers[1].keys[1][0]
    assert torch.equal(changed, adapter["1"].to_k_extra_pos(second))
    assert not torch.equal(changed, kept.layers[1].keys[1][0])
    for context in torch.randn(20, 2, 77, 48):  # Python gives the id of what is gone to what comes
        assert torch.equal(forward(context).layers[1].keys[1][0], adapter["1"].to_k_extra_pos(context))


def test_rows_that_share_a_context_are_one_row_of_it(adapter):
    run = SunRun(AdapterBranches({CPU: adapter}), [NegativeEntry(torch.zeros(1, 77, 48))])
    shared = torch.randn(1, 77, 48)
    forward = run.forward(torch.zeros(3, 4, 8, 8), shared.repeat(3, 1, 1), ["a"], SIGMA, torch.float32)
    assert torch.equal(forward.layers[1].keys[1][0], adapter["1"].to_k_extra_pos(shared))


def test_adapter_is_that_of_the_device_that_the_rows_are_on(adapter):
    """ComfyUI's multi-GPU gives each device a copy of the adapter."""
    other = SunAdapter(adapter.layout)
    run = SunRun(AdapterBranches({torch.device("meta"): other, CPU: adapter}), [NegativeEntry(torch.zeros(1, 77, 48))])
    forward = run.forward(torch.zeros(1, 4, 8, 8), torch.ones(1, 77, 48), ["a"], SIGMA, torch.float32)
    assert torch.equal(forward.layers[1].keys[1][0], adapter["1"].to_k_extra_pos(torch.ones(1, 77, 48)))


@pytest.mark.skipif(not hasattr(ModelPatcher, "deepclone_multigpu"), reason="ComfyUI 0.3.75 has no multi-GPU")
def test_multi_gpu_clone_has_an_adapter_of_its_own(sun, model, adapter):
    sun.cached_patcher_init = (model.clone, ())
    (clone,) = sun.deepclone_multigpu(torch.device("cpu")).get_additional_models_with_key("sun")
    assert isinstance(clone.model, SunAdapter) and clone.model is not adapter
    assert all(torch.equal(weight, adapter.state_dict()[key]) for key, weight in clone.model.state_dict().items())


def test_adapter_is_loaded_with_the_model_and_leaves_with_it(sun, model, adapter, sample, caplog):
    """MODELs come and go while the adapter stays; ComfyUI must not take it for leaked, nor count it twice."""
    # MODELs that the garbage collector freed stay here, without a patcher, while their weights live; tests share those.
    comfy.model_management.current_loaded_models.clear()
    sample(sun)
    loaded = [loaded.model.model for loaded in comfy.model_management.current_loaded_models]
    assert loaded.count(adapter) == 1
    for _ in range(3):
        patched = apply_sun(model, adapter, SunSettings()).clone()
        sample(patched)
        del patched
        gc.collect()
    comfy.model_management.free_memory(1e30, torch.device("cpu"))
    sample(sun)
    assert [loaded.model.model for loaded in comfy.model_management.current_loaded_models].count(adapter) == 1
    assert "memory leak" not in caplog.text


def test_batch_whose_rows_fit_no_conditioning_is_left_plain_and_counted(adapter):
    run = SunRun(AdapterBranches({CPU: adapter}), [NegativeEntry(torch.zeros(1, 77, 48))])
    x, context = torch.zeros(3, 4, 16, 16), torch.zeros(3, 77, 48)
    assert run.forward(x, context, ["positive", "another"], SIGMA, torch.float32) is None
    (finding,) = run.measures.findings(automatic=True)
    assert "changes the batch (2 -> 3 rows)" in finding


def test_report_of_a_node_that_did_nothing_says_why_and_no_more():
    report = RunReport(4, note="It does nothing here.")
    assert report.facts == str(report) == "It does nothing here."


def test_layers_that_were_not_recorded_are_not_counted_in_the_facts():
    assert RunReport(4, evaluations=4, rows=8).facts == "4 steps · 4 evaluations · 8 rows"


@pytest.mark.parametrize(("steps", "hint"), [(8, "8 steps · "), (9, "9 steps (4 are enough) · ")])
def test_more_than_twice_the_steps_of_an_adapter_are_said_to_be_too_many(steps, hint):
    assert str(RunReport(steps, enough_steps=4)).startswith(hint)
