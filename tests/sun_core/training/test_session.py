"""A training session: the adapter that it puts on a MODEL."""

import comfy.model_management
import pytest
import torch
from sun_pack.sun_core.adapter import SunAdapter
from sun_pack.sun_core.layers import cross_attention_layers
from sun_pack.sun_core.training.config import TrainingConfig
from sun_pack.sun_core.training.processes import new_accelerator
from sun_pack.sun_core.training.session import Session
from tiny_sdxl import SdxlClip


@pytest.mark.parametrize("late", [False, True])
def test_an_adapter_to_train_is_whole_and_fp32_however_comfyui_makes_layers(late, model, monkeypatch):
    """With dynamic VRAM (ComfyUI 0.33 on a GPU) layers get their weights, in any dtype, when these are loaded."""
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
    accelerator = new_accelerator(config, on_cpu=True)
    for given in (None, start):
        distillation = Session(model, SdxlClip(), None, config, {}, accelerator, given).distillation
        for adapter in (distillation.adapter, distillation.target):
            assert adapter.state_dict().keys() == untrained.state_dict().keys()
            assert all(weight.dtype == torch.float32 for weight in adapter.parameters())


def test_a_new_adapter_starts_from_the_plain_model_after_a_run_with_a_lora(model):
    """Sampling with a LoRA leaves its changes in the weights that all clones of a MODEL share."""
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    config = TrainingConfig().with_values({"width": 64, "height": 64})
    plain = model.model.state_dict()[key].clone()
    with_lora = model.clone()
    with_lora.add_patches({key: ("diff", (torch.ones_like(plain),))})
    comfy.model_management.load_models_gpu([with_lora])
    assert not torch.equal(model.model.state_dict()[key], plain)
    try:
        accelerator = new_accelerator(config, on_cpu=True)
        session = Session(model, SdxlClip(), None, config, {}, accelerator)
        assert torch.equal(session.distillation.adapter["1"].to_k_neg.weight, plain)
        session = Session(with_lora, SdxlClip(), None, config, {}, accelerator)
        torch.testing.assert_close(session.distillation.adapter["1"].to_k_neg.weight, plain + 1)
    finally:
        comfy.model_management.unload_all_models()
