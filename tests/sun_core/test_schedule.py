import comfy.model_sampling
import comfy.samplers
import pytest
import torch
from sun_pack.sun_core.schedule import is_part_of_trailing, trailing_between, trailing_sigmas, trailing_timesteps


@pytest.fixture(scope="module")
def model_sampling():
    return comfy.model_sampling.ModelSamplingDiscrete()


@pytest.fixture(scope="module")
def table(model_sampling):
    return model_sampling.sigmas


def test_four_steps_are_the_timesteps_that_adapters_are_made_for():
    assert trailing_timesteps(4) == [999, 749, 499, 249]


def test_sigmas_equal_official_code(reference, table):
    assert trailing_sigmas(table, 4).tolist() == pytest.approx([*reference.scheduler["sigmas_comfy"], 0.0], rel=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 8, 10])
def test_sigmas_equal_comfyuis_simple_scheduler(model_sampling, table, steps):
    assert torch.equal(trailing_sigmas(table, steps), comfy.samplers.simple_scheduler(model_sampling, steps))


def test_denoise_takes_the_end_of_a_longer_schedule(table):
    assert torch.equal(trailing_sigmas(table, 4, denoise=0.5), trailing_sigmas(table, 8)[-5:])


def test_denoise_of_nothing_gives_no_sigmas(table):
    assert len(trailing_sigmas(table, 4, denoise=0.0)) == 0


def test_tiny_denoise_gives_no_sigma_twice(table):
    assert (trailing_sigmas(table, 20, denoise=0.01).diff() < 0).all()


@pytest.mark.parametrize(
    "scheduler", ["simple", "karras", "normal", "sgm_uniform", "exponential", "beta", "kl_optimal"]
)
def test_whole_run_becomes_the_trailing_schedule_bit_for_bit(model_sampling, table, scheduler):
    sigmas = comfy.samplers.calculate_sigmas(model_sampling, scheduler, 4)
    assert torch.equal(trailing_between(sigmas, table), trailing_sigmas(table, 4))


@pytest.mark.parametrize("part", [slice(0, 3), slice(2, 5), slice(1, 4)])
def test_part_of_a_trailing_run_stays_as_it_is(table, part):
    sigmas = trailing_sigmas(table, 4)[part]
    assert torch.equal(trailing_between(sigmas, table), sigmas)


def test_part_of_another_run_keeps_its_first_last_and_number_of_sigmas(model_sampling, table):
    sigmas = comfy.samplers.calculate_sigmas(model_sampling, "karras", 8)[2:7]
    spaced = trailing_between(sigmas, table)
    assert spaced[0] == sigmas[0] and spaced[-1] == sigmas[-1] and len(spaced) == len(sigmas)
    steps = model_sampling.timestep(spaced).diff()
    assert (steps < 0).all() and steps.max() - steps.min() <= 2, "timesteps are evenly spaced"


def test_run_with_more_steps_than_timesteps_keeps_its_spacing(table):
    sigmas = torch.linspace(0.04, 0.0, 21)
    assert torch.equal(trailing_between(sigmas, table), sigmas)


def test_two_parts_of_a_run_meet(model_sampling, table):
    """KSamplerAdvanced, steps 0-2 of 4 and then 2-4 of 4, on any scheduler."""
    sigmas = comfy.samplers.calculate_sigmas(model_sampling, "karras", 4)
    first, second = trailing_between(sigmas[:3], table), trailing_between(sigmas[2:], table)
    assert first[0] == table[-1] and first[-1] == second[0] and second[-1] == 0


def parts(sigmas):
    """Every run of neighbours that ends with noise left."""
    return [sigmas[first : last + 1] for last in range(1, len(sigmas) - 1) for first in range(last)]


@pytest.mark.parametrize("scheduler", ["simple", "sgm_uniform"])
@pytest.mark.parametrize("steps", [2, 3, 4, 6, 7, 25])
def test_every_part_of_an_even_schedule_is_part_of_trailing(model_sampling, table, scheduler, steps):
    sigmas = comfy.samplers.calculate_sigmas(model_sampling, scheduler, steps)
    assert all(is_part_of_trailing(part, table) for part in parts(sigmas))


@pytest.mark.parametrize("scheduler", ["karras", "beta", "ddim_uniform"])
def test_no_part_of_another_schedule_is_part_of_trailing(model_sampling, table, scheduler):
    """ddim_uniform is as even as trailing, but begins at timestep 751."""
    sigmas = comfy.samplers.calculate_sigmas(model_sampling, scheduler, 4)
    assert not any(is_part_of_trailing(part, table) for part in parts(sigmas))


def test_rising_sigmas_are_no_part_that_ends_too_early(table):
    """As samplers use them that turn a picture into noise."""
    assert is_part_of_trailing(trailing_sigmas(table, 4).flip(0), table)
