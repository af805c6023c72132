"""The benchmark measures and writes what it prints; how fast things are is not for a test to say."""

import json
import math
import subprocess
from argparse import Namespace
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from workshop.speed.measured import Figures, table
from workshop.speed.measurements import chosen_plan, measure_tiny
from workshop.speed.published import README, TRAINING_PAGE, sampling_table, training_table, with_table
from workshop.speed.random_models import TINY_UNET, Sampler, tiny_model
from workshop.speed.sampling_runs import SUN_STEPS, measure_runs
from workshop.speed.training import measure_training

from sun_core.adapter import SunAdapter
from sun_core.apply import apply_sun
from sun_core.settings import SunSettings


@pytest.fixture
def figures() -> Figures:
    return Figures()


def assert_whole(figures: Figures, *names: str) -> None:
    summary = figures.summary()
    assert set(names) <= set(summary)
    for name, figure in summary.items():
        assert figure["min"] <= figure["median"] <= figure["max"], name
        assert name in table(summary)


def test_host_costs_are_measured_on_a_tiny_model(figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workshop.speed.measurements.TINY_STEPS", 4)
    monkeypatch.setattr("workshop.speed.sampling_runs.TINY_RUNS", 2)
    measure_tiny(tiny_model(), figures)
    more = "fixed cost of a run, SUN more than plain"
    assert_whole(figures, "operations that a layer adds", "host time of a layer", more)
    for operations in ("operations that a layer adds", "operations that a layer adds, NAG"):
        assert 0 < figures.median(operations) <= 20


def test_runs_are_compared_with_each_other(figures: Figures) -> None:
    plain = tiny_model()
    sun = apply_sun(plain, SunAdapter.for_unet(plain.model.diffusion_model).requires_grad_(False), SunSettings())
    measure_runs(Sampler(8, 1, TINY_UNET["context_dim"]), {"plain": plain, "sun": sun}, 2, figures, "tiny")
    assert_whole(figures, "tiny: speed-up, eager", "tiny: plain, 25 steps, CFG", f"tiny: SUN, {SUN_STEPS} steps")


@pytest.mark.parametrize("single", [0.02, 0.1, 0.3, 0.9, 1.3, 1.6])
@pytest.mark.parametrize("models", [2, 3])
def test_what_is_measured_stays_within_the_time(single: float, models: int) -> None:
    """`single`: seconds of one evaluation. With CFG it took a CPU 1.7 times as long; a GPU has a third MODEL."""
    with_cfg, turn, forward = 25 * 1.7 * single, models * 4 * single, 6 * single
    planned = chosen_plan(195.0, with_cfg, turn, forward)
    taken = planned.repeats * (with_cfg + planned.turns * turn) + planned.forwards * forward
    assert planned.turns % 2 == planned.forwards % 2 == 0 and planned.repeats >= 1
    assert taken <= 195.0
    assert taken > 195.0 * 0.75 or planned == (6, 8, 40)


def test_a_slow_machine_still_measures_each_once() -> None:
    assert chosen_plan(60.0, 200.0, 40.0, 30.0) == (1, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(("--latent", "4"), "--latent must be at least 8"), (("--json", "nowhere/f.json"), "there is no folder")],
)
def test_wrong_arguments_are_refused_before_anything_is_measured(
    start: Callable[..., subprocess.Popen[str]],
    ended: Callable[[subprocess.Popen[str]], tuple[int, str, str]],
    arguments: tuple[str, ...],
    complaint: str,
) -> None:
    status, _, said = ended(start("bench.py", *arguments))
    assert status == 2 and complaint in said


def test_published_tables_are_made_from_the_files() -> None:
    """`python3 scripts/bench.py --publish` writes them."""
    text = README.read_text(encoding="utf-8")
    assert with_table(text, sampling_table()) == text and "| plain, 25 steps, CFG |" in text
    text = TRAINING_PAGE.read_text(encoding="utf-8")
    assert with_table(text, training_table()) == text


def test_a_measurement_of_training_becomes_a_row(tmp_path: Path) -> None:
    measured = {"family": "sdxl", "batch": 2, "precision": "bf16", "device": "A card", "settings": {"compile": True}}
    measured |= {"images_per_second": 2.04, "peak_bytes": 13_960_000_000}
    (tmp_path / "a-card.json").write_text(json.dumps([measured]), encoding="utf-8")
    assert training_table(tmp_path).splitlines()[2:] == ["| A card | SDXL | 2 | bf16, compile=True | 2.04 | 14.0 GB |"]


def test_training_is_measured_in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a U-Net of SD1.5's blocks, a tenth as wide, at few pixels."""
    monkeypatch.setattr("workshop.speed.training.SD15_UNET", TINY_UNET)
    monkeypatch.setattr("sun_core.training.estimate.WARM_UP", 0)
    (row,) = measure_training("sd15", [2], ["width=64", "height=64"])
    assert row["batch"] == 2 and row["images_per_second"] > 0
    assert row["losses"] and all(map(math.isfinite, row["losses"]))


def test_what_is_measured_is_written_before_the_next_batch_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, file = import_module("bench"), tmp_path / "figures.json"

    def measured_until_interrupted(_: Any) -> Iterator[list[int]]:
        yield [1]
        assert json.loads(file.read_text(encoding="utf-8")) == [1]
        yield [1, 2]
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "measure_training", measured_until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.main(Namespace(publish=False, training=True, json=file))
    assert json.loads(file.read_text(encoding="utf-8")) == [1, 2]
