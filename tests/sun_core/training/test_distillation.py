"""Distillation on the reference U-Net, whose weights are random: whether it learns, not what."""

from itertools import pairwise

import pytest
import torch
from sun_pack.sun_core.adapter import SunAdapter
from sun_pack.sun_core.training.batch import Batch
from sun_pack.sun_core.training.distillation import Distillation
from sun_pack.sun_core.training.eps_unet import EpsUNet
from sun_pack.sun_core.training.losses import ddim_jump
from sun_pack.sun_core.training.prompts import Prompt
from sun_pack.sun_core.training.recipe import Recipe

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
def distillation(reference_model, reference_unet):
    alphas = 1 / (1 + reference_model.model.model_sampling.sigmas.float() ** 2)
    return Distillation(reference_unet, SunAdapter.for_unet(reference_unet), alphas, Recipe())


def test_only_the_adapter_learns(distillation, batch):
    torch.manual_seed(0)
    distillation.loss(batch).backward()
    for name, parameter in distillation.named_parameters():
        learns = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert learns == name.startswith("adapter."), name


def test_the_loss_falls(distillation, batch):
    optimizer = torch.optim.Adam(distillation.adapter.parameters(), lr=1e-2)

    def loss():
        torch.manual_seed(0)
        return distillation.loss(batch)

    before = loss().item()
    for _ in range(8):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.7 * before


def test_nothing_in_a_loss_waits_for_the_device(new_model, reference, distillation, batch):
    """On the meta device there are no values: whatever read one on the host would raise."""
    meta = torch.device("meta")
    unet = EpsUNet(new_model(reference.unet_config).model)
    on_meta = Distillation(unet, distillation.adapter.copy(), distillation.alphas, Recipe()).to(meta)
    on_meta.loss(batch.to(meta), torch.Generator().manual_seed(0)).backward()
    assert all(parameter.grad is not None for parameter in on_meta.adapter.parameters())


def test_the_target_follows_by_its_ema(distillation):
    with torch.no_grad():
        for parameter in distillation.adapter.parameters():
            parameter.add_(1)
    before = [p.clone() for p in distillation.target.parameters()]
    distillation.update_target()
    for old, new in zip(before, distillation.target.parameters(), strict=True):
        torch.testing.assert_close(new - old, torch.full_like(old, 1 - distillation.recipe.target_ema))


def test_the_teacher_is_the_plain_model_with_cfg(distillation, batch):
    x, t, w = batch.x0, torch.tensor([999, 700, 400, 100]), batch.guidance.view(-1, 1, 1, 1)
    negative, positive = (distillation.unet(x, t.float(), context=c) for c in (batch.negative, batch.positive))
    expected = negative + w * (positive - negative)
    torch.testing.assert_close(distillation.teacher(batch)(x, t), expected, rtol=1e-4, atol=1e-4)


def test_the_student_reads_the_negative_as_sun_does(distillation, batch):
    """With alphas of 0 only the plain model with the positive is left."""
    x, t = batch.x0, torch.tensor([999, 700, 400, 100])
    plain = distillation.unet(x, t.float(), context=batch.positive)
    with_negative = distillation.student(batch, distillation.adapter)(x, t)
    assert not torch.allclose(with_negative, plain, atol=1e-2)
    with torch.no_grad():
        for name, parameter in distillation.adapter.named_parameters():
            if name.endswith("to_k_neg_alpha") or name.endswith("to_k_extra_pos_alpha"):
                parameter.zero_()
    torch.testing.assert_close(distillation.student(batch, distillation.adapter)(x, t), plain, rtol=1e-4, atol=1e-4)


def test_a_batch_is_made_of_positives_and_then_negatives(batch):
    both = Prompt(torch.cat([batch.positive, batch.negative]), torch.arange(2.0 * ROWS).view(-1, 1))
    made = Batch.of(batch.x0, both, batch.guidance)
    assert torch.equal(made.positive, batch.positive) and torch.equal(made.negative, batch.negative)
    assert made.positive_y.flatten().tolist() == [0, 1, 2, 3] and made.negative_y.flatten().tolist() == [4, 5, 6, 7]


def test_batches_of_one_have_their_share_of_rollouts(distillation, batch, monkeypatch):
    rolled = []
    monkeypatch.setattr(
        Distillation, "rolled_out", lambda self, rows, noise, arrive: rolled.append(len(rows.x0)) or noise
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        distillation.loss(batch.rows(slice(0, 1)), generator)
    assert set(rolled) == {0, 1}


def test_rolled_out_rows_take_as_many_steps_as_sampling_does(distillation, batch):
    """The first row stays pure noise, each next one goes a segment further, to its own prompt's picture."""
    noise = torch.randn(batch.x0.shape, generator=torch.Generator().manual_seed(3))
    x = distillation.rolled_out(batch, noise, torch.tensor([0, 1, 2, 3]))
    predict = distillation.student(batch, distillation.target)
    expected, alphas = noise, distillation.alphas
    for steps, (start, end) in enumerate(pairwise([999, 749, 499, 249]), start=1):
        torch.testing.assert_close(x[steps - 1], expected[steps - 1], rtol=1e-4, atol=1e-4)
        t, s = torch.full((ROWS,), start), torch.full((ROWS,), end)
        with torch.no_grad():
            expected = ddim_jump(expected, predict(expected, t), t, s, alphas)
    torch.testing.assert_close(x[3], expected[3], rtol=1e-4, atol=1e-4)
    assert torch.equal(x[0], noise[0])


def test_rolled_out_rows_stand_at_segment_starts(distillation, batch):
    (goal,) = distillation.goals([batch], [torch.Generator().manual_seed(3)])
    assert set(goal.t[: ROWS // 2].tolist()) <= {999, 749, 499, 249}
    assert not set(goal.t[ROWS // 2 :].tolist()) <= {999, 749, 499, 249}


def test_batches_together_have_the_goals_that_they_have_alone(distillation, batch):
    long_prompts = (context.repeat(1, 2, 1) for context in (batch.negative, batch.positive))
    other = Batch(batch.x0 + 1, *long_prompts, batch.guidance + 1)

    def generators():
        return [torch.Generator().manual_seed(seed) for seed in (1, 2)]

    together = distillation.goals([batch, other], generators())
    for alone, generator, goal in zip((batch, other), generators(), together, strict=True):
        (expected,) = distillation.goals([alone], [generator])
        for name, value in vars(expected).items():
            torch.testing.assert_close(getattr(goal, name), value, rtol=1e-3, atol=1e-3)
