"""The losses, with models whose probability-flow ODE is known in closed form."""

import pytest
import torch
from sun_pack.sun_core.schedule import trailing_timesteps
from sun_pack.sun_core.training import losses

STARTS = trailing_timesteps(4)
MEAN = 0.7


@pytest.fixture
def alphas():
    """SD's cumulative products of 1 - beta, in fp64 so that only the method's own error shows."""
    return (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)


@pytest.fixture
def x():
    return torch.randn(6, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def t():
    return torch.tensor([999, 900, 749, 600, 499, 30])


def one_picture(alphas):
    """Predict the noise if all data is one picture: every DDIM step of any length is exact."""

    def predict(x, t):
        a = losses.alpha_at(alphas, t)
        return (x - a.sqrt() * MEAN) / (1 - a).sqrt()

    return predict


def gaussian(alphas, deviation):
    """Predict the noise for data N(0, deviation^2): linear in x; the ODE scales x by the marginal's deviation."""

    def predict(x, t):
        a = losses.alpha_at(alphas, t)
        return (1 - a).sqrt() * x / (a * deviation**2 + 1 - a)

    return predict


def gaussian_solution(x, t, s, alphas, deviation):
    a, b = losses.alpha_at(alphas, t), losses.alpha_at(alphas, s)
    return x * ((b * deviation**2 + 1 - b) / (a * deviation**2 + 1 - a)).sqrt()


def test_a_jump_to_clean_data_undoes_the_noise(alphas, x, t):
    noise = torch.randn_like(x)
    noised = losses.add_noise(x, noise, t, alphas)
    clean = losses.ddim_jump(noised, noise, t, torch.full_like(t, losses.CLEAN), alphas)
    torch.testing.assert_close(clean, x)


def test_a_jump_of_no_length_is_the_identity(alphas, x, t):
    torch.testing.assert_close(losses.ddim_jump(x, torch.randn_like(x), t, t, alphas), x)


def test_segments_end_at_the_next_sampling_timestep():
    t = torch.tensor([999, 750, 749, 500, 499, 250, 249, 0])
    assert losses.segment_end(t, STARTS).tolist() == [749, 749, 499, 499, 249, 249, losses.CLEAN, losses.CLEAN]


def test_guidance_of_one_is_the_positive_and_of_zero_the_negative(x):
    positive, scale = x + 1, torch.tensor([0.0, 1.0, 3.0, 0.0, 1.0, 3.0])
    expected = torch.stack([x[0], positive[1], x[2] + 3, x[3], positive[4], x[5] + 3])
    torch.testing.assert_close(losses.guided(x, positive, scale), expected)


def msc(student, target_student, teacher, x, t, t_next, alphas):
    """MSC of three predictors, (rows,)."""
    end = losses.segment_end(t, STARTS)
    x_next = losses.ddim_jump(x, teacher(x, t), t, t_next, alphas)
    eps_next = target_student(x_next, t_next.clamp(min=0))
    target = losses.consistency_target(x_next, eps_next, t_next, end, alphas)
    return losses.multi_step_consistency_loss(x, student(x, t), t, end, target, alphas)


def test_at_the_segments_end_the_teacher_stands_whatever_the_student_predicts(alphas, x, t):
    end = losses.segment_end(t, STARTS)
    wrong = torch.full_like(x, 1e6)
    torch.testing.assert_close(losses.consistency_target(x, wrong, end, end, alphas), x)


def test_before_the_segments_end_the_target_jumps_there(alphas, x, t):
    end = losses.segment_end(t, STARTS)
    t_next = torch.maximum(t - 10, end + 1)
    eps = torch.randn_like(x)
    expected = losses.ddim_jump(x, eps, t_next, end, alphas)
    torch.testing.assert_close(losses.consistency_target(x, eps, t_next, end, alphas), expected)


def test_a_perfect_student_has_no_loss(alphas, x, t):
    perfect = one_picture(alphas)
    t_next = torch.maximum(t - 50, losses.segment_end(t, STARTS))
    consistency = msc(perfect, perfect, perfect, x, t, t_next, alphas)
    torch.testing.assert_close(consistency, torch.zeros_like(consistency))
    assert losses.cfg_distillation_loss(perfect(x, t), perfect(x, t)) == 0


def test_every_row_of_a_wrong_student_has_a_loss(alphas, x, t):
    perfect = one_picture(alphas)
    t_next = torch.maximum(t - 50, losses.segment_end(t, STARTS))

    def wrong(x, t):
        return 1.1 * perfect(x, t)

    assert (msc(wrong, perfect, perfect, x, t, t_next, alphas) > 1e-5).all()
    assert losses.cfg_distillation_loss(wrong(x, t), perfect(x, t)) > 1e-5


def test_more_steps_come_nearer_to_the_solution_of_the_ode(alphas, x, t):
    """DDIM is of first order: four times the steps must leave less than half of the error (a quarter in the limit)."""
    predict, end = gaussian(alphas, deviation=0.5), losses.segment_end(t, STARTS)
    exact = gaussian_solution(x, t, end, alphas, deviation=0.5)

    def error(steps):
        at, now = x, t
        for k in range(1, steps + 1):
            then = t + torch.div((end - t) * k, steps, rounding_mode="trunc")
            at, now = losses.ddim_jump(at, predict(at, now), now, then, alphas), then
        return (at - exact).square().mean((1, 2, 3)).sqrt()

    assert (error(20) < 0.5 * error(5)).all()
