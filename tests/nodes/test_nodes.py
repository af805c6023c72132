"""The nodes themselves: what they promise, and that they do what sun_core does."""

import asyncio
import os
import re
import shutil

import folder_paths
import pytest
import sun_pack
import torch
from comfy_api.latest import io
from sun_pack.nodes import adapter_folder, language
from sun_pack.nodes.adapter_folder import RELEASED_ADAPTER, adapter_named
from sun_pack.nodes.adapters import SUNAdapterInfo, SUNLoadAdapter
from sun_pack.nodes.apply import SUNApply, SUNSpeedUp
from sun_pack.nodes.negative import SUNNegative
from sun_pack.nodes.sample import SUNSampler, SUNScheduler
from sun_pack.sun_core.apply import NegativeSettings, SunSettings, apply_negative, apply_sun
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.nag import NagSettings

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


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, reference_folder):
    """The model folder `sun`, with the reference adapter as adapter.safetensors."""
    shutil.copy(reference_folder / "sun_adapter_fp16.safetensors", tmp_path / "adapter.safetensors")
    extensions = folder_paths.folder_names_and_paths["sun"][1]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "sun", ([str(tmp_path)], extensions))
    folder_paths.filename_list_cache.clear()
    return tmp_path


def node_list():
    async def nodes():
        return await (await sun_pack.comfy_entrypoint()).get_node_list()

    return asyncio.run(nodes())


def execute(node, node_id="7", **inputs):
    """A node's outputs, run as ComfyUI runs it (0.3.75 takes hidden inputs as they are, 0.33 under a key)."""
    hidden = {io.Hidden.unique_id: node_id}
    return node.PREPARE_CLASS_CLONE({**hidden, "hidden_inputs": hidden}).EXECUTE_NORMALIZED(**inputs).args


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


def test_speed_up_is_load_and_apply_in_one(model, sample):
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
def test_settings_decide_who_is_in_charge(model, sample, evaluations, settings, rows):
    (sun,) = execute(SUNSpeedUp, model=model, adapter_name="adapter.safetensors", strength=1.0, settings=settings)
    sample(sun, cfg=7.0, steps=2)
    assert evaluations == rows


def test_apply_takes_a_negative_of_its_own(model, adapter, sample, conditioning):
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
def test_negative_decides_who_sets_cfg(model, sample, evaluations, cfg, rows):
    (negative,) = execute(SUNNegative, model=model, **NEGATIVE_DEFAULTS, cfg=cfg)
    sample(negative, cfg=7.0, steps=2)
    assert evaluations == rows


def test_negative_hands_every_setting_on(model, sample, conditioning):
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
def sun_sample(conditioning):
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


def test_scheduler_gives_the_trailing_sigmas(model, reference):
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


def test_nodes_that_name_the_same_file_share_its_weights():
    adapter = adapter_named("adapter.safetensors")
    assert adapter_named("adapter.safetensors") is adapter
    del adapter


def test_replaced_file_is_loaded_anew_and_runs_the_node_again(folder):
    adapter, state = adapter_named("adapter.safetensors"), SUNLoadAdapter.fingerprint_inputs("adapter.safetensors")
    path = folder / "adapter.safetensors"
    assert SUNLoadAdapter.fingerprint_inputs("adapter.safetensors") == state
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert SUNLoadAdapter.fingerprint_inputs("adapter.safetensors") != state
    assert adapter_named("adapter.safetensors") is not adapter


def test_what_images_remember_of_a_file_holds_no_path(folder):
    for node in (SUNSpeedUp, SUNLoadAdapter):
        for name in ("adapter.safetensors", "gone.safetensors", None):
            assert re.fullmatch(r"[0-9a-f]{16}", node.fingerprint_inputs(adapter_name=name))


def test_widget_lists_safetensors_files_only(folder):
    for name in ("a.sft", "b.ckpt", "c.pt", "d.txt"):
        (folder / name).touch()
    folder_paths.filename_list_cache.clear()
    assert adapter_folder.adapter_names() == ["a.sft", "adapter.safetensors"]


def test_folder_named_in_extra_model_paths_is_kept(monkeypatch, tmp_path):
    """ComfyUI reads the yaml first and leaves its folders without extensions."""
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "sun", (["/from/yaml"], set()))
    adapter_folder.register_folder()
    paths, extensions = folder_paths.folder_names_and_paths["sun"]
    assert paths == ["/from/yaml", os.path.join(folder_paths.models_dir, "sun")]
    assert extensions == {".safetensors", ".sft"}


def test_file_that_is_there_is_valid():
    for node in (SUNSpeedUp, SUNLoadAdapter):
        assert node.validate_inputs(adapter_name="adapter.safetensors") is True


def test_name_that_comes_over_a_link_is_looked_at_when_the_node_runs():
    for node in (SUNSpeedUp, SUNLoadAdapter):
        assert node.validate_inputs() is True
    with pytest.raises(SunError, match=r"gone\.safetensors is no longer in"):
        adapter_named("gone.safetensors")


def test_file_that_is_gone_is_said_to_be_gone(folder):
    (folder / "other.safetensors").touch()
    (folder / "adapter.safetensors").unlink()
    folder_paths.filename_list_cache.clear()
    message = SUNSpeedUp.validate_inputs(adapter_name="adapter.safetensors")
    assert message == (
        f"The SUN adapter adapter.safetensors is no longer in {folder}; "
        "put it back, or choose another one (other.safetensors)."
    )


def test_empty_folder_names_the_released_adapter_and_where_to_put_it(folder):
    (folder / "adapter.safetensors").unlink()
    folder_paths.filename_list_cache.clear()
    assert SUNLoadAdapter.define_schema().inputs[0].options == [RELEASED_ADAPTER]
    for name in (RELEASED_ADAPTER, "adapter.safetensors"):
        message = SUNLoadAdapter.validate_inputs(adapter_name=name)
        for part in (RELEASED_ADAPTER, "76.8 MB, MIT", RELEASED["url"], str(folder)):
            assert part in message


@pytest.mark.parametrize("name", [3, True, {}, [], "x" * 10**6])
def test_name_that_cannot_be_a_files_is_named(name):
    for node in (SUNSpeedUp, SUNLoadAdapter):
        message = node.validate_inputs(adapter_name=name)
        assert message.endswith("cannot be the name of a SUN adapter; choose a file from the list.")
        assert len(message) < 200 and node.fingerprint_inputs(adapter_name=name)


def test_no_name_is_named_when_the_node_runs():
    with pytest.raises(SunError, match=r"No SUN adapter is chosen"):
        adapter_named(None)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "\0.safetensors", "\ud800.safetensors"])
def test_name_that_points_out_of_the_folder_is_not_followed(folder, name):
    shutil.copy(folder / "adapter.safetensors", folder.parent / "outside.safetensors")
    assert isinstance(SUNSpeedUp.validate_inputs(adapter_name=name), str)


@pytest.fixture
def told_by(monkeypatch, model):
    """Runs a function with the MODEL of a SUN node, 12, and returns the messages on the queue of ComfyUI's server."""
    from server import PromptServer

    def told_by(use):
        async def run():
            server = PromptServer.__new__(PromptServer)  # the whole server would want a frontend and a port
            server.loop, server.client_id, server.messages = asyncio.get_running_loop(), "page", asyncio.Queue()
            monkeypatch.setattr(PromptServer, "instance", server, raising=False)
            (sun,) = execute(
                SUNSpeedUp,
                node_id="12",
                model=model,
                adapter_name="adapter.safetensors",
                strength=1.0,
                settings="automatic",
            )
            use(sun)
            await asyncio.sleep(0)
            return [server.messages.get_nowait() for _ in range(server.messages.qsize())]

        return asyncio.run(run())

    return told_by


def test_what_a_run_did_is_told_in_the_log_and_on_the_node(told_by, sample, caplog):
    caplog.set_level("INFO")
    ((event, told, page),) = told_by(lambda sun: sample(sun, cfg=7.0, sampler="euler_ancestral"))
    assert (event, told["node"], page) == ("sun.run", "12", "page")
    assert told["changes"] == "CFG 7 -> 1, sampler euler_ancestral -> euler"
    assert told["findings"] == []
    assert told["text"].startswith("4 steps · 4 evaluations · ")
    assert told["text"].endswith(f" · automatic: {told['changes']}")
    assert f"SUN: {told['text']}" in caplog.text


def test_what_a_run_found_reaches_the_page_in_its_language(told_by, sample, monkeypatch):
    from comfy_extras.nodes_apg import APG

    monkeypatch.setattr(language, "page_language", lambda: "zh")
    ((_, told, _),) = told_by(lambda sun: sample(APG.execute(sun, 1.0, 5.0, 0.0).args[0], sampler="lcm"))
    assert told["findings"][0].startswith("APG 在 CFG 1 下不起作用") and "APG has no effect" in told["text"]
    assert told["changes"] == "采样器 lcm -> euler" and "sampler lcm -> euler" in told["text"]


def test_what_a_run_found_is_told_in_every_run_as_a_warning(told_by, sample, caplog):
    from comfy_extras.nodes_apg import APG

    def twice(sun):
        for _ in range(2):
            sample(APG.execute(sun, 1.0, 5.0, 0.0).args[0])

    for _, told, _ in (messages := told_by(twice)):
        (finding,) = told["findings"]
        assert finding.startswith("APG has no effect") and told["text"].endswith(finding)
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(messages) == len([message for message in warnings if message.startswith("SUN: 4 steps")]) == 2
