"""Forwards replayed as CUDA graphs: the same pictures, whatever changes between runs. They need an NVIDIA GPU.

    SUN_TEST_DEVICE=cuda PYTORCH_CUDA_ALLOC_CONF=backend:cudaMallocAsync \\
        python3 scripts/test.py tests/sun_core/test_capture.py

with cudaMallocAsync, ComfyUI's default, and again without that variable for torch's own allocator.
On ComfyUI 0.33 or newer, the full-size model is in dynamic VRAM, as it is for artists.
"""

import comfy.model_management
import comfy.sample
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from sun_pack.sun_core import forward, run
from sun_pack.sun_core.adapter import SunAdapter
from sun_pack.sun_core.apply import apply_negative, apply_sun
from sun_pack.sun_core.settings import NegativeSettings, SunSettings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need an NVIDIA GPU")

STEPS = 4
UNTIL_TRUSTED = 2
"""Runs before one that is replayed from its first step: one that shows the need, one that captures and checks."""


@pytest.fixture(scope="module")
def full_size_weights():
    from workshop.speed.random_models import random_weights

    return random_weights()


@pytest.fixture(scope="module")
def dynamic_vram(small_model):
    """Whether there is dynamic VRAM; U-Nets that are made without a file, as the small one, must be made before."""
    from workshop.speed.memory_management import start_dynamic_vram

    return start_dynamic_vram()


@pytest.fixture(scope="module")
def full_size_model(full_size_weights, dynamic_vram):
    model = comfy.sd.load_diffusion_model_state_dict(dict(full_size_weights))
    assert model.is_dynamic() == dynamic_vram if hasattr(model, "is_dynamic") else not dynamic_vram
    return model


@pytest.fixture(scope="module")
def small_model(full_size_weights):
    from workshop.speed.random_models import tiny_model

    return tiny_model()


@pytest.fixture(params=["small, fp32", "full size, fp16"])
def model(request):
    return request.getfixturevalue("small_model" if request.param.startswith("small") else "full_size_model")


@pytest.fixture
def adapter(model):
    adapter = SunAdapter.for_unet(model.model.diffusion_model).requires_grad_(False)
    generator = torch.Generator().manual_seed(5)
    for parameter in adapter.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05 * parameter.abs().mean().clamp_min(0.1))
    return adapter


@pytest.fixture
def sun(model, adapter):
    """`sun(may_capture, onto, **settings)` -> (patched MODEL, the reports of its runs)."""

    def sun(may_capture=True, onto=None, strength=1.0):
        reports = []
        patched = apply_sun(
            model if onto is None else onto,
            adapter,
            SunSettings(strength, strength),
            report=reports.append,
            may_capture=lambda: may_capture,
        )
        return patched, reports

    return sun


@pytest.fixture
def draw(model):
    """Samples 4 steps: `draw(model, seed=0, positive=0, negative=1, batch=1, size=16, tokens=77)`."""
    context_dim = model.model.diffusion_model.input_blocks[1][1].transformer_blocks[0].attn2.to_k.in_features

    def draw(patched, seed=0, positive=0, negative=1, batch=1, size=16, tokens=77):
        def prompt(number):
            return [[torch.randn(1, tokens, context_dim, generator=torch.Generator().manual_seed(number)), {}]]

        noise = torch.randn(batch, 4, size, size, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            return comfy.sample.sample(
                patched,
                noise,
                STEPS,
                1.0,
                "euler",
                "simple",
                prompt(positive),
                prompt(negative),
                torch.zeros_like(noise),
                disable_pbar=True,
            )

    return draw


@pytest.fixture
def assert_same(model, difference):
    def assert_same(replayed, eager):
        if model.model.get_dtype() == torch.float32:
            assert torch.equal(replayed, eager)
        else:
            assert difference(replayed, eager) < 1e-3

    return assert_same


def trusted(patched, draw, **options):
    """The MODEL after so many runs that the next is replayed whole."""
    for _ in range(UNTIL_TRUSTED):
        draw(patched, **options)
    return patched


def test_third_run_is_replayed_and_draws_the_same(sun, draw, assert_same):
    (captured, reports), (eager, _) = sun(), sun(may_capture=False)
    trusted(captured, draw)
    assert [report.replayed for report in reports] == [0, STEPS - 2]
    assert_same(draw(captured), draw(eager))
    assert reports[-1].replayed == STEPS and reports[-1].evaluations == STEPS, reports[-1].why_eager


def test_other_prompts_and_seeds_draw_what_they_draw_eagerly(sun, draw, assert_same, difference):
    (captured, reports), (eager, _) = sun(), sun(may_capture=False)
    trusted(captured, draw)
    first = draw(captured)
    for change in ({"seed": 3}, {"positive": 5}, {"negative": 6}, {"seed": 7, "positive": 8, "negative": 9}):
        replayed = draw(captured, **change)
        assert reports[-1].replayed == STEPS, reports[-1].why_eager
        assert_same(replayed, draw(eager, **change))
        assert difference(replayed, first) > 2e-3, change
    assert_same(draw(captured), first)


def test_negative_without_an_adapter_draws_what_it_draws_eagerly(model, draw, assert_same, difference):
    reports = []
    captured = apply_negative(model, NegativeSettings(), report=reports.append)
    eager = apply_negative(model, NegativeSettings(), may_capture=lambda: False)
    first = draw(trusted(captured, draw))
    for change in ({"seed": 3}, {"positive": 5}, {"negative": 6}):
        replayed = draw(captured, **change)
        assert reports[-1].replayed == STEPS, reports[-1].why_eager
        assert_same(replayed, draw(eager, **change))
        assert difference(replayed, first) > 2e-3, change


@pytest.mark.parametrize("change", [{"size": 24}, {"batch": 3}, {"tokens": 154}], ids=str)
def test_another_shape_has_a_graph_of_its_own(sun, draw, assert_same, change):
    (captured, reports), (eager, _) = sun(), sun(may_capture=False)
    first = draw(trusted(captured, draw))
    draw(eager, **change)  # only from the second run on are all steps of several images known to have one text
    assert_same(draw(trusted(captured, draw, **change), **change), draw(eager, **change))
    assert reports[-1].replayed == STEPS, reports[-1].why_eager
    assert_same(draw(captured), first)
    assert reports[-1].replayed == STEPS, reports[-1].why_eager


def test_images_of_one_text_draw_what_they_draw_row_by_row(sun, draw, difference, monkeypatch):
    eager, _ = sun(may_capture=False)
    draw(eager, batch=3)
    as_one_row = draw(eager, batch=3)
    monkeypatch.setattr(forward, "_may_join_rows", lambda q: False)
    assert difference(as_one_row, draw(eager, batch=3)) < 1e-3


def test_kept_text_draws_what_the_text_of_each_step_draws(sun, draw, assert_same, monkeypatch):
    eager, _ = sun(may_capture=False)
    draw(eager)
    kept = draw(eager)
    monkeypatch.setattr(run, "MOST_BYTES", -1)
    assert_same(kept, draw(eager))


def test_another_strength_draws_what_it_draws_eagerly(sun, draw, assert_same, difference):
    (captured, _), (half, reports), (eager, _) = sun(), sun(strength=0.5), sun(may_capture=False, strength=0.5)
    first = draw(trusted(captured, draw))
    replayed = draw(trusted(half, draw))
    assert reports[-1].replayed == STEPS, reports[-1].why_eager
    assert_same(replayed, draw(eager))
    assert_same(draw(captured), first)
    assert difference(replayed, first) > 2e-3


def with_lora(model, strength):
    """As LoraLoader does it: a patch on a clone, here on two weights."""
    patched = model.clone()
    keys = [key for key in model.model.state_dict() if key.endswith(("attn2.to_k.weight", "attn1.to_q.weight"))][:8]
    generator = torch.Generator().manual_seed(11)
    weights = {key: model.model.state_dict()[key] for key in keys}
    diffs = {key: (torch.randn(w.shape, generator=generator) * 0.05,) for key, w in weights.items()}
    assert patched.add_patches({key: ("diff", diff) for key, diff in diffs.items()}, strength)
    return patched


def test_loras_come_and_go(model, sun, draw, assert_same, difference):
    plain, eager = sun()[0], sun(may_capture=False)[0]
    (lora, reports), lora_eager = sun(onto=with_lora(model, 1.0)), sun(False, onto=with_lora(model, 1.0))[0]
    without = draw(trusted(plain, draw))
    with_it = draw(trusted(lora, draw))
    assert reports[-1].replayed == STEPS, reports[-1].why_eager
    assert_same(with_it, draw(lora_eager))
    assert difference(with_it, without) > 2e-3
    for _ in range(3):  # its weights take the other's place and leave it
        assert_same(draw(plain), without)
        assert_same(draw(lora), with_it)
    assert_same(draw(eager), without)


def test_model_that_was_pushed_out_draws_the_same_when_it_is_back(sun, draw, assert_same):
    captured, reports = sun()
    first = draw(trusted(captured, draw))
    for _ in range(3):
        comfy.model_management.unload_all_models()
        assert_same(draw(captured), first)
    assert_same(draw(trusted(captured, draw)), first)
    assert reports[-1].replayed == STEPS, reports[-1].why_eager


def test_memory_that_others_take_between_runs_is_not_read(sun, draw, assert_same):
    captured, _ = sun()
    first = draw(trusted(captured, draw))
    comfy.model_management.unload_all_models()
    taken = [torch.full((64, 2**20), float("nan"), device="cuda") for _ in range(8)]
    again = draw(captured)
    del taken
    assert_same(again, first)


def test_interrupt_in_the_second_step_leaves_the_next_run_whole(sun, draw, assert_same):
    captured, reports = sun()
    first = draw(trusted(captured, draw))

    def interrupt(executor, *args, **kwargs):
        steps.append(1)
        if len(steps) == 2:
            comfy.model_management.interrupt_current_processing()
        return executor(*args, **kwargs)

    steps = []
    interrupted = captured.clone()
    interrupted.add_wrapper_with_key("predict_noise", "test", interrupt)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        draw(interrupted)
    assert len(steps) == 2
    assert_same(draw(captured), first)
    assert reports[-1].replayed == STEPS


def test_neighbour_in_the_attention_is_not_lost(sun, draw, assert_same, difference):
    (captured, reports), (eager, _) = sun(), sun(may_capture=False)
    first = draw(trusted(captured, draw))

    def with_neighbour(patched):
        patched = patched.clone()
        replace = patched.model_options["transformer_options"]["patches_replace"]["attn2"]
        replace[("input", 4)].add(lambda out, q, k, v, options, **_: 0.5 * q, sigma_start=1e9, sigma_end=0.0)
        return patched

    for _ in range(3):
        beside = draw(with_neighbour(captured))
    assert reports[-1].replayed == 0 and "patches" in reports[-1].why_eager
    assert_same(beside, draw(with_neighbour(eager)))
    assert difference(beside, first) > 2e-3


def test_patch_on_the_self_attention_is_not_lost(sun, draw, assert_same, difference):
    captured, reports = sun()
    first = draw(trusted(captured, draw))
    patched = captured.clone()
    patched.set_model_attn1_patch(lambda q, k, v, options: (q * 0.5, k, v))
    assert difference(draw(patched), first) > 2e-3
    assert reports[-1].replayed == 0
    assert_same(draw(captured), first)


def test_switch_turns_it_off(sun, draw):
    off, reports = sun(may_capture=False)
    for _ in range(3):
        draw(off)
    assert reports[-1].replayed == 0 and "settings" in reports[-1].why_eager


def test_hundred_runs_hold_no_more_memory(sun, draw, assert_same):
    captured, reports = sun()
    first = draw(trusted(captured, draw))
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for seed in range(100):
        draw(captured, seed=seed, negative=seed)
        assert reports[-1].replayed == STEPS, reports[-1].why_eager
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= before + 2**20
    assert_same(draw(captured), first)


def test_graphs_go_with_the_model(sun, draw):
    captured, _ = sun()
    draw(trusted(captured, draw))
    assert isinstance(captured, ModelPatcher)
    comfy.model_management.unload_all_models()
    hooks = captured.get_wrappers("outer_sample", "sun")[0].__self__
    assert not hooks.captures.kept


def test_memory_of_graphs_is_given_back(sun, draw):
    from workshop.speed.device import graph_memory

    captured, reports = sun()
    draw(trusted(captured, draw))
    assert reports[-1].replayed == STEPS, reports[-1].why_eager
    is_async = torch.cuda.get_allocator_backend() == "cudaMallocAsync"
    assert (graph_memory() > 0) == is_async
    comfy.model_management.unload_all_models()
    assert graph_memory() == 0


def test_fused_offsets_hide_no_nan():
    from sun_pack.sun_core.fused_offsets import add_offsets_fused

    attended = torch.ones(3, 1, 64, 40, device="cuda")
    attended[1, 0, 5, 5] = float("nan")
    scales, shift = torch.ones(2, 1, 1, 40, device="cuda"), torch.zeros(40, device="cuda")
    assert add_offsets_fused(attended, scales, shift).isnan().all()


def test_fused_offsets_equal_the_formula(difference):
    """Two launches in place of eight, the second time without Triton; the same bits every time."""
    from sun_pack.sun_core.attention import add_offsets
    from sun_pack.sun_core.fused_offsets import _combine, _square_sums, add_offsets_fused, can_fuse

    generator = torch.Generator("cuda").manual_seed(0)
    for rows, tokens, channels in ((1, 4096, 320), (3, 1024, 640), (2, 64, 1280), (1, 63, 40)):
        attended = torch.randn(3, rows, tokens, channels, generator=generator, device="cuda")
        scales = torch.randn(2, 1, 1, channels, generator=generator, device="cuda")
        shift = torch.randn(channels, generator=generator, device="cuda")
        attended[1, 0] = 0
        assert can_fuse(attended, scales)
        fused = add_offsets_fused(attended, scales, shift)
        assert difference(fused, add_offsets(attended, scales, shift)) < 1e-6
        assert torch.equal(fused, add_offsets_fused(attended, scales, shift))
        unaligned = [torch.cat([t.flatten()[:1], t.flatten()])[1:].view(t.shape) for t in (attended, scales, shift)]
        assert difference(fused, add_offsets_fused(*unaligned)) < 1e-6
        half = add_offsets_fused(attended.half(), scales, shift.half())
        assert half.dtype == torch.float16 and difference(half, fused) < 1e-3
    assert _square_sums._is_known and _combine._is_known  # on Triton 3.3 and newer; older ones launch them by Triton
