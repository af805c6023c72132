"""The nodes themselves: what they promise, and that they do what sun_core does."""

import asyncio

import pytest
import sun_pack
import torch
from sun_pack.nodes.adapters import SUNAdapterInfo, SUNLoadAdapter
from sun_pack.nodes.apply import SUNApply, SUNSpeedUp
from sun_pack.nodes.negative import SUNNegative
from sun_pack.nodes.sample import SUNSampler, SUNScheduler
from sun_pack.sun_core.apply import apply_negative, apply_sun
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.nag import NagSettings
from sun_pack.sun_core.settings import NegativeSettings, SunSettings

pytestmark = pytest.mark.usefixtures("folder")

PROMISED_INPUTS = {
    "SUNSpeedUp": ["model", "adapter_name", "strength", "settings"],
    "SUNLoadAdapter": ["adapter_name"],
    "SUNApply": [
        "model",
        "sun_adapter",
        "negative_strength",
        "positive_strength",
        "start_percent",
        "end_percent",
        "settings",
        "negative",
    ],
    "SUNSampler": ["model", "seed", "steps", "sampler_name", "positive", "negative", "latent_image", "denoise"],
    "SUNScheduler": ["model", "steps", "denoise"],
    "SUNAdapterInfo": ["sun_adapter"],
    "SUNTrain": [
        "model",
        "clip",
        "prompts",
        "negatives",
        "steps",
        "batch_size",
        "grad_accumulation_steps",
        "learning_rate",
        "guidance",
        "segments",
        "width",
        "height",
        "gradient_checkpointing",
        "preview_every",
        "seed",
        "vae",
        "images",
        "latents",
        "sun_adapter",
    ],
    "SUNSaveAdapter": ["sun_adapter", "filename_prefix"],
    "SUNNegative": ["model", "scale", "tau", "alpha", "start_percent", "end_percent", "cfg", "negative"],
}
PROMISED_OUTPUTS = {
    "SUNSpeedUp": ["MODEL"],
    "SUNLoadAdapter": ["SUN_ADAPTER"],
    "SUNApply": ["MODEL"],
    "SUNSampler": ["LATENT"],
    "SUNScheduler": ["SIGMAS"],
    "SUNAdapterInfo": ["STRING"],
    "SUNTrain": ["SUN_ADAPTER", "IMAGE"],
    "SUNSaveAdapter": [],
    "SUNNegative": ["MODEL"],
}


def node_list():
    async def nodes():
        return await (await sun_pack.comfy_entrypoint()).get_node_list()

    return asyncio.run(nodes())


@pytest.mark.parametrize("node", node_list(), ids=lambda node: node.GET_SCHEMA().node_id)
def test_ids_inputs_and_their_order_are_a_promise(node):
    schema = node.GET_SCHEMA()
    assert [i.id for i in schema.inputs] == PROMISED_INPUTS[schema.node_id]
    assert [o.get_io_type() for o in schema.outputs] == PROMISED_OUTPUTS[schema.node_id]


def test_all_promised_nodes_are_there():
    assert {node.GET_SCHEMA().node_id for node in node_list()} >= PROMISED_INPUTS.keys()


@pytest.mark.parametrize("node", node_list(), ids=lambda node: node.GET_SCHEMA().node_id)
def test_everything_is_explained(node):
    schema = node.GET_SCHEMA()
    assert schema.category == "SUN" and schema.description and schema.display_name
    assert all(part.tooltip for part in [*schema.inputs, *schema.outputs])
    if hasattr(schema, "search_aliases"):
        assert "SpeedUpNet" in schema.search_aliases


def test_widgets_have_the_promised_defaults():
    defaults = {
        (node.GET_SCHEMA().node_id, i.id): i.default
        for node in node_list()
        for i in node.GET_SCHEMA().inputs
        if getattr(i, "default", None) is not None
    }
    assert (
        defaults.items()
        >= {
            ("SUNSpeedUp", "strength"): 1.0,
            ("SUNSpeedUp", "settings"): "automatic",
            ("SUNApply", "negative_strength"): 1.0,
            ("SUNApply", "positive_strength"): 1.0,
            ("SUNApply", "start_percent"): 0.0,
            ("SUNApply", "end_percent"): 1.0,
            ("SUNApply", "settings"): "automatic",
            ("SUNSampler", "steps"): 4,
            ("SUNSampler", "sampler_name"): "ddim",
            ("SUNSampler", "denoise"): 1.0,
            ("SUNScheduler", "steps"): 4,
            ("SUNScheduler", "denoise"): 1.0,
            ("SUNNegative", "scale"): 3.0,
            ("SUNNegative", "tau"): 5.0,
            ("SUNNegative", "alpha"): 0.5,
            ("SUNNegative", "start_percent"): 0.0,
            ("SUNNegative", "end_percent"): 1.0,
            ("SUNNegative", "cfg"): "automatic",
        }.items()
    )


def test_speed_up_is_load_and_apply_in_one(execute, model, sample):
    (sped_up,) = execute(
        SUNSpeedUp, model=model, adapter_name="adapter.safetensors", strength=0.8, settings="automatic"
    )
    (adapter,) = execute(SUNLoadAdapter, adapter_name="adapter.safetensors")
    (applied,) = execute(
        SUNApply,
        model=model,
        sun_adapter=adapter,
        negative_strength=0.8,
        positive_strength=0.8,
        start_percent=0.0,
        end_percent=1.0,
        settings="automatic",
    )
    assert torch.equal(sample(sped_up, cfg=7.0), sample(applied, cfg=7.0))


@pytest.mark.parametrize(("settings", "rows"), [("automatic", [1, 1]), ("from sampler", [2, 2])])
def test_settings_decide_who_is_in_charge(execute, model, sample, evaluations, settings, rows):
    (sun,) = execute(SUNSpeedUp, model=model, adapter_name="adapter.safetensors", strength=1.0, settings=settings)
    sample(sun, cfg=7.0, steps=2)
    assert evaluations == rows


def test_apply_takes_a_negative_of_its_own(execute, model, adapter, sample, conditioning):
    settings = {"negative_strength": 1.0, "positive_strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    (applied,) = execute(
        SUNApply,
        model=model,
        sun_adapter=adapter,
        **settings,
        settings="automatic",
        negative=conditioning("neg1"),
    )
    expected = apply_sun(model, adapter, SunSettings(), negative=conditioning("neg1"))
    assert torch.equal(sample(applied), sample(expected))


NEGATIVE_DEFAULTS = {"scale": 3.0, "tau": 5.0, "alpha": 0.5, "start_percent": 0.0, "end_percent": 1.0}


@pytest.mark.parametrize(("cfg", "rows"), [("automatic", [1, 1]), ("from sampler", [2, 2])])
def test_negative_decides_who_sets_cfg(execute, model, sample, evaluations, cfg, rows):
    (negative,) = execute(SUNNegative, model=model, **NEGATIVE_DEFAULTS, cfg=cfg)
    sample(negative, cfg=7.0, steps=2)
    assert evaluations == rows


def test_negative_hands_every_setting_on(execute, model, sample, conditioning):
    inputs = {"scale": 4.0, "tau": 2.0, "alpha": 0.3, "start_percent": 0.1, "end_percent": 0.9}
    (negative,) = execute(SUNNegative, model=model, **inputs, cfg="automatic", negative=conditioning("neg1"))
    settings = NegativeSettings(NagSettings(4.0, 2.0, 0.3), 0.1, 0.9)
    assert torch.equal(sample(negative), sample(apply_negative(model, settings, conditioning("neg1"))))


def test_search_for_speed_up_finds_the_speed_up_alone():
    """ComfyUI searches titles and aliases, and the first to fit is the first in the list."""
    for words in ("speed up", "faster", "4 steps"):
        found = [
            schema.node_id
            for schema in (node.GET_SCHEMA() for node in node_list())
            if any(words in name.lower() for name in (*getattr(schema, "search_aliases", ()), schema.display_name))
        ]
        assert "SUNNegative" not in found


@pytest.fixture
def sun_sample(execute, conditioning):
    def sun_sample(model, **options):
        inputs = {
            "seed": 0,
            "steps": 4,
            "sampler_name": "ddim",
            "positive": conditioning("pos0"),
            "negative": conditioning("neg0"),
            "latent_image": {"samples": torch.zeros(1, 4, 16, 16)},
            "denoise": 1.0,
        }
        return execute(SUNSampler, model=model, **inputs | options)[0]

    return sun_sample


@pytest.mark.parametrize("automatic", [True, False])
@pytest.mark.parametrize("sampler_name", ["ddim", "dpmpp_2m"])
def test_sampler_does_the_same_whatever_the_settings_say(
    model, adapter, sample, sun_sample, evaluations, automatic, sampler_name
):
    sun = apply_sun(model, adapter, SunSettings(automatic=automatic))
    out = sun_sample(sun, sampler_name=sampler_name)["samples"]
    assert evaluations == [1, 1, 1, 1]
    assert torch.equal(out, sample(sun, sampler=sampler_name, scheduler="simple"))


def test_sampler_needs_a_model_with_sun(model, sun_sample):
    with pytest.raises(SunError, match="This MODEL has no SUN adapter"):
        sun_sample(model)


def test_sampler_with_less_denoise_starts_from_the_picture(model, adapter, sample, sun_sample, reference):
    sun = apply_sun(model, adapter, SunSettings())
    latent = reference.io["in.latent1"]
    out = sun_sample(sun, latent_image={"samples": latent, "batch_index": [0]}, denoise=0.5)
    assert torch.equal(out["samples"], sample(sun, denoise=0.5, latent=latent))
    assert out["batch_index"] == [0], "what else the latent says goes on with it"


def test_scheduler_gives_the_trailing_sigmas(execute, model, reference):
    (sigmas,) = execute(SUNScheduler, model=model, steps=4, denoise=1.0)
    assert sigmas.tolist() == pytest.approx([*reference.scheduler["sigmas_comfy"], 0.0], rel=1e-6)


def test_info_says_what_an_adapter_is_for(adapter):
    output = SUNAdapterInfo.execute(adapter)
    (text,) = output.args
    assert "Cross-attention layers: 16, text width 48" in text
    assert "Extra positive branch: yes" in text
    assert "Parameters: 169,344 (float16)" in text
    assert f"source: {adapter.metadata['source']}" in text
    assert output.ui.as_dict() == {"text": (text,)}


def test_info_shows_at_most_4_kb_of_what_a_file_says(adapter):
    talkative = adapter.copy()
    talkative.metadata = {"family": "x" * 10**6} | {f"{number} {'y' * 1000}": "z" * 10**5 for number in range(100)}
    (text,) = SUNAdapterInfo.execute(talkative).args
    assert 3000 < len(text) < 5000 and "more entries are in the file." in text
