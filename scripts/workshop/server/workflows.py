"""Workflow files as the UI saves them, changed by name and turned into what ComfyUI's /prompt takes."""

import copy
import json
from pathlib import Path
from typing import Any

WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
NOTES = ("Note", "MarkdownNote")  # drawn by the page, unknown to the server
SEEDS = ("seed", "noise_seed")  # the page gives these a control widget even if the node does not ask for it
ACTIVE, MUTED, BYPASSED = 0, 2, 4  # a node's mode in the file


class Workflow:
    """A workflow in the UI's format. `object_info` is the server's: it names the widgets whose values the file lists.

    Nodes are named by their title on the canvas. Subgraphs, and nodes that only the page knows (but for notes), are not
    supported.
    """

    def __init__(self, graph: dict[str, Any], object_info: dict[str, Any]) -> None:
        self.graph = copy.deepcopy(graph)
        self._object_info = object_info
        for node in self._nodes():
            if node["type"] not in object_info:
                raise ValueError(f"The server does not know the node {node['type']} of this workflow.")
            if node.get("mode", ACTIVE) not in (ACTIVE, MUTED, BYPASSED):
                raise ValueError(f"The node {node['type']} of this workflow runs on an event, which is not supported.")

    @classmethod
    def read(cls, file: Path, object_info: dict[str, Any]) -> "Workflow":
        """Read a workflow file."""
        return cls(json.loads(file.read_text(encoding="utf-8")), object_info)

    def write(self, file: Path) -> None:
        """Write a workflow file."""
        file.write_text(json.dumps(self.graph, indent=2), encoding="utf-8")

    def node_id(self, title: str) -> str:
        """Return the API's id of the one node with this title."""
        return str(self._node(title)["id"])

    def titles(self) -> list[str]:
        """List the nodes' titles."""
        return [_title(node) for node in self._nodes()]

    def set(self, title: str, **values: Any) -> None:
        """Give widgets of the node with this title new values."""
        node = self._node(title)
        names = _widget_names(self._object_info[node["type"]])
        for name, value in values.items():
            node["widgets_values"][names.index(name)] = value

    def to_api(self) -> dict[str, Any]:
        """Convert the workflow to what /prompt takes: node id -> class and inputs; a link is [node id, output slot].

        As on the page, muted nodes are left out with what they give, and links pass through bypassed ones.
        """
        prompt = {}
        for node in self._nodes():
            if node.get("mode", ACTIVE) != ACTIVE:
                continue
            names = _widget_names(self._object_info[node["type"]])
            values = zip(names, node.get("widgets_values", ()), strict=False)
            inputs: dict[str, Any] = dict.fromkeys(_views(self._object_info[node["type"]]), "")
            inputs |= {name: value for name, value in values if name is not None}
            for slot in node.get("inputs", ()):
                if source := self._source(slot, slot["type"]):
                    inputs[slot["name"]] = source
            prompt[str(node["id"])] = {
                "class_type": node["type"],
                "inputs": inputs,
                "_meta": {"title": _title(node)},
            }
        return prompt

    def _source(self, slot: dict[str, Any], wanted: str) -> list[Any] | None:
        """Return [node id, output slot] of what feeds an input `slot` with the type `wanted`; None if nothing does."""
        if slot.get("link") is None:
            return None
        (link,) = [link for link in self.graph["links"] if link[0] == slot["link"]]
        (node,) = [node for node in self.graph["nodes"] if node["id"] == link[1]]
        mode = node.get("mode", ACTIVE)
        if mode == ACTIVE:
            return [str(node["id"]), link[2]]
        passed = _passed_through(node, link[2], wanted) if mode == BYPASSED else None
        return self._source(passed, wanted) if passed else None

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.graph["nodes"] if node["type"] not in NOTES]

    def _node(self, title: str) -> dict[str, Any]:
        (node,) = [node for node in self._nodes() if _title(node) == title]
        return node


def _passed_through(node: dict[str, Any], output: int, wanted: str) -> dict[str, Any] | None:
    """Find the input whose value a bypassed node gives for its `output`.

    It is the one in the same place, else the first, of that type (the frontend's ExecutableNodeDTO).
    """
    slots = node.get("inputs", ())
    return next((slot for slot in (*slots[output : output + 1], *slots) if slot["type"] == wanted), None)


def _title(node: dict[str, Any]) -> str:
    return str(node.get("title", node["type"]))


def _views(definition: dict[str, Any]) -> list[str]:
    """List required inputs that only the page draws, such as ImageCompare's slider: the server wants some value."""
    required = definition["input"].get("required", {})
    return [
        name
        for name, (kind, *options) in required.items()
        if options and options[0].get("socketless") and kind not in WIDGET_TYPES
    ]


def _widget_names(definition: dict[str, Any]) -> list[str | None]:
    """List the input that each of a node's `widgets_values` belongs to, None for a control that is not an input."""
    names: list[str | None] = []
    for section in ("required", "optional"):
        for name in definition["input_order"].get(section, ()):
            kind, *options = definition["input"][section][name]
            settings = options[0] if options else {}
            if settings.get("forceInput") or not (isinstance(kind, list) or kind in WIDGET_TYPES):
                continue
            names.append(name)
            if settings.get("control_after_generate") or (kind == "INT" and name in SEEDS):
                names.append(None)
            if settings.get("image_upload"):
                names.append(None)
    return names
