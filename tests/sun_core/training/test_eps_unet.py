"""The U-Net of a MODEL as a noise predictor, for each kind of prediction and family."""

import comfy.model_sampling
import pytest
import torch
from sun_pack.sun_core.adapter import SunAdapter
from sun_pack.sun_core.training.batch import Batch
from sun_pack.sun_core.training.distillation import Distillation
from sun_pack.sun_core.training.eps_unet import EpsUNet, alphas_of
from sun_pack.sun_core.training.losses import add_noise
from sun_pack.sun_core.training.prompts import TextEncoder
from sun_pack.sun_core.training.recipe import Recipe
from sun_pack.sun_core.training.teacher import check_teacher
from tiny_sdxl import SdxlClip

T = torch.tensor([999, 500, 0])


@pytest.fixture
def x():
    return torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def context(reference):
    return reference.io["in.pos0"].expand(3, -1, -1)


def with_v_prediction(model):
    """Make of `model` what core's ModelSamplingDiscrete node makes for v prediction."""

    class VSampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION):
        pass

    patched = model.clone()
    patched.add_object_patch("model_sampling", VSampling(model.model.model_config))
    return patched


def test_an_eps_predicting_unet_gives_its_own_prediction(model, x, context):
    raw = model.model.diffusion_model(x, T.float(), context=context)
    torch.testing.assert_close(EpsUNet(model.model)(x, T, context), raw, rtol=1e-4, atol=1e-4)


def test_a_v_predicting_unet_gives_the_noise_that_its_v_means(model, x, context):
    """v = sqrt(a) eps - sqrt(1 - a) x_0 (arXiv 2202.00512), so eps = sqrt(a) v + sqrt(1 - a) x_t."""
    v_model = with_v_prediction(model)
    v_model.patch_model()
    try:
        eps = EpsUNet(v_model.model)(x, T, context)
        v = v_model.model.diffusion_model(x, T.float(), context=context)
    finally:
        v_model.unpatch_model()
    a = alphas_of(v_model)[T].view(-1, 1, 1, 1)
    torch.testing.assert_close(eps, a.sqrt() * v + (1 - a).sqrt() * x, rtol=1e-4, atol=1e-4)


def test_a_perfect_v_prediction_is_the_noise_itself(model, x):
    """In closed form: from the v of x_0 and some noise, the predictor must give back that noise."""
    v_model = with_v_prediction(model)
    noise, alphas = torch.randn_like(x), alphas_of(v_model)
    a = alphas[T].view(-1, 1, 1, 1)

    class Perfect(torch.nn.Module):
        dtype = torch.float32

        def forward(self, *args, **kwargs):
            return a.sqrt() * noise - (1 - a).sqrt() * x

    unet, v_model.model.diffusion_model = v_model.model.diffusion_model, Perfect()
    v_model.patch_model()
    try:
        eps = EpsUNet(v_model.model)(add_noise(x, noise, T, alphas), T, torch.zeros(3, 77, 48))
    finally:
        v_model.unpatch_model()
        v_model.model.diffusion_model = unet
    torch.testing.assert_close(eps, noise, rtol=1e-4, atol=1e-4)


def test_sdxl_learns_with_its_vector_of_pooled_text_and_size(sdxl, x):
    check_teacher(sdxl)
    encoder = TextEncoder(SdxlClip(), sdxl.model, (8, 8))
    positive, negative = encoder("a cat"), encoder("")
    assert positive.y.shape == (1, 2816) and not torch.equal(positive.y, negative.y)
    adapter = SunAdapter.for_unet(sdxl.model.diffusion_model)
    distillation = Distillation(EpsUNet(sdxl.model), adapter, alphas_of(sdxl), Recipe())

    def loss(y):
        rows = (positive.context, negative.context)
        batch = Batch(x, *(c.expand(3, -1, -1) for c in rows), torch.full((3,), 3.0), *(v.expand(3, -1) for v in y))
        return distillation.loss(batch, torch.Generator().manual_seed(0))

    with_y = loss((positive.y, negative.y))
    with_y.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in adapter.parameters())
    assert loss((negative.y, negative.y)) != with_y
