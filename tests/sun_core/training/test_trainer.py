"""The training of an adapter: what a step does, what stops it, and that processes only share the work."""

import socket
from dataclasses import replace

import pytest
import tiny_run
import torch
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.training.learning_rate import learning_rate_at
from sun_pack.sun_core.training.processes import new_accelerator
from sun_pack.sun_core.training.run_folder import RunFolder
from sun_pack.sun_core.training.training_loop import NotFiniteError

LIMIT = 300  # seconds, for what takes five: processes that wait for each other may do so for ever


def test_two_processes_are_one_with_twice_the_accumulation(tmp_path):
    """The same micro-batches in both; sums in another order differ by rounding (fp32, 1e-7), and Adam makes of that at
    most some thousandths of the way that a weight has gone.
    """
    processes = tiny_run.server()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [processes.Process(target=tiny_run.train_as_one_of_two, args=(rank, port, tmp_path)) for rank in (0, 1)]
    for process in both:
        process.start()
    alone = tiny_run.tiny_trainer(replace(tiny_run.CONFIG, steps=3, accumulation=2))
    before = {key: weight.clone() for key, weight in alone.distillation.adapter.state_dict().items()}
    losses = [step.loss for step in alone.steps()]
    try:
        for process in both:
            process.join(LIMIT)
            assert process.exitcode == 0
    finally:
        for process in both:
            process.kill()
    two = torch.load(RunFolder(tmp_path).checkpoint, weights_only=True)
    torch.testing.assert_close(two["losses"], torch.tensor(losses, dtype=torch.float64), rtol=1e-4, atol=0)
    for key, weight in alone.distillation.adapter.state_dict().items():
        way = (weight - before[key]).norm()
        assert (two["adapter"][key] - weight).norm() <= 0.01 * way, key


def test_a_step_moves_adapter_target_and_average_each_at_its_own_pace():
    trainer = tiny_run.tiny_trainer()
    start = trainer.distillation.adapter["1"].to_k_neg_alpha.detach().clone()
    steps = trainer.steps()
    first = next(steps)
    assert (first.number, first.learning_rate) == (1, tiny_run.CONFIG.learning_rate / 2)
    moved = (trainer.distillation.adapter["1"].to_k_neg_alpha - start).norm()
    target = (trainer.distillation.target["1"].to_k_neg_alpha - start).norm()
    assert moved > 0
    torch.testing.assert_close(target, (1 - tiny_run.CONFIG.recipe.target_ema) * moved)
    averaged = trainer.averaged_adapter()["1"].to_k_neg_alpha - start  # decay 1/10 in the first step
    torch.testing.assert_close(averaged.norm(), 0.9 * moved)


def looking_ahead(config=tiny_run.CONFIG):
    trainer = tiny_run.tiny_trainer(config)
    trainer.loop.looks_ahead = True  # as on a GPU
    return trainer


def test_looking_ahead_changes_no_step():
    plain, ahead = tiny_run.tiny_trainer(), looking_ahead()
    for step, same in zip(plain.steps(), ahead.steps(), strict=True):
        assert step == same
        for key, average in plain.loop.average.items():
            assert torch.equal(average, ahead.loop.average[key]), key


def test_a_checkpoint_of_a_run_that_looks_ahead_is_of_the_step_that_it_says():
    begun, resumed, whole = looking_ahead(), tiny_run.tiny_trainer(), tiny_run.tiny_trainer()
    steps = begun.steps()
    next(steps), next(steps)
    resumed.load_state_dict(begun.state_dict())
    assert [step.loss for step in resumed.steps()] == [step.loss for step in whole.steps()][2:]


def test_looking_ahead_names_the_cause_and_counts_no_broken_step():
    trainer = looking_ahead(replace(tiny_run.CONFIG, learning_rate=1e38, warmup=0))
    with pytest.raises(SunError, match=r"weights of the adapter are not numbers .*; lower learning_rate"):
        list(trainer.steps())
    assert trainer.done == len(trainer.losses) < tiny_run.CONFIG.steps


def test_a_resumed_run_takes_the_steps_that_it_would_have_taken():
    whole = tiny_run.tiny_trainer(replace(tiny_run.CONFIG, steps=4))
    losses = [step.loss for step in whole.steps()]
    begun = tiny_run.tiny_trainer(replace(tiny_run.CONFIG, steps=4))
    steps = begun.steps()
    next(steps), next(steps)
    resumed = tiny_run.tiny_trainer(replace(tiny_run.CONFIG, steps=4))
    resumed.load_state_dict(begun.state_dict())
    assert [step.loss for step in resumed.steps()] == losses[2:]
    assert resumed.losses == losses
    for key, average in resumed.loop.average.items():
        assert torch.equal(average, whole.loop.average[key]), key


def test_the_learning_rate_warms_up_and_falls_along_a_cosine():
    def rate(step):
        return learning_rate_at(step, steps=110, learning_rate=1.0, warmup=10)

    assert [round(rate(step), 4) for step in (0, 4, 9)] == [0.1, 0.5, 1.0]
    assert rate(60) == pytest.approx(0.02 + 0.98 / 2)
    assert rate(110) == pytest.approx(0.02)


def test_fp16_on_a_cpu_is_refused_in_words():
    with pytest.raises(SunError, match="needs a GPU"):
        new_accelerator(replace(tiny_run.CONFIG, precision="fp16"), on_cpu=True)


def nan_in(parameter):
    with torch.no_grad():
        parameter.view(-1)[0] = float("nan")


def test_a_loss_that_is_not_a_number_stops_with_the_adapter_as_the_cause():
    trainer = tiny_run.tiny_trainer()
    nan_in(trainer.distillation.adapter["1"].to_k_neg.weight)
    with pytest.raises(SunError, match=r"step 1: .*weights of the adapter are not numbers \(1\.to_k_neg\.weight\)"):
        next(trainer.steps())
    assert trainer.done == 0


def test_a_loss_that_is_not_a_number_stops_with_the_model_as_the_cause():
    trainer = tiny_run.tiny_trainer()
    weight = trainer.distillation.unet.base.diffusion_model.out[2].weight
    kept = weight.detach().clone()
    nan_in(weight)
    try:
        with pytest.raises(SunError, match="the MODEL has weights"):
            next(trainer.steps())
    finally:
        weight.data.copy_(kept)


def test_a_loss_that_is_not_a_number_stops_with_the_data_as_the_cause():
    trainer = tiny_run.tiny_trainer()
    trainer.data.latents = {f"latent {i}": {"latent": torch.full((4, 2, 2), float("inf"))} for i in range(4)}
    with pytest.raises(SunError, match="the data has values"):
        next(trainer.steps())


def test_the_data_is_looked_for_in_all_of_the_steps_batches():
    trainer = tiny_run.tiny_trainer(replace(tiny_run.CONFIG, accumulation=2))
    last = trainer.data._example(3).latent  # the second row of the second batch
    trainer.data.latents = {**trainer.data.latents, last: {"latent": torch.full((4, 2, 2), float("inf"))}}
    with pytest.raises(SunError, match="the data has values"):
        next(trainer.steps())


def test_fp16_that_overflows_at_every_scale_is_named():
    loop = tiny_run.tiny_trainer().loop
    loop.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    loop.check_finite(0.1, float("inf"))  # the scaler leaves out this step
    loop.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=0.5)
    with pytest.raises(NotFiniteError, match="the gradient is not a number"):
        loop.check_finite(0.1, float("inf"))


def test_a_learning_rate_that_is_far_too_high_is_named():
    trainer = tiny_run.tiny_trainer(replace(tiny_run.CONFIG, learning_rate=1e38, warmup=0))
    with pytest.raises(SunError, match="lower learning_rate"):
        list(trainer.steps())
