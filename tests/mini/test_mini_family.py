"""The shipped weights do what they are for, drawn by ComfyUI's own loaders and samplers.

Few pictures with fixed seeds; how good they are over hundreds is for scripts/evidence.py to measure.
"""

import random

import comfy.sd
import mini_family  # noqa: F401  (registers itself)
import pytest
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from safetensors.torch import load_file
from sun_pack.sun_core.adapter import load_adapter
from sun_pack.sun_core.apply import apply_negative, apply_sun
from sun_pack.sun_core.settings import NegativeSettings, SunSettings
from workshop.mini import drawing
from workshop.mini import judge as judges
from workshop.mini.dataset import as_pictures
from workshop.mini.family import TEACHER_25, Family, Way, unseen_prompts
from workshop.mini.files import ADAPTER, JUDGE, LCM_LORA, STYLES, WEIGHTS
from workshop.mini.world import PLACES, SUBJECTS, Scene, caption, complete

from sun_core.training.evaluation import psnr

FOUR_STEPS = Way("4 steps, no CFG", 4, 1.0, "ddim", "simple")
COUNT = 10
SCENES, PROMPTS = map(list, zip(*unseen_prompts(COUNT), strict=True))
EMPTY = [""] * COUNT
SEED = 1000


@pytest.fixture(scope="module")
def judge():
    return judges.load(JUDGE)


@pytest.fixture(scope="module")
def storybook():
    return Family.load()


def with_sun(family):
    return apply_sun(family.model, load_adapter(ADAPTER), SunSettings())


def right(judge, pictures):
    """Count pictures that show the thing and the colour that were asked for."""
    pairs = zip(SCENES, judge.name(pictures), strict=True)
    return sum(asked.subject == seen.subject and asked.colour == seen.colour for asked, seen in pairs)


def test_all_shipped_weights_are_within_20_megabytes():
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) <= 20e6


def test_the_judge_names_what_the_program_draws(judge):
    """All figures rest on this: it is nearly never wrong about pictures whose content is known."""
    rng, styles = random.Random(123), [*drawing.STYLES.values()]
    scenes = [complete(Scene(None, None, None), rng) for _ in range(100)]
    named = judge.name(as_pictures([drawing.render(scene, rng.choice(styles), rng) for scene in scenes]))
    assert sum(a == b for a, b in zip(scenes, named, strict=True)) >= 98


@pytest.mark.parametrize("style", STYLES)
def test_one_adapter_brings_base_and_community_styles_nearer_to_their_25_steps(style, judge):
    """It was not trained on the styles, and spoils nothing that was asked for."""
    family = Family.load(style)
    teacher = family.draw(family.model, TEACHER_25, PROMPTS, EMPTY, SEED)
    plain = family.draw(family.model, FOUR_STEPS, PROMPTS, EMPTY, SEED)
    sun = family.draw(with_sun(family), FOUR_STEPS, PROMPTS, EMPTY, SEED)
    assert psnr(sun, teacher) > psnr(plain, teacher) + 0.5
    assert right(judge, teacher) >= 0.8 * COUNT
    assert right(judge, sun) >= 0.8 * COUNT


def test_a_negative_colour_is_avoided_at_cfg_1(storybook, judge):
    """The colour that an open prompt came out in becomes its negative prompt."""
    texts = [caption(Scene(subject, None, place)) for subject in SUBJECTS for place in (*PLACES,)[:2]]

    def stays(model):
        before = judge.name(storybook.draw(model, FOUR_STEPS, texts, [""] * len(texts), SEED))
        after = judge.name(storybook.draw(model, FOUR_STEPS, texts, [scene.colour for scene in before], SEED))
        return sum(a.colour == b.colour for a, b in zip(before, after, strict=True))

    assert stays(storybook.model) == len(texts)
    assert stays(with_sun(storybook)) <= 0.25 * len(texts)


def test_the_lcm_lora_draws_what_was_asked_for_in_4_steps(storybook, judge):
    lora, _ = comfy.sd.load_lora_for_models(storybook.model, None, load_file(LCM_LORA), 1.0, 0.0)
    (model,) = ModelSamplingDiscrete().patch(lora, "lcm", False)
    pictures = storybook.draw(model, Way("LCM-LoRA", 4, 1.0, "lcm", "normal"), PROMPTS, EMPTY, SEED)
    assert right(judge, pictures) >= 0.8 * COUNT


def test_a_negative_colour_is_avoided_with_the_lcm_lora_and_no_adapter(storybook, judge):
    """At its defaults, in 4 steps of the sampler `lcm`; scripts/evidence.py --negative measures 200 prompts."""
    texts = [caption(Scene(subject, None, place)) for subject in SUBJECTS for place in (*PLACES,)[:1]]
    lora, _ = comfy.sd.load_lora_for_models(storybook.model, None, load_file(LCM_LORA), 1.0, 0.0)
    (plain,) = ModelSamplingDiscrete().patch(lora, "lcm", False)
    guided, way = apply_negative(plain, NegativeSettings()), Way("LCM-LoRA", 4, 1.0, "lcm", "normal")
    before = judge.name(storybook.draw(plain, way, texts, [""] * len(texts), SEED))

    def again(model):
        return judge.name(storybook.draw(model, way, texts, [scene.colour for scene in before], SEED))

    pairs = list(zip(before, again(guided), strict=True))
    assert [scene.colour for scene in again(plain)] == [scene.colour for scene in before], "without it nothing counts"
    assert sum(a.colour == b.colour for a, b in pairs) <= 0.1 * len(texts)
    assert sum(a.subject == b.subject for a, b in pairs) >= 0.9 * len(texts)
