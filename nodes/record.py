"""What a prompt's runs did, in the metadata of the pictures that it saves.

Save nodes write two things of the running prompt into their files, unless ComfyUI runs with --disable-metadata: its
nodes ("prompt") and, if the page queued it, every key of `extra_pnginfo` ("workflow"). Neither is copied between the
queue and the save nodes. So each SUN node gets an empty list in both when a prompt is queued, and a run, which ends
before its picture is saved, appends one line. This holds for a SUN node from the cache too, whose own hidden inputs
are those of the prompt that executed it.

A picture that ComfyUI draws from its cache, without sampling, has an empty list: its record is in the former picture.

Loops of other packs run copies of nodes, made while the prompt runs, whose ids are like 3.0.1. A copy's runs belong to
the node that it is shown as. A SUN node that another node makes for itself, shown as that one, leaves no record.
"""

from typing import Any

from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..conversion.graph import as_dict
from ..conversion.rules import OURS_ON_MODEL
from ..sun_core.run import RunReport

KEY = "sun"
"""In `extra_pnginfo`: {node id: list of lines}. In a SUN node's `_meta`: the list of that node."""


def register_records() -> None:
    """Let every prompt that is queued begin with empty records."""
    if server := getattr(PromptServer, "instance", None):  # absent if nodes are loaded without a server
        server.add_on_prompt_handler(give_empty_records)


def give_empty_records(queued: dict[str, Any]) -> dict[str, Any]:
    """Give the SUN nodes of a POST /prompt empty records, in place of those that it may bring from a picture."""
    prompt = as_dict(as_dict(queued).get("prompt"))
    sun_nodes = {number: node for number, node in prompt.items() if as_dict(node).get("class_type") in OURS_ON_MODEL}
    records: dict[str, list[str]] = {number: [] for number in sun_nodes}
    for number, node in sun_nodes.items():
        node["_meta"] = {**as_dict(node.get("_meta")), KEY: records[number]}
    if sun_nodes:
        as_dict(as_dict(queued.get("extra_data")).get("extra_pnginfo"))[KEY] = records
    return queued


def shown_as(node_id: str) -> str:
    """Return the id of the node that the page shows as `node_id`: another one for a copy that runs in a loop."""
    return get_progress_state().dynprompt.get_display_node_id(node_id)


def record(node_id: str | None, run: RunReport) -> None:
    """Add a line on a run to the records of the SUN node shown as `node_id` in the running prompt.

    The lines are English, without paths and without what differs from time to time. A line that is there already, as
    from the other tiles of an upscaler, is not added again.
    """
    nodes = get_progress_state().dynprompt.get_original_prompt()
    lines = as_dict(as_dict(nodes.get(node_id)).get("_meta")).get(KEY)
    if not isinstance(lines, list):  # queued by something else than POST /prompt
        return
    context = get_executing_context()
    sampler = context and shown_as(context.node_id)
    name = f"{nodes[sampler]['class_type']} #{sampler}: " if sampler in nodes else ""
    line = f"{name}{run.facts}"
    if line not in lines:
        lines.append(line)
