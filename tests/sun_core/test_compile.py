"""Behind ComfyUI's TorchCompileModel: one graph, no break, and no new compilation for other prompts and strengths."""

import comfy.ldm.modules.attention
import pytest
import torch
import torch._dynamo
from sun_pack.sun_core.adapter import SunAdapter
from sun_pack.sun_core.apply import apply_sun
from sun_pack.sun_core.settings import SunSettings
from torch._dynamo.utils import counters
from workshop import environment

pytestmark = pytest.mark.slow

TINY = {
    "image_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1],
    "transformer_depth": [1],
    "channel_mult": [1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [0, 0],
    "context_dim": 48,
    "num_heads": 4,
    "use_spatial_transformer": True,
    "legacy": False,
}
RUNS = 20


@pytest.fixture(autouse=True)
def clean_dynamo(monkeypatch):
    """Start without compiled code, with ComfyUI's attention as on CUDA: its CPU one breaks the graph by itself."""
    attention = comfy.ldm.modules.attention
    monkeypatch.setattr(attention, "optimized_attention", attention.attention_pytorch)
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def model(new_model):
    torch.manual_seed(0)
    model = new_model(TINY)
    for parameter in model.model.diffusion_model.parameters():
        parameter.data.normal_(std=0.1)
    return model


@pytest.fixture(scope="module")
def adapter(model):
    return SunAdapter.for_unet(model.model.diffusion_model).requires_grad_(False)


@pytest.fixture
def draw(sample):
    """Samples one step with prompts of a number: `draw(model, number)`."""

    def prompt(seed, tokens):
        return [[torch.randn(1, tokens, 48, generator=torch.Generator().manual_seed(seed)), {}]]

    def draw(model, number=0, tokens=77, size=8):
        latent = torch.zeros(1, 4, size, size)
        positive, negative = prompt(number, tokens), prompt(number + 1000, tokens)
        with torch.inference_mode():
            return sample(model, steps=1, positive=positive, negative=negative, latent=latent)

    return draw


def compiled(model, adapter, sun_first, backend, strength=1.0):
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    settings = SunSettings(strength, strength)
    if sun_first:
        patched = apply_sun(model, adapter, settings)
        set_torch_compile_wrapper(patched, backend=backend)
        return patched
    patched = model.clone()
    set_torch_compile_wrapper(patched, backend=backend)
    return apply_sun(patched, adapter, settings)


def graphs():
    assert not counters["graph_break"], counters["graph_break"]
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("sun_first", [True, False], ids=["SUN first", "compile first"])
def test_one_graph_serves_all_prompts_and_strengths(model, adapter, draw, difference, sun_first):
    patched = compiled(model, adapter, sun_first, "eager")
    for run in range(RUNS):
        eager = draw(apply_sun(model, adapter, SunSettings(1 - run / 40, 1 - run / 40)), run)
        once_more = apply_sun(patched, adapter, SunSettings(1 - run / 40, 1 - run / 40))
        assert difference(draw(once_more, run), eager) < 1e-3
    assert graphs() == 1


def test_another_token_count_and_another_size_cost_one_compilation_each(model, adapter, draw):
    patched = compiled(model, adapter, True, "eager")
    draw(patched)
    draw(patched, tokens=154)
    assert graphs() == 2
    draw(patched, size=16)
    assert graphs() == 3
    draw(patched, 1, size=16)
    assert graphs() == 3


def test_inductors_picture_is_that_of_the_eager_model(model, adapter, draw, difference):
    if environment.compiler() is None:
        pytest.skip("inductor needs a C++ compiler and Python's headers")
    patched = compiled(model, adapter, True, "inductor")
    for number in range(2):
        eager = draw(apply_sun(model, adapter, SunSettings()), number)
        assert difference(draw(patched, number), eager) < 1e-3
    assert graphs() == 1
