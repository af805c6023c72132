import json
import pickle
import struct

import pytest
import torch
from safetensors.torch import save_file
from sun_pack.sun_core.adapter import load_adapter, save_adapter
from sun_pack.sun_core.adapter_file import AdapterLayout, family_of, steps_of
from sun_pack.sun_core.errors import SunError


@pytest.fixture
def weights(adapter):
    """The reference adapter's tensors, to be spoilt."""
    return {key: weight.clone() for key, weight in adapter.state_dict().items()}


@pytest.fixture
def refusal(tmp_path):
    """What loading a file says: `refusal(bytes)` or `refusal(tensors)`."""

    def refusal(content):
        path = tmp_path / "file.safetensors"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            save_file(content, path)
        with pytest.raises(SunError) as error:
            load_adapter(path)
        message = str(error.value)
        assert message.startswith("file.safetensors ") and message.endswith(".") and "\n" not in message
        assert "choose a SUN adapter" in message
        return message

    return refusal


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight", "is a LoRA"),
        ("unet.down_blocks.0.attn2.to_k.lora_A.weight", "is a LoRA"),
        ("model.diffusion_model.input_blocks.0.0.weight", "is a whole checkpoint"),
        ("double_blocks.0.img_attn.qkv.weight", "is a diffusion model"),
        ("ip_adapter.1.to_k_ip.weight", "is an IP-Adapter"),
        ("control_model.input_blocks.0.0.weight", "is a ControlNet"),
        ("first_stage_model.decoder.conv_in.weight", "is a whole checkpoint"),
        ("decoder.conv_in.weight", "is a VAE"),
        ("text_model.embeddings.position_embedding.weight", "is a text encoder"),
        ("something.else", 'is not a SUN adapter (its first key is "something.else")'),
    ],
)
def test_other_kinds_of_model_are_called_by_their_names(refusal, key, said):
    assert said in refusal({key: torch.zeros(2, 2)})


def test_file_without_tensors_is_refused(refusal):
    assert "it has no tensors" in refusal({})


class Bomb:
    """Unpickled, it would leave a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def test_pickle_is_refused_and_never_run(refusal, tmp_path):
    mark = tmp_path / "ran"
    assert "is a Python pickle" in refusal(pickle.dumps(Bomb(mark)))
    torch.save({"1.to_k_neg.weight": Bomb(mark)}, tmp_path / "checkpoint.pt")
    assert "is a pickle checkpoint" in refusal((tmp_path / "checkpoint.pt").read_bytes())
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is an empty file"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"GGUF\x03\x00\x00\x00", "is a GGUF model"),
        (b"some words that are no header", "is not a safetensors file"),
        (struct.pack("<Q", 2**62) + b"{", "is a damaged safetensors file"),
    ],
)
def test_what_is_no_safetensors_file_is_called_what_it_is(refusal, content, said):
    assert said in refusal(content)


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.999])
def test_truncated_file_is_recognised(refusal, reference_folder, kept):
    content = (reference_folder / "sun_adapter_fp16.safetensors").read_bytes()
    assert "cut short" in refusal(content[: int(len(content) * kept)])


def test_header_that_points_outside_of_the_file_is_refused(refusal):
    header = json.dumps({"1.to_k_neg.weight": {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 2**40]}}).encode()
    assert "damaged" in refusal(struct.pack("<Q", len(header)) + header)


def test_missing_layer_is_named(refusal, weights):
    assert "layer 7 is missing" in refusal({k: w for k, w in weights.items() if not k.startswith("7.")})


def test_missing_tensor_is_named(refusal, weights):
    del weights["31.to_k_extra_pos_beta"]
    assert "31.to_k_extra_pos_beta is missing" in refusal(weights)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_value_that_is_no_number_is_named(refusal, weights, value):
    weights["9.to_v_neg.weight"][0, 0] = value
    assert "9.to_v_neg.weight has values that are not numbers" in refusal(weights)


def test_tensor_of_the_wrong_shape_is_named(refusal, weights):
    weights["5.to_v_neg.weight"] = weights["5.to_v_neg.weight"][:, :-1].contiguous()
    assert "5.to_v_neg.weight has the shape" in refusal(weights)


def test_layers_of_several_text_widths_are_refused(refusal, weights):
    for name in ("to_k_neg", "to_v_neg", "to_k_extra_pos", "to_v_extra_pos"):
        weights[f"5.{name}.weight"] = weights[f"5.{name}.weight"][:, :-1].contiguous()
    assert "mixes the text widths [47, 48]" in refusal(weights)


def test_key_among_others_that_no_adapter_has_is_named(refusal, weights):
    weights["extra.weight"] = torch.zeros(1)
    assert 'such as "extra.weight"' in refusal(weights)


def test_layer_number_of_thousands_of_digits_is_no_key(refusal):
    message = refusal({f"{'9' * 5000}.to_k_neg.weight": torch.zeros(2, 2)})
    assert "is not a SUN adapter" in message and len(message) < 250


def test_self_attention_numbers_are_refused(refusal, weights):
    weights |= {key.replace("1.", "0.", 1): weight.clone() for key, weight in weights.items() if key.startswith("1.")}
    assert "has a layer 0" in refusal(weights)


def test_file_larger_than_any_adapter_is_refused(refusal, weights, monkeypatch):
    monkeypatch.setattr("sun_pack.sun_core.adapter_file.LARGEST_ADAPTER", 2**10)
    assert "has more than 0 GB, which no SUN adapter has" in refusal(weights)


def test_weights_that_are_no_floats_are_refused(refusal, weights):
    assert "weights of type I8" in refusal({key: weight.to(torch.int8) for key, weight in weights.items()})


def test_file_that_is_gone_is_said_to_be_gone(tmp_path):
    with pytest.raises(SunError, match=r"gone\.safetensors is not there any more"):
        load_adapter(tmp_path / "gone.safetensors")


def test_layer_number_with_a_leading_zero_is_foreign(refusal, weights):
    assert 'such as "01.to_k_neg.weight"' in refusal(weights | {"01.to_k_neg.weight": torch.zeros(2, 2)})


def test_hostile_key_is_shown_as_text_on_one_line(refusal, weights):
    assert r"\n\u001b" in refusal(weights | {"a\n\x1b[31m": torch.zeros(1)})


def test_layer_without_width_is_refused(refusal):
    tensors = {f"1.to_{kv}_neg.weight": torch.zeros(0, 0) for kv in "kv"}
    tensors |= {f"1.to_k_neg_{scale}": torch.zeros(0) for scale in ("alpha", "beta")}
    assert "has no values" in refusal(tensors)


def test_folder_in_an_adapters_place_is_refused(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(SunError, match=r"folder.safetensors is a file that cannot be read \(Is a directory\)"):
        load_adapter(tmp_path / "folder.safetensors")


def test_weights_too_large_for_the_file_are_not_saved(adapter, tmp_path):
    too_large = adapter.copy()
    with torch.no_grad():
        too_large["1"].to_k_neg_alpha[0] = 1e6
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(b"an older adapter")
    with pytest.raises(SunError, match="The adapter was not saved: it has weights that are not numbers in float16"):
        save_adapter(too_large, path, {})
    assert [file.name for file in tmp_path.iterdir()] == ["adapter.safetensors"]
    assert path.read_bytes() == b"an older adapter"


@pytest.mark.parametrize("steps", ["", "0", "999999", "4.5", "-4", "four", "٤"])
def test_steps_that_cannot_be_are_not_believed(steps):
    assert steps_of({"steps": steps}) == 4 and steps_of({}) == 4
    assert steps_of({"steps": "8"}) == 8


@pytest.mark.parametrize(("width", "family"), [(768, "Stable Diffusion 1.x"), (48, "a small one")])
def test_metadata_name_the_family_where_the_layout_does_not(width, family):
    layout = AdapterLayout({number: (320, width) for number in range(1, 33, 2)}, extra_positive=True)
    assert family_of(layout, {"family": "a small one"}) == family
