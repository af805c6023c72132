import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sun_pack.sun_core.adapter import SunAdapter, check_fit, load_adapter, save_adapter
from sun_pack.sun_core.adapter_file import AdapterLayout
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.layers import cross_attention_layers


@pytest.fixture
def unet(reference_model):
    return reference_model.model.diffusion_model


def test_state_dict_has_the_keys_and_values_of_the_official_file(reference_folder, adapter):
    official = load_file(reference_folder / "sun_adapter_fp16.safetensors")
    ours = adapter.state_dict()
    assert ours.keys() == official.keys()
    assert all(torch.equal(ours[key], official[key]) for key in official)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_saved_adapter_comes_back_with_its_dtype_and_metadata(tmp_path, adapter, dtype):
    path = tmp_path / "whatever it is called.sft"
    save_adapter(adapter, path, {"family": "reference", "steps": "4"}, dtype)
    loaded = load_adapter(path)
    assert loaded.dtype == dtype
    assert loaded.metadata == adapter.metadata | {"family": "reference", "steps": "4"}
    for key, weight in adapter.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], weight.to(dtype))


def test_saved_file_is_readable_by_the_official_key_scheme(tmp_path, unet):
    save_adapter(SunAdapter.for_unet(unet), tmp_path / "a.safetensors", {})
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        keys = set(file.keys())
    names = ["to_k_neg.weight", "to_v_neg.weight", "to_k_neg_alpha", "to_k_neg_beta"]
    names += ["to_k_extra_pos.weight", "to_v_extra_pos.weight", "to_k_extra_pos_alpha", "to_k_extra_pos_beta"]
    assert keys == {f"{number}.{name}" for number in range(1, 32, 2) for name in names}


def test_failed_save_leaves_the_file_that_was_there(tmp_path, adapter, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_adapter(adapter, path, {})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_adapter(adapter, path, {"steps": 4})  # safetensors takes strings only
    assert path.read_bytes() == before


def test_adapter_without_extra_positive_branch_loads(tmp_path, adapter):
    path = tmp_path / "no_pos.safetensors"
    save_file({key: t for key, t in adapter.state_dict().items() if "extra_pos" not in key}, path)
    loaded = load_adapter(path)
    assert not loaded.layout.extra_positive
    assert loaded.layout.layers == adapter.layout.layers


def test_new_adapter_starts_from_the_layers_own_weights(unet):
    adapter = SunAdapter.for_unet(unet, alpha=0.25)
    for layer in cross_attention_layers(unet):
        sun = adapter[str(layer.number)]
        assert torch.equal(sun.to_k_neg.weight, layer.attention.to_k.weight)
        assert torch.equal(sun.to_v_extra_pos.weight, layer.attention.to_v.weight)
        assert sun.to_k_neg_alpha.eq(0.25).all() and sun.to_k_extra_pos_beta.eq(0.0).all()
    assert all(parameter.requires_grad for parameter in adapter.parameters())


def test_loaded_adapter_needs_no_gradients(adapter):
    assert not any(parameter.requires_grad for parameter in adapter.parameters())


def test_adapter_fits_the_unet_it_was_made_for(adapter, unet):
    check_fit(adapter, cross_attention_layers(unet))


def layout(layers, context_dim, hidden_dim=64):
    return SunAdapter(AdapterLayout({2 * i + 1: (hidden_dim, context_dim) for i in range(layers)}, False))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (layout(70, 2048, 8), "the adapter is for SDXL with 70 cross-attention layers and text width 2048"),
        (layout(16, 1024, 8), "the adapter is for Stable Diffusion 2.x"),
        (layout(16, 48, 8), "layer 1 is 8x48 in the adapter and 32x48 in the MODEL"),
        (layout(15, 48, 32), "a model with 15 cross-attention layers"),
    ],
)
def test_adapter_of_another_family_is_told_apart(other, said, unet):
    with pytest.raises(SunError, match=said):
        check_fit(other, cross_attention_layers(unet))


def test_missing_last_layer_is_named(adapter, unet):
    shorter = SunAdapter(AdapterLayout({n: dims for n, dims in adapter.layout.layers.items() if n < 31}, True))
    with pytest.raises(SunError, match="the adapter lacks layer 31"):
        check_fit(shorter, cross_attention_layers(unet))


def test_model_without_cross_attention_is_told_apart(adapter):
    with pytest.raises(SunError, match="no U-Net with cross-attention"):
        check_fit(adapter, cross_attention_layers(torch.nn.Linear(1, 1)))
