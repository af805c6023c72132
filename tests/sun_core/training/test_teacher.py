"""The MODELs that can be the teacher."""

import comfy.model_sampling
import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.training.teacher import check_teacher, key_shapes_hash


def test_a_model_that_cannot_be_the_teacher_is_refused_with_the_reason(model):
    class Flow(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    flow = model.clone()
    flow.add_object_patch("model_sampling", Flow())
    (lcm,) = ModelSamplingDiscrete().patch(model, "lcm", zsnr=False)
    for schedule in (flow, lcm):
        with pytest.raises(SunError, match="noise schedule"):
            check_teacher(schedule)
    for known in ("eps", "v_prediction"):
        check_teacher(ModelSamplingDiscrete().patch(model, known, zsnr=True)[0])


def test_the_hash_of_key_shapes_tells_families_apart_and_not_fine_tunes(model, sdxl):
    unet = model.model.diffusion_model
    before = key_shapes_hash(unet)
    with torch.no_grad():
        unet.out[2].bias.add_(1)
    assert key_shapes_hash(unet) == before != key_shapes_hash(sdxl.model.diffusion_model)
    with torch.no_grad():
        unet.out[2].bias.sub_(1)
