"""Plan what a click does: edits that speed a graph up, let its negative prompt count, restore or fix it."""

from collections.abc import Callable
from functools import partial
from typing import Any

from .api_format import apply_to_api, is_api, is_request, read_api
from .check import fix
from .edits import Plan
from .graph import ConversionError, Node, Workflow, as_dict
from .models import Installed
from .negative import let_negative_count
from .pack_samplers import Definitions
from .restore import restore
from .speed_up import speed_up
from .steps import OFFERED, set_steps
from .ui_edits import apply_to_ui
from .ui_format import is_id, read_ui
from .words import say

ACTIONS: dict[str, Callable[[Workflow, list[Node] | None, Installed], Plan]] = {
    "speed_up": speed_up,
    "negative": let_negative_count,
    "restore": restore,
    "fix": fix,
    **{f"steps_{steps}": partial(set_steps, steps=steps) for steps in OFFERED},
}
LARGEST = 20_000
"""Nodes in a workflow. Nobody draws more."""


def read(data: Any, definitions: Definitions | None = None) -> Workflow:
    """Read a workflow in either format, or a request with one in it. Raises ConversionError for anything else."""
    if not isinstance(data, dict):
        raise ConversionError(say("This is not a ComfyUI workflow: it is not a JSON object."))
    graph = data["prompt"] if is_request(data) else data
    read_format = read_api if "nodes" not in graph and is_api(graph) else read_ui
    workflow = read_format(graph, definitions)
    if sum(len(graph.nodes) for graph in workflow.graphs.values()) > LARGEST:
        raise ConversionError(
            say("This workflow has more than {most} nodes; split it to convert its parts.", most=f"{LARGEST:,}")
        )
    return workflow


def make_plan(action: str, data: Any, targets: Any = None, installed: Installed | None = None) -> Plan:
    """Plan one action on a workflow, or on the `targets` in it: [{"graph": id or None, "node": id}, ...].

    Raises ConversionError if the workflow, the action or a target is invalid.
    """
    if not isinstance(action, str) or action not in ACTIONS:
        raise ConversionError(f"The action must be one of {', '.join(ACTIONS)}.")
    installed = installed or Installed()
    workflow = read(data, installed.definitions)
    return ACTIONS[action](workflow, find_targets(workflow, targets), installed)


def find_targets(workflow: Workflow, targets: Any) -> list[Node] | None:
    """Return the nodes that `targets` name, or None for the whole workflow."""
    if targets is None:
        return None
    if not isinstance(targets, list):
        raise ConversionError("The targets must be a list of nodes.")
    found = []
    for target in targets:
        address = target if isinstance(target, dict) else {}
        graph_id, node_id = address.get("graph"), address.get("node", "")
        graph = workflow.graphs.get(graph_id) if graph_id is None or isinstance(graph_id, str) else None
        node = graph.nodes.get(node_id) if graph is not None and is_id(node_id) else None
        if node is None:
            raise ConversionError(say("A chosen node is no longer in the workflow; choose it again."))
        found.append(node)
    return found


def convert(
    action: str, data: Any, targets: Any = None, installed: Installed | None = None
) -> tuple[dict[str, Any], Plan]:
    """Convert a copy of a workflow in either format, or of a request with one in it. Returns the copy and the plan."""
    plan = make_plan(action, data, targets, installed)
    if is_request(data):
        request = {**data, "prompt": apply_to_api(data["prompt"], plan.edits)}
        return _with_embedded_workflow(request, action, installed), plan
    if "nodes" in data:
        return apply_to_ui(data, plan.edits, installed.definitions if installed else None), plan
    return apply_to_api(data, plan.edits), plan


def _with_embedded_workflow(request: dict[str, Any], action: str, installed: Installed | None) -> dict[str, Any]:
    """Convert the workflow that a request asks ComfyUI to embed in its pictures too, if it can be converted."""
    extra = as_dict(request.get("extra_data"))
    embedded = as_dict(extra.get("extra_pnginfo"))
    if "workflow" not in embedded:
        return request
    try:
        workflow, _ = convert(action, embedded["workflow"], None, installed)
    except ConversionError:
        return request
    return {**request, "extra_data": {**extra, "extra_pnginfo": {**embedded, "workflow": workflow}}}
