"""Distillation on the reference U-Net: random weights, so what is shown is that and how it learns, not what."""

import pytest
import torch
from sun_pack.sun_core.adapter import SunAdapter
from sun_pack.sun_core.training.distillation import Batch, Distillation, Recipe

ROWS = 4


@pytest.fixture
def batch(reference):
    generator = torch.Generator().manual_seed(0)
    return Batch(
        x0=torch.randn(ROWS, 4, 8, 8, generator=generator),
        positive=reference.io["in.pos0"].expand(ROWS, -1, -1),
        negative=reference.io["in.neg0"].expand(ROWS, -1, -1),
        guidance=torch.full((ROWS,), 3.0),
    )


@pytest.fixture
def distillation(reference_model):
    unet = reference_model.model.diffusion_model
    alphas = 1 / (1 + reference_model.model.model_sampling.sigmas.float() ** 2)
    return Distillation(unet, SunAdapter.for_unet(unet), alphas, Recipe())


def test_only_the_adapter_learns(distillation, batch):
    torch.manual_seed(0)
    distillation.loss(batch).backward()
    for name, parameter in distillation.named_parameters():
        learns = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert learns == name.startswith("adapter."), name


def test_the_loss_falls(distillation, batch):
    optimiser = torch.optim.Adam(distillation.adapter.parameters(), lr=1e-2)

    def loss():
        torch.manual_seed(0)
        return distillation.loss(batch)

    before = loss().item()
    for _ in range(8):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    assert loss().item() < 0.7 * before


def test_the_target_follows_by_its_ema(distillation):
    with torch.no_grad():
        for parameter in distillation.adapter.parameters():
            parameter.add_(1)
    before = [p.clone() for p in distillation.target.parameters()]
    distillation.update_target()
    for old, new in zip(before, distillation.target.parameters(), strict=True):
        torch.testing.assert_close(new - old, torch.full_like(old, 1 - distillation.recipe.target_ema))


def test_rolled_out_rows_stand_at_segment_starts_and_the_first_are_pure_noise(distillation, batch):
    torch.manual_seed(3)
    noise = torch.randn_like(batch.x0)
    torch.manual_seed(3)
    x, t = distillation.rolled_out(batch)
    assert set(t.tolist()) <= {999, 749, 499, 249}
    untouched = t == 999
    assert untouched.any() and not untouched.all()
    torch.testing.assert_close(x[untouched], noise[untouched])
    assert not torch.isclose(x[~untouched], noise[~untouched]).all()
