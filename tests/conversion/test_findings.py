"""What SUN nodes show on their faces, and what Fix does about it."""

from typing import Any

from sun_pack.conversion.check import check
from sun_pack.conversion.models import Adapter, Installed, ModelFile
from sun_pack.conversion.plan import convert, make_plan, read

from .test_bad_input import node
from .test_corpus import load

Json = dict[str, Any]
SD15 = Adapter("sun_sd15.safetensors", "Stable Diffusion 1.x", ((1, (320, 768)),), 16, 4, 76_800_000)
SDXL = Adapter("sun_sdxl.safetensors", "SDXL", ((1, (640, 2048)),), 70, 4, 300_000_000)
BROKEN = Adapter("lora.safetensors", error="lora.safetensors is a LoRA, not a SUN adapter.")


def here(*adapters: Adapter, default: str | None = None) -> Installed:
    """Make a machine with these adapters. Its model files are of SD1.5 unless their name tells another family."""

    def model_file(names: Any) -> ModelFile | None:
        name = next(iter(names), "")
        if "xl" in name:
            return ModelFile(name, "SDXL", SDXL.layout)
        if "flux" in name:
            return ModelFile(name, "Flux or a relative of it")
        return ModelFile(name, "Stable Diffusion 1.x", SD15.layout)

    return Installed(adapters, default, model_file)


def sped_up(adapter: str = SD15.name, settings: str = "automatic", sampler: list[Any] | None = None) -> Json:
    workflow = load("text_to_image.expected")
    node(workflow, "SUNSpeedUp")["widgets_values"] = [adapter, 1.0, settings]
    if sampler:
        node(workflow, "KSampler")["widgets_values"] = sampler
    return workflow


def entry(workflow: Json, installed: Installed) -> Json:
    (only,) = check(read(workflow), installed)
    return only


def test_face_shows_the_adapter_the_model_and_the_run_to_come() -> None:
    sampler = [42, "fixed", 4, 7.0, "euler_ancestral", "karras", 1.0]
    found = entry(sped_up(sampler=sampler), here(SD15))
    assert found["face"] == [
        "Stable Diffusion 1.x · 16 layers · 4 steps · 76.8 MB",
        "fits v1-5-pruned-emaonly-fp16.safetensors",
        "KSampler (#5): 4 steps, automatic: CFG 7 -> 1, euler_ancestral -> euler, karras -> trailing",
    ]
    assert found["badge"] is None, "what automatic settings put right is no warning"


def test_face_leaves_it_open_whether_an_adapter_of_which_nothing_is_known_fits() -> None:
    face = entry(sped_up("mine.safetensors"), here(Adapter("mine.safetensors")))["face"]
    assert face[1] == "the run will show whether it fits v1-5-pruned-emaonly-fp16.safetensors"


def test_node_at_strength_0_says_that_it_is_off_and_foretells_no_run() -> None:
    workflow = sped_up(sampler=[42, "fixed", 25, 7.0, "euler", "karras", 1.0])
    node(workflow, "SUNSpeedUp")["widgets_values"][1] = 0
    found = entry(workflow, here(SD15))
    assert found["face"] == ["Stable Diffusion 1.x · 16 layers · 4 steps · 76.8 MB", "turned off by its own settings"]
    assert found["badge"] is None


def test_steps_that_are_far_from_the_adapters_are_said_to_be_too_many_or_too_few() -> None:
    for steps, text, said in (
        (30, "30 steps", "KSampler (#5) is set to 30 steps, and the adapter is made for 4; more only take longer."),
        (1, "1 step", "KSampler (#5) has too few steps (1) for the adapter, which is made for 4."),
    ):
        badge = entry(sped_up(sampler=[42, "fixed", steps, 1.0, "euler", "simple", 1.0]), here(SD15))["badge"]
        assert (badge["text"], badge["detail"]) == (text, f"{said} Set 4.") and badge["fix"]


def test_apply_node_without_an_adapter_says_so() -> None:
    workflow = load("api_text_to_image")
    workflow["8"] = {"class_type": "SUNApply", "inputs": {"model": ["1", 0], "negative_strength": 1.0}}
    workflow["5"]["inputs"] |= {"model": ["8", 0], "steps": 4, "cfg": 1.0}
    assert "no SUN adapter is connected" in entry(workflow, here(SD15))["face"]
    workflow["8"]["inputs"]["sun_adapter"] = ["9", 0]
    workflow["9"] = {"class_type": "SUNLoadAdapter", "inputs": {"adapter_name": SD15.name}}
    (face,) = (found["face"] for found in check(read(workflow), here(SD15)) if found["node"] == "8")
    assert "no SUN adapter is connected" not in face


def test_a_node_without_an_adapters_name_is_told_to_choose_one() -> None:
    detail = entry(sped_up(adapter=""), here(SD15))["badge"]["detail"]
    assert detail == "No SUN adapter is chosen; choose a file from the list."


def test_sun_sampler_shows_which_adapter_it_uses() -> None:
    workflow = load("sun_sampler_without_sun.expected")
    (sun,) = (one for one in workflow["nodes"] if one["type"] == "SUNSpeedUp")
    sun["widgets_values"][0] = SD15.name
    faces = {found["node"]: found["face"] for found in check(read(workflow), here(SD15))}
    assert faces[node(workflow, "SUNSampler")["id"]] == ["Stable Diffusion 1.x · 16 layers · 4 steps · 76.8 MB"]


def test_samplers_of_the_same_checkpoint_without_sun_are_named_to_compare_with() -> None:
    workflow = load("two_samplers_on_one_line")
    first, second = (entry for entry in workflow["nodes"] if entry["type"] == "KSampler")
    half, _ = convert("speed_up", workflow, [{"graph": None, "node": second["id"]}], here(SD15))
    assert entry(half, here(SD15))["plain"] == [
        {"graph": None, "node": first["id"], "label": f"KSampler (#{first['id']})"}
    ]
    whole, _ = convert("speed_up", workflow, None, here(SD15))
    assert [found["plain"] for found in check(read(whole), here(SD15))] == [[]]


def test_without_an_adapter_the_badge_names_the_released_one() -> None:
    badge = entry(sped_up("sun_adapter_sdv15_4step_addpos.safetensors"), here())["badge"]
    for what in ("76.8 MB", "MIT", "models/sun", "https://huggingface.co/Williechai/SpeedUpNet"):
        assert what in badge["detail"]
    assert badge["fix"] is False


def test_adapter_of_another_family_is_replaced_by_one_that_fits() -> None:
    workflow = sped_up(SDXL.name)
    badge = entry(workflow, here(SDXL, SD15))["badge"]
    assert badge["text"] == "other family" and badge["fix"]
    fixed, _ = convert("fix", workflow, None, here(SDXL, SD15))
    assert node(fixed, "SUNSpeedUp")["widgets_values"][0] == SD15.name
    assert entry(fixed, here(SDXL, SD15))["badge"] is None


def test_adapter_of_another_family_stays_if_none_fits() -> None:
    badge = entry(sped_up(SDXL.name), here(SDXL))["badge"]
    assert badge["text"] == "other family" and not badge["fix"]


def test_unusable_adapter_is_explained_by_its_own_error() -> None:
    badge = entry(sped_up(BROKEN.name), here(BROKEN, SD15))["badge"]
    assert badge == {"text": "adapter unusable", "detail": BROKEN.error, "fix": True}


def test_too_many_steps_are_set_to_the_adapters_steps() -> None:
    workflow = sped_up(sampler=[42, "fixed", 25, 1.0, "ddim", "simple", 1.0])
    assert entry(workflow, here(SD15))["badge"]["text"] == "25 steps"
    fixed, _ = convert("fix", workflow, None, here(SD15))
    assert node(fixed, "KSampler")["widgets_values"][2] == 4
    assert entry(fixed, here(SD15))["badge"] is None


def test_twice_the_adapters_steps_are_no_warning() -> None:
    workflow = sped_up(sampler=[42, "fixed", 8, 1.0, "ddim", "simple", 1.0])
    assert entry(workflow, here(SD15))["badge"] is None


def test_settings_from_the_sampler_need_cfg_1_a_deterministic_sampler_and_an_even_scheduler() -> None:
    workflow = sped_up(settings="from sampler", sampler=[42, "fixed", 4, 7.0, "euler_ancestral", "karras", 1.0])
    badge = entry(workflow, here(SD15))["badge"]
    assert badge["text"] == "CFG 7 (and 2 more)" and badge["fix"]
    assert "is set to CFG 7, sampler euler_ancestral and scheduler karras, and" in badge["detail"]
    fixed, _ = convert("fix", workflow, None, here(SD15))
    assert node(fixed, "KSampler")["widgets_values"][2:6] == [4, 1.0, "ddim", "simple"]
    assert entry(fixed, here(SD15))["badge"] is None


def test_scheduler_alone_can_be_wrong_with_settings_from_the_sampler() -> None:
    workflow = sped_up(settings="from sampler", sampler=[42, "fixed", 4, 1.0, "ddim", "exponential", 1.0])
    assert entry(workflow, here(SD15))["badge"]["text"] == "scheduler exponential"
    node(workflow, "KSampler")["widgets_values"][5] = "normal"
    assert entry(workflow, here(SD15))["badge"] is None


def test_cfg_and_sampler_that_other_nodes_give_are_not_judged_with_settings_from_the_sampler() -> None:
    workflow = below_sun("v1-5-pruned.safetensors", "style.safetensors")
    workflow["8"]["inputs"]["settings"] = "from sampler"
    workflow["5"]["inputs"] |= {"cfg": ["20", 0], "sampler_name": ["20", 1], "scheduler": "exponential"}
    assert entry(workflow, here(SD15))["badge"]["text"] == "scheduler exponential"


def test_adapter_loader_names_an_adapter_that_is_not_here() -> None:
    workflow = load("api_text_to_image")
    workflow["9"] = {"class_type": "SUNLoadAdapter", "inputs": {"adapter_name": "mine.safetensors"}}
    badge = entry(workflow, here(SD15))["badge"]
    assert badge["text"] == "adapter missing" and badge["detail"].startswith("mine.safetensors is not in models/sun")


def test_fix_sets_the_primitive_that_drives_the_steps() -> None:
    workflow, _ = convert("speed_up", load("primitives_drive_steps_and_cfg"), None, here(SD15))
    steps = next(one for one in workflow["nodes"] if one.get("title") == "steps")
    steps["widgets_values"][0] = 30
    fixed, plan = convert("fix", workflow, None, here(SD15))
    assert [edit["op"] for edit in plan.edits] == ["set"]
    assert next(one for one in fixed["nodes"] if one.get("title") == "steps")["widgets_values"][0] == 4


def test_sun_sampler_without_sun_gets_it() -> None:
    workflow = load("sun_sampler_without_sun")
    assert entry(workflow, here(SD15))["badge"] == {
        "text": "no SUN",
        "detail": "This sampler needs a MODEL with SUN: put SUN 4-Step Speed-Up or Apply SUN Adapter before it.",
        "fix": True,
    }
    fixed, _ = convert("fix", workflow, None, here(SD15))
    assert node(fixed, "SUNSpeedUp")["widgets_values"][0] == SD15.name


def test_sun_on_flux_says_so() -> None:
    workflow = sped_up()
    node(workflow, "CheckpointLoaderSimple")["widgets_values"] = ["flux1-dev-fp8.safetensors"]
    badge = entry(workflow, here(SD15))["badge"]
    assert "Flux" in badge["detail"] and not badge["fix"]


def test_bypassed_sun_node_is_not_doubled() -> None:
    workflow, _ = convert("speed_up", load("text_to_image"), None, here(SD15))
    node(workflow, "SUNSpeedUp")["mode"] = 4
    plan = make_plan("speed_up", workflow, None, here(SD15))
    assert plan.edits == [] and "bypassed" in plan.detail


def test_face_says_that_no_sampler_is_connected() -> None:
    def face(workflow: dict[str, Any]) -> list[str]:
        return next(entry["face"] for entry in check(read(workflow), here(SD15)) if entry["node"] in ("9", 9))

    workflow = convert("speed_up", load("api_text_to_image"), None, here(SD15))[0]
    sun = next(number for number, entry in workflow.items() if entry["class_type"] == "SUNSpeedUp")
    workflow["9"] = workflow.pop(sun)
    sampler = next(entry for entry in workflow.values() if entry["class_type"] == "KSampler")
    sampler["inputs"]["model"] = ["9", 0]
    assert face(workflow)[-1].startswith("KSampler")
    sampler["inputs"]["model"] = workflow["9"]["inputs"]["model"]
    assert face(workflow)[-1] == "no sampler is connected"
    sampler["class_type"] = "SamplerOfSomePack"
    sampler["inputs"]["model"] = ["9", 0]
    assert face(workflow)[-1] != "no sampler is connected", "it may well be one"


def test_bypassed_sun_node_has_no_face_and_nothing_is_wrong_with_its_adapter() -> None:
    workflow = sped_up(SDXL.name)
    node(workflow, "SUNSpeedUp")["mode"] = 4
    entries = check(read(workflow), here(SDXL))
    assert {entry["badge"]["text"] for entry in entries} == {"SUN is off"} and not any(e["face"] for e in entries)


def test_users_default_adapter_is_used_if_it_fits() -> None:
    other = Adapter("sun_sd15_mine.safetensors", SD15.family, SD15.layout)
    installed = here(SD15, other, default=other.name)
    converted, plan = convert("speed_up", load("text_to_image"), None, installed)
    assert node(converted, "SUNSpeedUp")["widgets_values"][0] == other.name
    assert plan.severity == "success" and "models" not in node(converted, "SUNSpeedUp")["properties"]


def test_users_default_adapter_is_not_used_if_it_does_not_fit() -> None:
    converted, _ = convert("speed_up", load("text_to_image"), None, here(SD15, SDXL, default=SDXL.name))
    assert node(converted, "SUNSpeedUp")["widgets_values"][0] == SD15.name


def test_sdxl_is_sped_up_if_an_adapter_for_it_is_installed() -> None:
    converted, _ = convert("speed_up", load("sdxl"), None, here(SD15, SDXL))
    assert node(converted, "SUNSpeedUp")["widgets_values"][0] == SDXL.name


def test_header_of_a_model_counts_more_than_its_name() -> None:
    """A Stable Diffusion 1.5 checkpoint that somebody named after Flux."""
    installed = Installed([SD15], None, lambda names: ModelFile("flux.safetensors", SD15.family, SD15.layout))
    workflow = load("text_to_image")
    node(workflow, "CheckpointLoaderSimple")["widgets_values"] = ["flux.safetensors"]
    assert make_plan("speed_up", workflow, None, installed).edits


def test_each_sampler_gets_the_steps_of_its_own_adapter() -> None:
    eight = Adapter("sun_sdxl_8.safetensors", "SDXL", SDXL.layout, steps=8)
    workflow = load("sd15_beside_flux")
    loaders = [one for one in workflow["nodes"] if one["type"] == "CheckpointLoaderSimple"]
    loaders[1]["widgets_values"] = ["sd_xl_base_1.0.safetensors"]
    converted, plan = convert("speed_up", workflow, None, here(SD15, eight))
    samplers = [one for one in converted["nodes"] if one["type"] == "KSampler"]
    assert [one["widgets_values"][2] for one in samplers] == [4, 8]
    assert plan.summary == "2 samplers now need 4 / 8 steps and no CFG pass"


def test_adapter_for_more_steps_sets_its_steps() -> None:
    eight = Adapter("sun_8.safetensors", SD15.family, SD15.layout, steps=8)
    converted, _ = convert("speed_up", load("text_to_image"), None, here(eight))
    assert node(converted, "KSampler")["widgets_values"][2] == 8


def test_adapter_whose_name_tells_a_few_step_method_is_not_taken_for_a_lora() -> None:
    adapter = Adapter("sun_lcm_sd15.safetensors", SD15.family, SD15.layout)
    assert entry(sped_up(adapter.name), here(adapter))["badge"] is None


def test_few_step_lora_on_a_model_of_another_family_is_no_remedy() -> None:
    workflow = load("lora_stack.expected")
    node(workflow, "CheckpointLoaderSimple")["widgets_values"][0] = "flux1-dev.safetensors"
    node(workflow, "LoraLoader")["widgets_values"][0] = "flux-turbo-lora-8steps.safetensors"
    node(workflow, "SUNSpeedUp")["widgets_values"][0] = SD15.name
    badge = entry(workflow, here(SD15))["badge"]
    assert "Flux" in badge["detail"] and not badge["fix"]


def below_sun(checkpoint: str, lora: str) -> Json:
    """Return a sped-up graph with a LoRA between SUN and the sampler."""
    workflow = load("api_text_to_image")
    workflow["1"]["inputs"]["ckpt_name"] = checkpoint
    sun = {"model": ["1", 0], "adapter_name": SD15.name, "strength": 1.0, "settings": "automatic"}
    lora_inputs = {"model": ["8", 0], "clip": ["1", 1], "lora_name": lora, "strength_model": 1.0, "strength_clip": 1.0}
    workflow["8"] = {"class_type": "SUNSpeedUp", "inputs": sun}
    workflow["9"] = {"class_type": "LoraLoader", "inputs": lora_inputs}
    workflow["5"]["inputs"] |= {"model": ["9", 0], "steps": 4, "cfg": 1.0}
    return workflow


def test_few_step_lora_below_sun_is_no_matter_if_sun_is_for_another_family() -> None:
    right = entry(below_sun("v1-5-pruned.safetensors", "lcm-lora-sdv1-5.safetensors"), here(SD15))
    assert right["badge"]["text"] == "few-step LoRA"
    for checkpoint, lora in (
        ("flux1-dev.safetensors", "flux-turbo-lora-8steps.safetensors"),
        ("sd_xl_base_1.0.safetensors", "sdxl_lightning_4step_lora.safetensors"),
    ):
        badge = entry(below_sun(checkpoint, lora), here(SD15))["badge"]
        assert badge["text"] == "other family" and "LoraLoader" not in badge["detail"]
