"""The U-Net of a MODEL as a noise predictor, for each kind of prediction and family."""

import weakref

import comfy.model_base
import comfy.model_patcher
import comfy.model_sampling
import comfy.supported_models
import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from sun_pack.sun_core.adapter import SunAdapter
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.layers import cross_attention_layers
from sun_pack.sun_core.training.config import TrainingConfig
from sun_pack.sun_core.training.distillation import Batch, Distillation, Recipe
from sun_pack.sun_core.training.losses import add_noise
from sun_pack.sun_core.training.setup import Teacher
from sun_pack.sun_core.training.teacher import (
    EpsUNet,
    alphas_of,
    check_teacher,
    key_shapes_hash,
    usable_for_autograd,
    with_weights_that_stay,
)
from sun_pack.sun_core.training.text import TextEncoder

CPU = torch.device("cpu")
T = torch.tensor([999, 500, 0])


@pytest.fixture
def x():
    return torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def context(reference):
    return reference.io["in.pos0"].expand(3, -1, -1)


def with_v_prediction(model):
    """`model` as core's ModelSamplingDiscrete node makes it for v prediction."""

    class VSampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION):
        pass

    patched = model.clone()
    patched.add_object_patch("model_sampling", VSampling(model.model.model_config))
    return patched


def test_an_eps_predicting_unet_gives_its_own_prediction(model, x, context):
    raw = model.model.diffusion_model(x, T.float(), context=context)
    torch.testing.assert_close(EpsUNet(model.model)(x, T, context), raw, rtol=1e-4, atol=1e-4)


def test_a_v_predicting_unet_gives_the_noise_that_its_v_means(model, x, context):
    """v = sqrt(a) eps - sqrt(1 - a) x_0 (arXiv 2202.00512), so eps = sqrt(a) v + sqrt(1 - a) x_t."""
    v_model = with_v_prediction(model)
    v_model.patch_model()
    try:
        eps = EpsUNet(v_model.model)(x, T, context)
        v = v_model.model.diffusion_model(x, T.float(), context=context)
    finally:
        v_model.unpatch_model()
    a = alphas_of(v_model)[T].view(-1, 1, 1, 1)
    torch.testing.assert_close(eps, a.sqrt() * v + (1 - a).sqrt() * x, rtol=1e-4, atol=1e-4)


def test_a_perfect_v_prediction_is_the_noise_itself(model, x):
    """Closed form: where v is what x_0 and the noise make it, the predictor must give back the noise."""
    v_model = with_v_prediction(model)
    noise, alphas = torch.randn_like(x), alphas_of(v_model)
    a = alphas[T].view(-1, 1, 1, 1)

    class Perfect(torch.nn.Module):
        dtype = torch.float32

        def forward(self, *args, **kwargs):
            return a.sqrt() * noise - (1 - a).sqrt() * x

    unet, v_model.model.diffusion_model = v_model.model.diffusion_model, Perfect()
    v_model.patch_model()
    try:
        eps = EpsUNet(v_model.model)(add_noise(x, noise, T, alphas), T, torch.zeros(3, 77, 48))
    finally:
        v_model.unpatch_model()
        v_model.model.diffusion_model = unet
    torch.testing.assert_close(eps, noise, rtol=1e-4, atol=1e-4)


@pytest.fixture
def sdxl(reference):
    """An SDXL in all but its size."""
    generator = torch.Generator().manual_seed(0)
    config = dict(reference.unet_config) | {
        "channel_mult": [1, 2], "num_res_blocks": [1, 1], "transformer_depth": [0, 2], "transformer_depth_middle": 2,
        "transformer_depth_output": [0, 0, 2, 2], "adm_in_channels": 2816, "num_classes": "sequential",
        "use_linear_in_transformer": True, "dtype": torch.float32,
    }  # fmt: skip
    base = comfy.model_base.SDXL(comfy.supported_models.SDXL(config), device=CPU).requires_grad_(False)
    for parameter in base.diffusion_model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return comfy.model_patcher.ModelPatcher(base.eval(), CPU, CPU)


class SdxlClip:
    """Random numbers in the shape of what SDXL's text encoders give, which are not to be had here."""

    cond_stage_model = torch.nn.Linear(1, 1)

    def tokenize(self, text):
        return text

    def encode_from_tokens_scheduled(self, text):
        generator = torch.Generator().manual_seed(len(text))
        pooled = torch.randn(1, 1280, generator=generator)
        return [[torch.randn(1, 77, 48, generator=generator), {"pooled_output": pooled}]]


def test_sdxl_learns_with_its_vector_of_pooled_text_and_size(sdxl, x):
    check_teacher(sdxl)
    encoder = TextEncoder(SdxlClip(), sdxl.model, (8, 8))
    positive, negative = encoder("a cat"), encoder("")
    assert positive.y.shape == (1, 2816) and not torch.equal(positive.y, negative.y)
    adapter = SunAdapter.for_unet(sdxl.model.diffusion_model)
    distillation = Distillation(EpsUNet(sdxl.model), adapter, alphas_of(sdxl), Recipe())

    def loss(y):
        rows = (positive.context, negative.context)
        batch = Batch(x, *(c.expand(3, -1, -1) for c in rows), torch.full((3,), 3.0), *(v.expand(3, -1) for v in y))
        return distillation.loss(batch, torch.Generator().manual_seed(0))

    with_y = loss((positive.y, negative.y))
    with_y.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in adapter.parameters())
    assert loss((negative.y, negative.y)) != with_y


def test_weights_loaded_in_inference_mode_take_part_in_autograd_and_are_as_before_afterwards():
    with torch.inference_mode():
        module = torch.nn.Linear(3, 3)
    memory, weight = module.weight.data_ptr(), module.weight.detach().clone()
    x = torch.randn(2, 3, requires_grad=True)
    with usable_for_autograd(module):
        assert module.weight.data_ptr() == memory and not module.weight.is_inference()
        module(x).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(2, 3))
    assert module.weight.data_ptr() == memory and module.weight.is_inference()


def test_weights_that_are_moved_meanwhile_leave_no_memory_behind():
    with torch.inference_mode():
        module = torch.nn.Linear(3, 3)
    memory = weakref.ref(module.weight.untyped_storage())
    with usable_for_autograd(module):
        module.to(torch.float64)  # as a move to another device does, which is not to be had here
        assert memory() is None
    assert module.weight.dtype == torch.float64


def test_a_streamed_model_is_copied_whole(model, new_model, reference):
    """A stand-in for ComfyUI's dynamic VRAM, which needs a GPU: what it answers, and what it is asked."""
    copied = new_model(reference.unet_config)
    copied.model.diffusion_model.out[2].half()

    class Streamed(comfy.model_patcher.ModelPatcher):
        def is_dynamic(self):
            return True

        def clone(self, disable_dynamic=False):
            assert disable_dynamic
            if self.model is None:
                raise RuntimeError("Cannot create non-dynamic delegate: cached_patcher_init is not initialized.")
            return copied

    assert with_weights_that_stay(model) is model
    assert with_weights_that_stay(Streamed(model.model, CPU, CPU)) is copied
    assert {weight.dtype for weight in copied.model.diffusion_model.parameters()} == {torch.float32}
    orphan = Streamed(model.model, CPU, CPU)
    orphan.model = None
    with pytest.raises(SunError, match="Load Checkpoint"):
        with_weights_that_stay(orphan)


@pytest.mark.parametrize("late", [False, True])
def test_an_adapter_to_train_is_whole_and_fp32_however_comfyui_makes_layers(late, model, monkeypatch):
    """With dynamic VRAM (ComfyUI 0.33 on a GPU) layers get their weights, in whichever dtype, when these are loaded."""
    if late:
        memory = pytest.importorskip("comfy.memory_management", reason="this ComfyUI has no dynamic VRAM")
        monkeypatch.setattr(memory, "aimdo_enabled", True)
    unet = model.model.diffusion_model
    untrained = SunAdapter.for_unet(unet, alpha=0.5)
    layer = cross_attention_layers(unet)[0]
    for branch in ("neg", "extra_pos"):
        assert torch.equal(getattr(untrained["1"], f"to_v_{branch}").weight, layer.attention.to_v.weight)
        assert (getattr(untrained["1"], f"to_k_{branch}_alpha") == 0.5).all()
    start = SunAdapter(untrained.layout, torch.float16)
    start.load_state_dict({key: weight.half() for key, weight in untrained.state_dict().items()})
    config = TrainingConfig().with_values({"width": 64, "height": 64})
    for given in (None, start):
        distillation = Teacher.of(model, SdxlClip(), config, {}, given).distillation
        for adapter in (distillation.adapter, distillation.target):
            assert adapter.state_dict().keys() == untrained.state_dict().keys()
            assert all(weight.dtype == torch.float32 for weight in adapter.parameters())


def test_what_cannot_be_a_teacher_is_told_why(model):
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


def test_the_hash_of_key_shapes_tells_families_not_fine_tunes(model, sdxl):
    unet = model.model.diffusion_model
    before = key_shapes_hash(unet)
    with torch.no_grad():
        unet.out[2].bias.add_(1)
    assert key_shapes_hash(unet) == before != key_shapes_hash(sdxl.model.diffusion_model)
    with torch.no_grad():
        unet.out[2].bias.sub_(1)
