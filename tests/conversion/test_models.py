"""Which model is at the upper end of a MODEL line: told by names, and past nodes that hide it."""

import copy
from typing import Any

import pytest
from sun_pack.conversion.models import Adapter, Installed, Model, choose_adapter
from sun_pack.conversion.plan import convert, make_plan
from sun_pack.conversion.rules import distilled_by_name, family_by_name

from .compare import canonical
from .test_bad_input import node
from .test_corpus import load
from .test_pack_samplers import case

Json = dict[str, Any]
SD1, SD2, VIDEO, TRANSFORMER = "Stable Diffusion 1.x", "Stable Diffusion 2.x", "a video model", "a transformer model"


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("v1-5-pruned-emaonly-fp16.safetensors", SD1),
        ("sd15-photo-v2-0.safetensors", SD1),
        ("epicrealism-v2-1.safetensors", None),
        ("influxMix.safetensors", None),
        ("animaPencilXL_v500.safetensors", "SDXL"),
        ("animatedMix.safetensors", None),
        ("anima-preview.safetensors", "Anima"),
        ("cosmosAnime_v3.safetensors", None),
        ("mochi-mix.safetensors", None),
        ("humorMix.safetensors", None),
        ("v2-1_768-ema-pruned.safetensors", SD2),
        ("SD2/v2-1_512-ema-pruned.ckpt", SD2),
        ("512-inpainting-ema.safetensors", SD2),
        ("wd-1-5-beta2-fp16.safetensors", SD2),
        ("x4-upscaler-ema.safetensors", SD2),
        ("playground-v2.5-1024px-aesthetic.safetensors", "SDXL"),
        ("ponyDiffusionV6XL.safetensors", "SDXL"),
        ("flux1-dev-fp8.safetensors", "Flux"),
        ("svdq-int4-flux.1-dev.safetensors", "Flux"),
        ("Kolors-Inpainting.safetensors", "Kolors"),
        ("mochi_preview_bf16.safetensors", VIDEO),
        ("Cosmos-1_0-Diffusion-7B-Text2World.safetensors", VIDEO),
        ("wan-t2v-14b.safetensors", "Wan"),
        ("wan2.1_t2v_1.3B_fp16.safetensors", "Wan"),
        ("ltxvideo-2b.safetensors", "LTX-Video"),
        ("cogvideox-5b.safetensors", VIDEO),
        ("cosmos_predict2_2B_t2i.safetensors", "Cosmos-Predict2"),
        ("hunyuan_dit_1.2.safetensors", "Hunyuan-DiT"),
        ("PixArt-Sigma-XL-2-1024-MS.safetensors", "PixArt"),
        ("z_image_turbo_bf16.safetensors", "Z-Image"),
        ("ZImage.safetensors", "Z-Image"),
        ("sana_1600m.safetensors", TRANSFORMER),
        ("qwen_image_fp8.safetensors", "Qwen-Image"),
        ("Chroma1-HD.safetensors", "Chroma"),
        ("chroma-unlocked-v35.safetensors", "Chroma"),
        ("TurboVision.safetensors", None),
        ("zavychroma_v10.safetensors", None),
        ("zavychromaxl_v100.safetensors", "SDXL"),
        ("illumination_v2.safetensors", None),
        ("juggernautXL_v9.safetensors", "SDXL"),
        ("pixelArtDiffusion.safetensors", None),
        ("bloodFluxMix.safetensors", "Flux"),
        ("hidream_i1_dev.safetensors", "HiDream"),
        ("HunyuanVideo_720.safetensors", VIDEO),
        ("sd3.5_large.safetensors", "SD3"),
    ],
)
def test_file_name_tells_a_family_or_none(name: str, family: str | None) -> None:
    assert family_by_name((name,)) == family


@pytest.mark.parametrize(
    ("loader", "reason"),
    [
        ("NunchakuFluxDiTLoader", "its model is Flux"),
        ("MZ_KolorsUNETLoaderV2", "its model is Kolors"),
        ("UnetLoaderGGUFMultiGPU", "UnetLoaderGGUFMultiGPU rarely loads U-Nets"),
        ("DiffusersLoader", "DiffusersLoader rarely loads U-Nets"),
    ],
)
def test_loader_of_other_models_is_known_by_its_type(loader: str, reason: str) -> None:
    workflow = load("api_text_to_image")
    number = next(key for key, node in workflow.items() if node["class_type"] == "CheckpointLoaderSimple")
    workflow[number] = {"class_type": loader, "inputs": {"model_path": "my-model"}}
    assert reason in make_plan("speed_up", workflow).detail


def behind(workflow: Json, node: Json, number: str = "900") -> Json:
    """Let the samplers of an API graph take their MODEL from another node."""
    workflow = copy.deepcopy(workflow)
    for other in workflow.values():
        if "Sampler" in other["class_type"]:
            other["inputs"]["model"] = [number, 0]
    return {**workflow, number: node}


HIDDEN = [
    {"class_type": "FromBasicPipe", "inputs": {"basic_pipe": ["901", 0]}},
    {"class_type": "Any Switch (rgthree)", "inputs": {"any_01": ["902", 0]}},
    {"class_type": "EditBasicPipe", "inputs": {"basic_pipe": ["901", 0], "positive": ["2", 0]}},
]


@pytest.mark.parametrize("node", HIDDEN, ids=lambda node: node["class_type"])
@pytest.mark.parametrize(("file", "made"), [("flux1-dev-fp8.safetensors", 0), ("dreamshaper_8.safetensors", 1)])
def test_model_in_a_pipe_or_behind_a_switch_is_found(node: Json, file: str, made: int) -> None:
    workflow = behind(load("api_text_to_image"), node) | {
        "901": {"class_type": "ToBasicPipe", "inputs": {"model": ["902", 0]}},
        "902": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": file}},
    }
    plan = make_plan("speed_up", workflow)
    assert [edit["op"] for edit in plan.edits].count("add") == made
    assert made or "its model is Flux" in plan.detail


@pytest.mark.parametrize("name", ["D1_context_chain", "D2_bus_chain"])
@pytest.mark.parametrize(("file", "made"), [("flux1-dev-fp8.safetensors", 0), ("dreamshaper_8.safetensors", 2)])
def test_model_in_a_chain_of_contexts_is_found(name: str, file: str, made: int) -> None:
    workflow = case(name)
    workflow["nodes"][0]["widgets_values"] = [file]
    converted, plan = convert("speed_up", workflow)
    assert [edit["op"] for edit in plan.edits].count("add") == made
    assert made or plan.detail.count("its model is Flux") == 2
    assert canonical(convert("restore", converted)[0]) == canonical(workflow)


@pytest.mark.parametrize("name", ["base_ctx", "ctx_01", "bus", "context"])
def test_context_of_an_api_graph_is_followed(name: str) -> None:
    node = {"class_type": "Context (rgthree)", "inputs": {name: ["901", 0]}}
    workflow = behind(load("api_text_to_image"), node) | {
        "901": {"class_type": "Context (rgthree)", "inputs": {"model": ["902", 0]}},
        "902": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "dreamshaper_8.safetensors"}},
    }
    assert make_plan("speed_up", workflow).edits


def test_file_that_another_node_names_is_found() -> None:
    node = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": ["903", 0]}}
    named = behind(load("api_text_to_image"), node)
    named["903"] = {"class_type": "PrimitiveString", "inputs": {"value": "sd3.5_large.safetensors"}}
    assert "its model is SD3" in make_plan("speed_up", named).detail


def test_unknown_model_is_left_alone() -> None:
    node = {"class_type": "ModelOutOfNowhere", "inputs": {"settings": ["1", 0]}}
    plan = make_plan("speed_up", behind(load("api_text_to_image"), node))
    assert plan.edits == [] and "SUN cannot tell which model ModelOutOfNowhere (#900) gives" in plan.detail


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("exampleVision_v51HyperVAE.safetensors", "Hyper-SD"),
        ("Example_X_RunDiffusion_Hyper.safetensors", "Hyper-SD"),
        ("sd15_example_hyper.safetensors", "Hyper-SD"),
        ("hyper_4step.safetensors", "Hyper-SD"),
        ("Hyper_Realism_V3.safetensors", None),
        ("hyperrealism_v12.safetensors", None),
        ("dreamshaper_8LCM.safetensors", "LCM"),
        ("DreamShaper8_LCM.safetensors", "LCM"),
        ("falcmix.safetensors", None),
        ("dreamshaperXL_lightningDPMSDE.safetensors", "Lightning"),
        ("sd_xl_turbo_1.0_fp16.safetensors", "Turbo"),
        ("TurboVision.safetensors", "Turbo"),
        ("perflow-sd15-dreamshaper.safetensors", "PeRFlow"),
        ("instaflow_0_9B.safetensors", "InstaFlow"),
        ("InstaFlow09B.safetensors", "InstaFlow"),
        ("flash-sd.safetensors", "Flash Diffusion"),
        ("flashback_v1.safetensors", None),
        ("Nitro-SD-realism.safetensors", "Nitro"),
        ("nitrogen_mix.safetensors", None),
        ("sdxs-512-0.9.safetensors", "SDXS"),
        ("dmd2_sdxl_4step_unet.safetensors", "DMD"),
        ("v1-5-pruned-emaonly-fp16.safetensors", None),
        ("epicrealism_naturalSinRC1VAE.safetensors", None),
    ],
)
def test_checkpoint_s_name_tells_a_few_step_method_or_none(name: str, method: str | None) -> None:
    found = distilled_by_name((name,))
    assert (found.method if found else None) == method


@pytest.mark.parametrize("name", ["C1_hyper_checkpoint", "C2_hyper_checkpoint", "C3_hyper_checkpoint"])
def test_few_step_checkpoint_is_left_alone(name: str) -> None:
    plan = make_plan("speed_up", case(name))
    assert plan.edits == [] and "already a few-step one (Hyper-SD)" in plan.detail


def with_lora(name: str, **settings: Any) -> Json:
    workflow = case("N_style_lora_called_lightning")
    workflow["L"]["inputs"]["lora_name"] = f"{name}.safetensors"
    workflow["5"]["inputs"] |= settings
    return workflow


@pytest.mark.parametrize("name", ["lightning_bolts_style", "turbo_charged_cars", "cute_lcm", "hyper", "add_detail"])
def test_style_that_is_called_like_a_method_is_sped_up(name: str) -> None:
    assert make_plan("speed_up", with_lora(name, steps=20, cfg=7.0)).edits


@pytest.mark.parametrize(
    "name",
    [
        "lcm-lora-sdv1-5",
        "LCM_LoRA_Weights_SD15",
        "Hyper-SD15-8steps-CFG-lora",
        "sdxl_lightning_4step_lora",
        "SDXL-TCD-LoRA",
        "sd_xl_turbo_lora_v1",
        "pcm_sd15_smallcfg_4step_converted",
        "dmd2_sdxl_4step_lora",
        "folder/lcm/sd1.5/pytorch_lora_weights",
    ],
)
def test_few_step_lora_is_known_by_two_signs_in_its_name(name: str) -> None:
    plan = make_plan("speed_up", with_lora(name, steps=20, cfg=7.0))
    assert plan.edits == [] and "already makes its model a few-step one" in plan.detail


@pytest.mark.parametrize(
    "settings", [{"steps": 8, "cfg": 1.5}, {"steps": 20, "cfg": 7.0, "sampler_name": "lcm"}], ids=["short", "lcm"]
)
def test_few_step_lora_is_known_by_one_sign_and_the_sampler_s_settings(settings: Json) -> None:
    assert make_plan("speed_up", with_lora("lightning", **settings)).edits == []
    assert make_plan("speed_up", with_lora("add_detail", **settings)).edits


@pytest.mark.parametrize(
    ("model", "adapter", "is_chosen"),
    [
        (Model(), Adapter("a", SD1, layout=1), True),
        (Model(), Adapter("a"), True),
        (Model(layout=1), Adapter("a", SD1, layout=2), False),
        (Model(family=SD1), Adapter("a", SD2), False),
        (Model(family=SD1), Adapter("a"), True),
        (Model(family=SD1), Adapter("a", layout=1), False),  # it is of no family that SUN knows
    ],
)
def test_adapter_that_may_fit_is_chosen_and_one_that_does_not_is_not(
    model: Model, adapter: Adapter, is_chosen: bool
) -> None:
    choice = choose_adapter(model, Installed([adapter]))
    assert (choice.name == adapter.name) == is_chosen
    assert not is_chosen or "The run will show whether a fits" in choice.note


def switched(node_type: str, inputs: Json, **values: Any) -> Json:
    """An API graph whose sampler takes its MODEL from a switch between SD1.5 (901) and Flux (902)."""
    node = {"class_type": node_type, "inputs": {**inputs, **values}}
    files = {"901": "dreamshaper_8.safetensors", "902": "flux1-dev.safetensors"}
    loaders = {key: {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": files[key]}} for key in files}
    return behind(load("api_text_to_image"), node) | loaders


SD15, FLUX = ["901", 0], ["902", 0]


@pytest.mark.parametrize(
    ("node_type", "inputs", "values"),
    [
        ("ComfySwitchNode", {"on_true": SD15, "on_false": FLUX}, {"switch": True}),
        ("ComfySwitchNode", {"on_true": FLUX, "on_false": SD15}, {"switch": False}),
        ("CR Model Input Switch", {"model1": FLUX, "model2": SD15}, {"Input": 2}),
        ("ImpactSwitch", {"input1": FLUX, "input2": SD15}, {"select": 2}),
        ("Any Switch (rgthree)", {"any_01": SD15, "any_02": FLUX}, {}),
    ],
)
def test_switch_is_judged_by_the_branch_that_it_chooses(node_type: str, inputs: Json, values: Json) -> None:
    assert make_plan("speed_up", switched(node_type, inputs, **values)).edits
    swapped = {name: FLUX if source == SD15 else SD15 for name, source in inputs.items()}
    assert "its model is Flux" in make_plan("speed_up", switched(node_type, swapped, **values)).detail


def test_any_switch_passes_an_input_whose_node_does_not_run() -> None:
    workflow = load("model_merge")
    node(workflow, "ModelMergeSimple")["type"] = "Any Switch (rgthree)"
    node(workflow, "CheckpointLoaderSimple")["mode"] = 2
    assert make_plan("speed_up", workflow).edits


def test_switch_that_another_node_drives_is_left_alone() -> None:
    plan = make_plan("speed_up", switched("ComfySwitchNode", {"on_true": SD15, "on_false": FLUX}, switch=["903", 0]))
    assert plan.edits == [] and "SUN cannot tell which model ComfySwitchNode (#900) gives" in plan.detail


def animated(motion_module: str, checkpoint: str) -> Json:
    node = {"class_type": "ADE_AnimateDiffLoaderGen1", "inputs": {"model": ["901", 0], "model_name": motion_module}}
    loader = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}}
    return behind(load("api_text_to_image"), node) | {"901": loader}


def test_animatediff_evolved_on_sd15_is_sped_up() -> None:
    converted, plan = convert("speed_up", animated("mm_sd_v15_v2.ckpt", "dreamshaper_8.safetensors"))
    assert plan.edits
    assert convert("restore", converted)[0] == animated("mm_sd_v15_v2.ckpt", "dreamshaper_8.safetensors")


@pytest.mark.parametrize(
    ("motion_module", "checkpoint", "reason"),
    [
        ("AnimateLCM_sd15_t2v.ckpt", "dreamshaper_8.safetensors", "already makes its model a few-step one (LCM)"),
        ("animatediff_lightning_4step_comfyui.safetensors", "dreamshaper_8.safetensors", "few-step one (Lightning)"),
        ("mm_sdxl_v10_beta.ckpt", "sd_xl_base_1.0.safetensors", "no adapter for SDXL is installed"),
    ],
)
def test_animatediff_that_sun_cannot_speed_up_is_explained(motion_module: str, checkpoint: str, reason: str) -> None:
    plan = make_plan("speed_up", animated(motion_module, checkpoint))
    assert plan.edits == [] and reason in plan.detail
