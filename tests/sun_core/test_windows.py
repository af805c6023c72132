"""Context windows: a run evaluates some of its images at a time, and each keeps its own negative."""

from types import SimpleNamespace

import comfy.context_windows
import pytest
import torch
from sun_pack.sun_core.apply import apply_negative, apply_sun
from sun_pack.sun_core.conditioning import window_of
from sun_pack.sun_core.settings import NegativeSettings, SunSettings

IMAGES = 5
"""One for each sigma of a run in 4 steps: ComfyUI 0.3.75 takes no other number in windows of images."""


@pytest.fixture(params=["adapter", "no adapter"])
def sun(request, model, adapter):
    return (
        apply_sun(model, adapter, SunSettings())
        if request.param == "adapter"
        else apply_negative(model, NegativeSettings())
    )


def core_windows(model, length):
    """Windows of `length` images one after the other, as ComfyUI's Context Windows (Manual) makes them."""
    windowed = model.clone()
    windowed.model_options["context_handler"] = comfy.context_windows.IndexListContextHandler(
        context_schedule=comfy.context_windows.get_matching_context_schedule("batched"),
        fuse_method=comfy.context_windows.get_matching_fuse_method("flat"),
        context_length=length,
        dim=0,
    )
    return windowed


def animatediff_windows(model, length):
    """Windows by the protocol of AnimateDiff-Evolved, in a small pack of our own."""

    def calc_cond_batch(executor, model, conds, x_in, timestep, model_options):
        parts = []
        for start in range(0, len(x_in), length):
            window = list(range(start, min(start + length, len(x_in))))
            options = dict(model_options["transformer_options"])
            options["ad_params"] = {"sub_idxs": window, "full_length": len(x_in), "context_length": length}
            given = {**model_options, "transformer_options": options}
            parts.append(executor(model, conds, x_in[window], timestep[window], given))
        return [torch.cat(outs) for outs in zip(*parts, strict=True)]

    windowed = model.clone()
    windowed.add_wrapper_with_key("calc_cond_batch", "ad", calc_cond_batch)
    return windowed


@pytest.fixture
def negatives(reference):
    """A negative for each image."""
    a, b = reference.io["in.neg0"], reference.io["in.neg1"]
    return torch.cat([a, b, (a + b) / 2, (3 * b - a) / 2, (3 * a - b) / 2])


@pytest.mark.parametrize("windows", [core_windows, animatediff_windows])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_each_image_keeps_its_own_negative(sun, sample, difference, negatives, windows, length):
    whole = sample(sun, negative=[[negatives, {}]], batch=IMAGES)
    windowed = sample(windows(sun, length), negative=[[negatives, {}]], batch=IMAGES)
    for image in range(IMAGES):
        assert difference(windowed[image], whole[image]) < 1e-4


@pytest.mark.parametrize("windows", [core_windows, animatediff_windows])
def test_images_share_fewer_negatives_as_without_windows(sun, sample, difference, negatives, windows):
    two = [[negatives[:2], {}]]
    windowed = sample(windows(sun, 3), negative=two, batch=IMAGES)
    assert difference(windowed, sample(sun, negative=two, batch=IMAGES)) < 1e-4


@pytest.mark.parametrize("windows", [core_windows, animatediff_windows])
def test_each_image_keeps_the_place_of_its_negative(sun, sample, difference, reference, windows):
    masks = torch.zeros(IMAGES, 16, 16)
    for image in range(IMAGES):
        masks[image, :, 3 * image : 3 * image + 3] = 1.0
    negative = [[reference.io["in.neg0"], {"mask": masks}], [reference.io["in.neg1"], {"mask": 1 - masks}]]
    whole = sample(sun, negative=negative, batch=IMAGES)
    assert difference(sample(windows(sun, 2), negative=negative, batch=IMAGES), whole) < 1e-4


@pytest.mark.parametrize(("anchor", "images"), [(0, (0, 3, 4)), (2, (2, 3, 4)), (-1, (3, 4))])
def test_image_that_comfyui_evaluates_before_a_window_is_one_of_it(anchor, images):
    """The anchor of ComfyUI 0.33, which has -1 for none."""
    window = SimpleNamespace(dim=0, index_list=[3, 4], causal_anchor_index=anchor)
    assert window_of({"context_window": window}) == images
