"""What stops an artist is said in the language of the page, wherever it was found."""

import asyncio
import json
import pickle
import re
import struct

import folder_paths
import pytest
import sun_pack
import torch
from safetensors.torch import save
from sun_pack.nodes import adapter_folder, new_adapter_file
from sun_pack.nodes.adapters import SUNAdapterInfo
from sun_pack.sun_core.adapter import check_fit, load_adapter
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.layers import cross_attention_layers
from sun_pack.sun_core.training.config import TrainingConfig


def with_header(text, body=b""):
    return struct.pack("<Q", len(text)) + text + body


def header_of(start, end, **more):
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [start, end]}
    return json.dumps({"1.to_k_neg.weight": entry, **more}).encode()


BROKEN = {
    "empty": b"",
    "words": b"some words that are no header",
    "web page": b"<html>",
    "LFS": b"version https://git-lfs.github.com/spec/v1",
    "GGUF": b"GGUF\x03",
    "pickle": pickle.dumps([]),
    "zip": b"PK\x03\x04",
    "ends in its header": struct.pack("<Q", 1000) + b"{",
    "ends in its tensors": with_header(header_of(0, 400)),
    "header too long": with_header(b"{" + b" " * (17 * 2**20)),
    "no JSON": with_header(b"{"),
    "no JSON and no brace": with_header(b"words"),
    "no object": with_header(b"[]"),
    "metadata": with_header(header_of(0, 4, __metadata__={"steps": 4}), bytes(4)),
    "no tensor": with_header(b'{"a": 1}'),
    "overlap": with_header(header_of(4, 8), bytes(8)),
    "bytes behind": with_header(header_of(0, 4), bytes(8)),
    "no tensors": with_header(b"{}"),
    "a LoRA": save({"lora_unet.lora_up.weight": torch.zeros(2)}),
    "a VAE": save({"decoder.conv_in.weight": torch.zeros(2)}),
    "another key": save({"something": torch.zeros(2)}),
    "no matrix": save({"1.to_k_neg.weight": torch.zeros(2)}),
    "integers": save({"1.to_k_neg.weight": torch.zeros(2, 2, dtype=torch.int8)}),
    "a layer too few": save({"3.to_k_neg.weight": torch.zeros(2, 2)}),
}
"""Files that are not SUN adapters, by what is wrong with them."""


@pytest.fixture(params=["zh", "zh-TW", "ja"])
def language(request, tmp_path, monkeypatch):
    """The language of the page, as its settings file says."""
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    (tmp_path / "default").mkdir()
    settings = {"Comfy.Locale": request.param}
    (tmp_path / "default" / "comfy.settings.json").write_text(json.dumps(settings), encoding="utf-8")
    asyncio.run(sun_pack.comfy_entrypoint())
    return request.param


def said_by(provoke):
    with pytest.raises(SunError) as error:
        provoke()
    return str(error.value)


def test_a_missing_file_is_refused_in_it_before_and_during_a_run(language):
    said = {
        "zh": "还没有安装 SUN 适配器：",
        "zh-TW": "還沒有安裝 SUN 適配器：",
        "ja": "SUN アダプターがまだありません。",
    }
    released = adapter_folder.RELEASED_ADAPTER
    refusal = adapter_folder.validated(released)
    assert refusal.startswith(said[language])
    assert said_by(lambda: adapter_folder.adapter_named(released)) == refusal


def test_everything_about_a_broken_file_is_said_in_it(language, tmp_path):
    path = tmp_path / "file.safetensors"
    for kind, content in BROKEN.items():
        path.write_bytes(content)
        said = said_by(lambda: load_adapter(path))
        assert not re.search(r"\b(?!Git LFS)[A-Za-z]{2,} [A-Za-z]{2,}", said), f"{kind}: {said}"


def test_a_node_without_an_adapters_name_is_told_to_choose_one_in_it(language):
    said = {"zh": "没有选择 SUN 适配器", "zh-TW": "沒有選擇 SUN 適配器", "ja": "SUN アダプターが選ばれていません"}
    refusal = adapter_folder.validated("")
    assert refusal.startswith(said[language])
    assert said_by(lambda: adapter_folder.adapter_named("")) == refusal


def test_what_an_adapter_is_for_is_shown_in_it_and_given_on_in_english(language, adapter):
    output = SUNAdapterInfo.execute(adapter)
    first = {"zh": "模型家族：未知", "zh-TW": "模型家族：未知", "ja": "系列：不明"}[language]
    (shown,) = output.ui.as_dict()["text"]
    assert shown.startswith(f"{first}\n") and shown.count("\n") == output.args[0].count("\n")
    assert output.args[0].startswith("Family: unknown\n")


def test_an_adapter_that_does_not_fit_is_described_in_it(language, adapter, model):
    layers = cross_attention_layers(model.model.diffusion_model)[1:]
    said = said_by(lambda: check_fit(adapter, layers))
    described, difference = {
        "zh": (f"一种模型（{len(layers)} 个交叉注意力层，", "MODEL 没有第 1 层"),
        "zh-TW": (f"一種模型（{len(layers)} 個交叉注意力層，", "MODEL 沒有第 1 層"),
        "ja": (f"あるモデル（クロスアテンション {len(layers)} レイヤー、", "MODEL にレイヤー 1 がありません"),
    }[language]
    assert described in said and difference in said


def test_a_run_without_a_negative_prompt_ends_in_it(language, model, adapter, conditioning, sample):
    from comfy_extras.nodes_custom_sampler import BasicGuider
    from sun_pack.sun_core.apply import apply_sun
    from sun_pack.sun_core.settings import SunSettings

    sun = apply_sun(model, adapter, SunSettings())
    ((guider,),) = [BasicGuider.execute(sun, conditioning("pos0")).args]
    noise = sample(model)
    said = said_by(lambda: guider.sample(noise, noise, None, noise.new_tensor([1.0, 0.0])))
    starts = {"zh": "SUN 需要负面提示词", "zh-TW": "SUN 需要負面提示詞", "ja": "SUN にはネガティブプロンプト"}
    titles = {"zh": "“应用 SUN 适配器”", "zh-TW": "「套用 SUN 適配器」", "ja": "「SUN アダプターを適用」"}
    assert said.startswith(starts[language]) and titles[language] in said


def test_settings_of_a_training_are_refused_in_it(language):
    said = said_by(lambda: TrainingConfig().with_values({"steps": 0}))
    assert (
        said
        == {
            "zh": "训练设置 steps 是 0，应为不小于 1 的数。",
            "zh-TW": "訓練設定 steps 是 0，應為不小於 1 的數。",
            "ja": "学習の設定 steps が 0 です。1 以上にしてください。",
        }[language]
    )


def test_a_name_with_braces_is_refused_in_it(language):
    assert "'{steps}'" in said_by(lambda: new_adapter_file.new_adapter_file("{steps}"))


def test_a_name_that_is_too_long_is_not_told_a_number_of_letters(language):
    """The limit is in bytes, and each of these letters has three."""
    said = said_by(lambda: new_adapter_file.new_adapter_file("画" * 70))
    assert "画" * 20 in said and not any(letter.isdigit() for letter in said)
