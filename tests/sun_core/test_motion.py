"""A motion module: layers between the U-Net's own that mix the images of a window, as AnimateDiff-Evolved has them."""

import pytest
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.patcher_extension import PatcherInjection
from sun_pack.sun_core.apply import apply_sun
from sun_pack.sun_core.settings import SunSettings

IMAGES = 4


class Temporal(torch.nn.Module):
    """Mixes each image with the others of its window."""

    def __init__(self):
        super().__init__()
        self.images = IMAGES

    def forward(self, x):
        window = x.unflatten(0, (-1, self.images))
        return (0.7 * window + 0.3 * window.roll(1, dims=1)).flatten(0, 1)


def with_motion(model, windows):
    """A small pack by the protocol of AnimateDiff-Evolved: layers injected for a run, and windows of images, averaged.

    The layers stand behind the spatial transformers of the U-Net.
    """
    temporal = Temporal()

    def blocks(patcher):
        unet = patcher.model.diffusion_model
        return [*unet.input_blocks, unet.middle_block, *unet.output_blocks]

    def inject(patcher):
        for block in blocks(patcher):
            places = [index for index, layer in enumerate(block) if isinstance(layer, SpatialTransformer)]
            for index in reversed(places):
                block.insert(index + 1, temporal)

    def eject(patcher):
        for block in blocks(patcher):
            for index in reversed([index for index, layer in enumerate(block) if layer is temporal]):
                block.pop(index)

    def calc_cond_batch(executor, model, conds, x_in, timestep, model_options):
        sums, counts = [torch.zeros_like(x_in) for _ in conds], torch.zeros(len(x_in), 1, 1, 1)
        for window in windows:
            temporal.images = len(window)
            options = dict(model_options["transformer_options"])
            options["ad_params"] = {"sub_idxs": window, "full_length": len(x_in), "context_length": len(window)}
            given = {**model_options, "transformer_options": options}
            for total, out in zip(sums, executor(model, conds, x_in[window], timestep[window], given), strict=True):
                total[window] += out
            counts[window] += 1
        return [total / counts for total in sums]

    animated = model.clone()
    animated.set_injections("ad", [PatcherInjection(inject=inject, eject=eject)])
    animated.add_wrapper_with_key("calc_cond_batch", "ad", calc_cond_batch)
    return animated


SLIDING = [[0, 1, 2], [1, 2, 3]]


@pytest.fixture
def sped_up(adapter, reports):
    def sped_up(model, strength=1.0):
        return apply_sun(model, adapter, SunSettings(strength, strength), report=reports.append)

    return sped_up


@pytest.fixture
def draw(sample):
    """Samples small images of a negative each."""
    return lambda model, negatives: sample(
        model, negative=[[negatives, {}]], latent=torch.zeros(len(negatives), 4, 8, 8)
    )


@pytest.fixture
def negatives(reference):
    a, b = reference.io["in.neg0"], reference.io["in.neg1"]
    return torch.cat([a, b, (a + b) / 2, (3 * b - a) / 2])


@pytest.mark.parametrize("sun_first", [True, False])
def test_sun_acts_beside_a_motion_module_in_sliding_windows(
    model, sped_up, draw, difference, negatives, reports, sun_first
):
    def both(strength=1.0):
        if sun_first:
            return with_motion(sped_up(model, strength), SLIDING)
        return sped_up(with_motion(model, SLIDING), strength)

    drawn = draw(both(), negatives)
    assert (reports[0].evaluations, reports[0].rows) == (8, 24)
    assert (reports[0].acted, reports[0].layers) == (16, 16)
    assert list(reports[0].findings) == []
    assert difference(draw(both(strength=1e-9), negatives), drawn) > 0.05, "SUN acts"
    assert difference(draw(sped_up(model), negatives), drawn) > 0.05, "and so does the motion module"
    assert difference(draw(both(), negatives.flip(0)), drawn) > 0.01, "and so do the negatives"


def test_order_of_sun_and_a_motion_module_does_not_matter(model, sped_up, draw, difference, negatives):
    first = draw(with_motion(sped_up(model), SLIDING), negatives)
    assert difference(draw(sped_up(with_motion(model, SLIDING)), negatives), first) < 1e-6


@pytest.mark.parametrize("windows", [[[0], [1], [2], [3]], [[0, 1], [2, 3]], [[0, 1, 2], [3]]])
def test_images_of_a_window_are_drawn_as_if_alone(model, sped_up, sample, difference, negatives, windows):
    """A single image too. All start from the same noise, so that a part of them can be drawn again."""
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def draw(motion, images):
        latent = 14.6 * noise.repeat(len(images), 1, 1, 1)
        return sample(
            with_motion(sped_up(model), motion),
            negative=[[negatives[images], {}]],
            latent=latent,
            disable_noise=True,
        )

    together = draw(windows, [0, 1, 2, 3])
    for window in windows:
        alone = draw([list(range(len(window)))], window)
        assert difference(together[window], alone) < 1e-5
