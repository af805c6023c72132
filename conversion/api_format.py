"""Read and change the format that ComfyUI's /prompt takes: node id -> class_type and inputs."""

import copy
from typing import Any

from .edits import Edit
from .graph import Graph, Input, Node, NodeId, Source, Workflow, as_dict, file_names
from .pack_samplers import Definitions, recognize
from .rules import INSERTED, is_model_input


def is_api(data: dict[str, Any]) -> bool:
    """Tell whether this looks like an API graph: at least one node with a class_type."""
    return any(isinstance(value, dict) and isinstance(value.get("class_type"), str) for value in data.values())


def read_api(data: dict[str, Any], definitions: Definitions | None = None) -> Workflow:
    """Read an API graph into a view."""
    graph = Graph(None)
    for node_id, value in data.items():
        if isinstance(value, dict) and isinstance(value.get("class_type"), str):
            node = graph.nodes[node_id] = _read_node(node_id, value, graph)
            recognize(node, None, definitions)
    numbers = [int(key) for key in data if key.isascii() and key.isdecimal() and len(key) < 16]
    return Workflow({None: graph}, max([0, *numbers]) + 1, has_modes=False)


def _read_node(node_id: str, value: dict[str, Any], graph: Graph) -> Node:
    inputs, meta = as_dict(value.get("inputs")), as_dict(value.get("_meta"))
    title = meta.get("title")
    node = Node(
        graph, node_id, value["class_type"], title=title if isinstance(title, str) else "", properties=dict(meta)
    )
    for name, given in inputs.items():
        if _is_link(given):
            node.inputs[name] = Input(name, "MODEL" if is_model_input(name) else "*", Source(str(given[0]), given[1]))
        else:
            node.widgets[name] = given
    node.texts = file_names(node.widgets)
    return node


def _is_link(value: Any) -> bool:
    """Tell whether a value is a link, as ComfyUI's own is_link does, and its slot is a number."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], (str, int))
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
    )


def is_request(data: dict[str, Any]) -> bool:
    """Tell whether this is the body of a request to /prompt, with an API graph in it."""
    return "nodes" not in data and isinstance(data.get("prompt"), dict) and is_api(data["prompt"])


def apply_to_api(data: dict[str, Any], edits: list[Edit]) -> dict[str, Any]:
    """Apply `edits` to a copy of an API graph."""
    data = copy.deepcopy(data)
    for edit in edits:
        match edit["op"]:
            case "add":
                meta = {"title": INSERTED[edit["type"]].title, **edit["properties"]}
                data[str(edit["id"])] = {"class_type": edit["type"], "inputs": dict(edit["widgets"]), "_meta": meta}
            case "remove":
                del data[str(edit["node"])]
            case "connect":
                node, name = edit["to"]
                _part(data, node, "inputs")[name] = [str(edit["from"][0]), edit["from"][1]]
            case "disconnect":
                node, name = edit["to"]
                _part(data, node, "inputs").pop(name, None)
            case "set":
                _part(data, edit["node"], "inputs")[edit["widget"]] = edit["value"]
            case "unset":
                _part(data, edit["node"], "inputs").pop(edit["widget"], None)
            case "property":
                meta = _part(data, edit["node"], "_meta")
                if edit["value"] is None:
                    meta.pop(edit["name"], None)
                else:
                    meta[edit["name"]] = edit["value"]
            case "mode":
                raise AssertionError("A plan for an API graph has no such edit.")
    return data


def _part(data: dict[str, Any], node: NodeId, key: str) -> dict[str, Any]:
    """Return a node's inputs or its _meta, and make it if it is missing."""
    value = data[str(node)]
    if not isinstance(value.get(key), dict):
        value[key] = {}
    return value[key]
