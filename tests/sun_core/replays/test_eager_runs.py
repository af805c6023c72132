"""What else stands on a MODEL keeps its effect: such a run is not replayed, and the next one without it is again."""

import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
import pytest
import torch
from comfy.patcher_extension import PatcherInjection, WrappersMP
from sun_pack.sun_core import capture, graphs
from sun_pack.sun_core.apply import apply_sun
from sun_pack.sun_core.resident_weights import CannotCapture
from sun_pack.sun_core.settings import SunSettings

from .stand_in_graphs import RUNS_UNTIL_TRUSTED, StandInGraph, alive, graphs_of

check_device = capture.check_device
"""The real check; a fixture replaces it by one that accepts the CPU."""


def attention_patch(model):
    model.set_model_attn1_patch(lambda q, k, v, options: (q / 2, k, v))


def cross_attention_patch(model):
    model.set_model_attn2_patch(lambda q, k, v, options: (q / 2, k, v))


def block_patch(model):
    model.set_model_output_block_patch(lambda h, skip, options: (h / 2, skip))


def replaced_self_attention(model):
    model.set_model_attn1_replace(lambda q, k, v, options: q / 2, "middle", 0, 0)


def replacement_beside_sun(model):
    replace = model.model_options["transformer_options"]["patches_replace"]["attn2"]
    replace[("middle", 0)].add(lambda out, q, k, v, options, **_: q / 2, sigma_start=1e9, sigma_end=0.0)


def attention_override(model):
    def override(function, *args, **kwargs):
        return function(*args, **kwargs) / 2

    model.model_options["transformer_options"]["optimized_attention_override"] = override


def wrapper(model):
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "pack", lambda executor, *args: executor(*args) / 2)


def compiled(model):
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "torch.compile", lambda executor, *args: executor(*args) / 2)


def object_patch(model):
    out = model.get_model_object("diffusion_model.out")
    model.add_object_patch("diffusion_model.out", torch.nn.Sequential(*out, torch.nn.Threshold(0.0, 0.0)))


def injection(model):
    out, own = model.model.diffusion_model.out[2], []

    def inject(_):
        own.append(out.bias)
        out.bias = torch.nn.Parameter(out.bias + 1, requires_grad=False)

    def eject(_):
        out.bias = own.pop()

    model.set_injections("pack", [PatcherInjection(inject, eject)])


def control(model):
    def with_control(apply_model, given):
        return apply_model(given["input"], given["timestep"], **given["c"], control={"middle": [torch.ones(1)]})

    model.set_model_unet_function_wrapper(with_control)


PATCHES = (
    (attention_patch, "another node patches the U-Net"),
    (cross_attention_patch, "another node patches the U-Net"),
    (block_patch, "another node patches the U-Net"),
    (replaced_self_attention, "another node patches the U-Net"),
    (replacement_beside_sun, "another node patches the U-Net"),
    (attention_override, "another node wraps the U-Net"),
    (wrapper, "another node wraps the U-Net"),
    (compiled, "torch.compile is on the model"),
    (object_patch, "another node changes the U-Net's modules"),
    (injection, "another node changes the model while it runs"),
    (control, "ControlNet or another node adds inputs"),
)


@pytest.mark.parametrize(("patch", "reason"), PATCHES, ids=[patch.__name__ for patch, _ in PATCHES])
def test_what_another_node_does_is_not_lost(trusted, sun, draw, difference, patch, reason, runs):
    first = draw(trusted.model)
    beside, eager = trusted.model.clone(), sun(may_capture=False).model.clone()
    patch(beside)
    before = StandInGraph.replays
    drawn = draw(beside)
    assert StandInGraph.replays == before and runs[-1].count == 0
    assert runs[-1].why_eager == reason
    patch(eager)
    assert torch.equal(drawn, draw(eager)) and difference(drawn, first) > 1e-3
    assert torch.equal(draw(trusted.model), first)
    assert runs[-1].count == 4 and StandInGraph.replays == before + 4


def test_changed_class_of_the_unet_is_not_lost(trusted, draw, difference, monkeypatch, runs):
    first = draw(trusted.model)
    forward = openaimodel.ResBlock.forward
    monkeypatch.setattr(openaimodel.ResBlock, "forward", lambda block, *args: forward(block, *args) / 2)
    drawn = draw(trusted.model)
    assert runs[-1].count == 0 and runs[-1].why_eager == "the U-Net is not ComfyUI's own"
    assert difference(drawn, first) > 1e-3


def test_negative_that_counts_in_places_is_not_lost(trusted, sun, draw, conditioning, difference, runs):
    first = draw(trusted.model)
    mask = torch.zeros(1, 16, 16)
    mask[:, :, :8] = 1
    masked = {"negative": conditioning("neg0", mask=mask, mask_strength=1.0) + conditioning("neg1")}
    drawn = draw(trusted.model, **masked)
    assert runs[-1].why_eager == "the run has a CFG pass or a masked negative"
    assert torch.equal(drawn, draw(sun(may_capture=False).model, **masked)) and difference(drawn, first) > 1e-3


def test_pass_with_cfg_is_drawn_eagerly(model, adapter, draw, runs):
    with_cfg = apply_sun(model, adapter, SunSettings(automatic=False))
    for _ in range(RUNS_UNTIL_TRUSTED + 1):
        draw(with_cfg, cfg=7.0)
        assert runs[-1].count == 0
        assert runs[-1].why_eager == "the run has a CFG pass or a masked negative"


def test_nothing_is_replayed_after_a_capture_that_failed(trusted, draw, monkeypatch, runs):
    first = draw(trusted.model)
    monkeypatch.setattr(graphs, "_failed", [(None, None)])
    assert torch.equal(draw(trusted.model), first)
    assert runs[-1].count == 0
    assert runs[-1].why_eager == "a capture failed before; restart ComfyUI to try again"


def test_only_nvidia_has_graphs(sun, draw, monkeypatch, runs):
    check_device(torch.device("cuda"))
    with pytest.raises(CannotCapture, match="not an NVIDIA GPU"):
        check_device(torch.device("cpu"))
    monkeypatch.setattr(capture, "check_device", check_device)
    draw(sun().model)
    assert runs[-1].why_eager == "the device is not an NVIDIA GPU"
    monkeypatch.setattr(torch.version, "hip", "6.4")
    with pytest.raises(CannotCapture, match="not an NVIDIA GPU"):
        check_device(torch.device("cuda"))


def test_several_gpus_are_not_captured(sun, draw, runs):
    several = sun().model
    several.set_additional_models("multigpu", [several.clone()])
    for _ in range(RUNS_UNTIL_TRUSTED):
        draw(several)
        assert runs[-1].why_eager == "several GPUs share the run"


def test_weights_in_a_precision_of_others_are_not_captured(sun, draw, monkeypatch, runs):
    patched = sun()
    monkeypatch.setattr(capture.Replays, "_free_memory", lambda replays: torch.inf)
    run = capture.Replays(patched.captures, patched.model, True)
    assert run.why_eager is None
    monkeypatch.setattr(patched.model.model.diffusion_model, "dtype", torch.float8_e4m3fn)
    run = capture.Replays(patched.captures, patched.model, True)
    assert run.why_eager == "weights in float8_e4m3fn are not captured"


def test_without_a_stream_of_its_own_nothing_is_captured(trusted, sun, draw, monkeypatch, runs):
    """torch has few, and hands them out in turn."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda device, priority: graphs_of(trusted)[0].stream)
    other = sun()
    eager = draw(other.model)
    for _ in range(RUNS_UNTIL_TRUSTED):
        assert torch.equal(draw(other.model), eager)
        assert runs[-1].count == 0 and runs[-1].why_eager == "there are too many graphs"


def test_graphs_give_way_where_memory_is_short(trusted, draw, monkeypatch, runs):
    first = draw(trusted.model)
    monkeypatch.setattr(capture.Replays, "_free_memory", lambda replays: capture.SPARE_MEMORY - 1)
    assert torch.equal(draw(trusted.model), first)
    assert runs[-1].why_eager == "there is little memory" and not alive


def test_switch_in_the_settings_is_the_reason(sun, draw, runs):
    off = sun(may_capture=False)
    draw(off.model)
    assert runs[-1].why_eager == "capture is off in the settings"


@pytest.mark.parametrize(("latent", "tokens"), [((1, 4, 16, 24), 1), ((2, 4, 16, 16), 1), ((1, 4, 16, 16), 2)])
def test_another_shape_has_a_graph_of_its_own(trusted, sun, draw, reference, latent, tokens, runs):
    """Another size, another batch, and a prompt of more tokens."""
    options = {"latent": torch.zeros(latent), "positive": [[reference.io["in.pos0"].repeat(1, tokens, 1), {}]]}
    eager = draw(sun(may_capture=False).model, **options)
    replayed = []
    for _ in range(RUNS_UNTIL_TRUSTED + 1):
        assert torch.equal(draw(trusted.model, **options), eager)
        replayed.append(runs[-1].count)
    assert replayed == [0, 4 - graphs.CHECKS, 4] and len(graphs_of(trusted)) == 2


def test_graph_that_differs_from_the_eager_forward_draws_nothing(sun, draw, monkeypatch, runs):
    """By one unit in the last place, in fp32."""
    eager = draw(sun(may_capture=False).model)
    replay = graphs.CapturedForward.replay

    def inexact(captured, *args):
        return torch.nextafter(replay(captured, *args), torch.tensor(torch.inf))

    monkeypatch.setattr(graphs.CapturedForward, "replay", inexact)
    patched = sun()
    for _ in range(RUNS_UNTIL_TRUSTED + 1):
        assert torch.equal(draw(patched.model), eager)
        assert runs[-1].count == 0
    assert runs[-1].why_eager == "the replayed forward differed from the eager one" and not alive


@pytest.mark.parametrize(("units", "is_same"), [(1, True), (3, False)])
def test_half_precision_may_differ_by_a_thousandth(units, is_same):
    """A unit in the last place of fp16 is between 0.5 and 1 thousandths."""
    eager = torch.linspace(1, 2, 1001, dtype=torch.float64).half()
    replayed = eager
    for _ in range(units):
        replayed = torch.nextafter(replayed, torch.tensor(torch.inf, dtype=torch.half))
    assert capture._is_same(replayed, eager) is is_same
