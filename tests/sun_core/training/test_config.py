"""Settings: what a YAML file may say, and the errors for mistakes in it."""

import json

import pytest
import yaml
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.training.config import FAMILY_DEFAULTS, TrainingConfig, defaults_for


@pytest.mark.parametrize("family", ["", *FAMILY_DEFAULTS])
@pytest.mark.parametrize("read, write", [(yaml.safe_load, yaml.safe_dump), (json.loads, json.dumps)])
def test_settings_survive_their_file(family, read, write):
    config = defaults_for(family).with_values({"negative_prompts": ["ugly"], "recipe": {"segments": 8}})
    assert defaults_for("").with_values(read(write(config.to_mapping()))) == config


def test_one_number_fixes_the_guidance():
    assert TrainingConfig().with_values({"guidance": 3}).guidance == (3.0, 3.0)


def test_1e_4_which_yaml_reads_as_text_is_a_number():
    assert TrainingConfig().with_values(yaml.safe_load("learning_rate: 1e-4")).learning_rate == 1e-4


def test_precision_no_is_not_false():
    assert TrainingConfig().with_values(yaml.safe_load("precision: no")).precision == "no"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"stepz": 3}, "stepz is not a training setting"),
        ({"recipe": {"segmentz": 3}}, r"recipe\.segmentz is not a training setting"),
        ({"recipe": 4}, "recipe is 4, and must be a group"),
        ({"recipe": {"segments": 3}}, "choose 1, 2, 4 or 8"),
        ({"steps": 0}, "steps is 0, and must be 1 or more"),
        ({"steps": 1.5}, "a whole number"),
        ({"steps": True}, "a whole number"),
        ({"width": 500}, "a multiple of 8"),
        ({"learning_rate": "fast"}, "a number"),
        ({"gradient_clip": 0}, "gradient_clip is 0.0, and must be above 0"),
        ({"recipe": {"teacher_stride": 0}}, r"recipe\.teacher_stride is 0, and must be 1 or more"),
        ({"recipe": {"rollout_share": 1.5}}, "from 0 to 1"),
        ({"recipe": {"target_ema": 1}}, r"recipe\.target_ema is 1\.0, and must be at least 0 and below 1"),
        ({"guidance": float("inf")}, "guidance is inf, and must be a finite number"),
        ({"guidance": [-3, 2]}, r"guidance is -3\.0, and must be 0 or more"),
        ({"recipe": {"cfg_weight": -1}}, r"recipe\.cfg_weight is -1\.0, and must be 0 or more"),
        ({"warmup": -5}, "warmup is -5, and must be 0 or more"),
        ({"weight_decay": -1}, "0 or more"),
        ({"sample_every": -3}, "0 or more"),
        ({"guidance": [9, 5]}, "from low to high"),
        ({"guidance": [1, 2, 3]}, "a number or two"),
        ({"precision": "fp64"}, "one of auto, no, fp16, bf16"),
        ({"negative_prompts": "ugly"}, "a list of texts"),
        ({"extra_positive": "yes"}, "true or false"),
        ({"negatives": {"empty": -1}}, "shares of negatives"),
    ],
)
def test_a_mistake_is_named_in_one_sentence(values, says):
    with pytest.raises(SunError, match=says) as refused:
        TrainingConfig().with_values(values)
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)
