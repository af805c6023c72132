"""The shipped weights do what README.md says of them, drawn by ComfyUI's own loaders and samplers."""

import sys
from pathlib import Path

import pytest

MINI = Path(__file__).parents[2] / "scripts" / "mini"
sys.path.insert(0, str(MINI))  # before scripts/, which has a module `evaluate` as well

import build  # noqa: E402
import evaluate  # noqa: E402
import measure  # noqa: E402
from sun_pack.sun_core.adapter import load_adapter  # noqa: E402
from sun_pack.sun_core.apply import SunSettings, apply_sun  # noqa: E402

PLAIN_4, SUN_4 = (way for way in evaluate.WAYS if way.evaluations == 4)


@pytest.fixture(scope="module")
def judge():
    return measure.load(build.JUDGE)


@pytest.fixture(scope="module")
def storybook():
    return evaluate.Family.load(build.BASE)


def with_sun(family):
    return {False: family.model, True: apply_sun(family.model, load_adapter(build.ADAPTER), SunSettings())}


def test_all_shipped_weights_are_within_32_megabytes():
    assert sum(file.stat().st_size for file in build.WEIGHTS.iterdir()) <= 32e6


def test_the_judge_names_what_the_program_draws(judge):
    """What all figures rest on: on pictures whose content is known it is nearly never wrong."""
    assert measure.accuracy(judge, count=200, seed=123) >= 0.98


def test_the_base_model_draws_shape_and_colour_of_unseen_prompts(storybook, judge):
    rows = evaluate.table(storybook, {False: storybook.model}, judge, 200, (evaluate.TEACHER_25,))
    assert rows[0]["both"] >= 85


@pytest.mark.parametrize("style", ["storybook", *build.COMMUNITY])
def test_one_adapter_brings_base_and_community_styles_nearer_to_their_25_steps(style, judge):
    """Untrained on the styles, and without spoiling what was asked for."""
    family = evaluate.Family.load(build.BASE, None if style == "storybook" else build.community_unet(style))
    _, plain, sun = evaluate.table(family, with_sun(family), judge, 50, (evaluate.TEACHER_25, PLAIN_4, SUN_4))
    assert sun["psnr"] > plain["psnr"] + 0.5
    assert sun["both"] >= 90


def test_a_negative_colour_is_avoided_at_cfg_1(storybook, judge):
    rows = {row["way"]: row["colour stays"] for row in evaluate.negative_control(storybook, with_sun(storybook), judge)}
    assert rows[SUN_4.title] < 0.6 * rows[PLAIN_4.title]
