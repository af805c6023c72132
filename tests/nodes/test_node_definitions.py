"""The node definitions of a real ComfyUI, as the conversion reads them."""

import asyncio
from typing import Any

import comfy.samplers
import pytest
import sun_pack
from comfy_api.latest import io
from sun_pack.conversion.models import Installed
from sun_pack.conversion.plan import make_plan
from sun_pack.conversion.rules import INSERTED
from sun_pack.nodes.installed_files import node_definition

import nodes


class PackSampler:
    """A sampler as packs write it."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL",),
                "steps": ("INT", {"default": 20}),
                "cfg": ("FLOAT", {"default": 8.0}),
                "sampler_name": (comfy.samplers.KSampler.SAMPLERS,),
                "scheduler": ([*comfy.samplers.KSampler.SCHEDULERS, "AYS SD1"],),
                "positive": ("CONDITIONING",),
            }
        }


class BrokenSampler:
    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        raise RuntimeError("no such folder")


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> None:
    for node_class in (PackSampler, BrokenSampler):
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, node_class.__name__, node_class)


def graph(node_type: str) -> dict[str, Any]:
    settings = {"steps": 20, "cfg": 8.0, "sampler_name": "euler", "scheduler": "AYS SD1"}
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5-pruned-emaonly.safetensors"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": ""}},
        "3": {"class_type": node_type, "inputs": {"model": ["1", 0], "positive": ["2", 0], **settings}},
    }


def plan_for(node_type: str) -> Any:
    return make_plan("speed_up", graph(node_type), None, Installed(definitions=node_definition))


def test_sampler_of_an_installed_pack_is_sped_up(packs: None) -> None:
    values = {edit["widget"]: edit["value"] for edit in plan_for("PackSampler").edits if edit["op"] == "set"}
    assert values == {"steps": 4, "cfg": 1.0, "sampler_name": "ddim", "scheduler": "simple"}


def test_sampler_of_a_missing_pack_is_named() -> None:
    plan = plan_for("PackSampler")
    assert plan.edits == [] and "its pack is not installed here" in plan.detail


def test_node_whose_inputs_cannot_be_read_is_named(packs: None) -> None:
    plan = plan_for("BrokenSampler")
    assert plan.edits == [] and "SUN does not know its settings" in plan.detail


def test_definition_of_a_core_node_lists_its_inputs() -> None:
    definition = node_definition("KSampler")
    assert definition is not None and definition["input"]["required"]["steps"][0] == "INT"


@pytest.mark.parametrize("node_type", sorted(INSERTED))
def test_node_that_a_click_adds_is_what_its_schema_says(node_type: str) -> None:
    """The inputs in the page's order, slots first, and the default values."""

    async def schemas() -> list[Any]:
        return [node.GET_SCHEMA() for node in await (await sun_pack.comfy_entrypoint()).get_node_list()]

    schema = next(each for each in asyncio.run(schemas()) if each.node_id == node_type)
    widgets = [each for each in schema.inputs if isinstance(each, io.WidgetInput)]
    slots = [each for each in schema.inputs if each not in widgets]
    added = INSERTED[node_type]
    assert added.title == schema.display_name
    assert [each["name"] for each in added.inputs] == [each.id for each in (*slots, *widgets)]
    assert added.widgets == {each.id: each.default for each in widgets if each.id != "adapter_name"}
