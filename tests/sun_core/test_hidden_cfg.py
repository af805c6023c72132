"""Functions of other packs around CFG, where something on the MODEL sets a CFG of its own in each step."""

import pytest
import torch

from .test_guidance import cfg_override, mahiro


@pytest.mark.parametrize(
    "change",
    [
        lambda cond, uncond: [cond * 0.9, uncond],
        lambda cond, uncond: [cond, uncond * 0.9],
        lambda *both: [0.9 * p for p in both],
    ],
    ids=["cond", "uncond", "both"],
)
def test_function_before_cfg_acts_beside_a_hidden_cfg_as_without_one(sun, sample, difference, reports, change):
    patched = sun.clone()
    patched.set_model_sampler_pre_cfg_function(lambda args: change(*args["conds_out"]))
    assert difference(sample(cfg_override(patched, 7.0)), sample(patched)) < 1e-5
    assert list(reports[0].findings) == list(reports[1].findings)


def test_function_behind_cfg_acts_beside_a_hidden_cfg_as_without_one(sun, sample, reports):
    patched = mahiro(sun)
    assert torch.equal(sample(cfg_override(patched, 7.0)), sample(patched))
    assert list(reports[0].findings) == list(reports[1].findings) != []


@pytest.mark.parametrize("place", ["pre_cfg", "cfg", "post_cfg"])
def test_function_that_divides_by_what_cfg_adds_changes_nothing_beside_a_hidden_cfg(sun, sample, place):
    patched = sun.clone()
    getattr(patched, f"set_model_sampler_{place}_function")(lambda args: 1 / (args["cond_scale"] - 1))
    assert torch.equal(sample(cfg_override(patched, 7.0)), sample(sun))


def test_function_before_cfg_that_keeps_the_cond_alone_can_be_followed_by_another(sun, sample):
    patched = sun.clone()
    patched.set_model_sampler_pre_cfg_function(lambda args: args["conds_out"][:1])
    patched.set_model_sampler_pre_cfg_function(lambda args: [*args["conds_out"], args["conds_out"][0]][:2])
    assert torch.equal(sample(cfg_override(patched, 7.0)), sample(sun))
