"""What Restore needs, kept in the properties of the SUNSpeedUp that was put in.

The record comes back from files that anybody may have written: whatever in it does not name a widget that the rules
set, in the same graph, is passed over.

Ids do not last: a node that is copied, or taken out of a subgraph, has a new one, and so have those around it. The
record says whose it is, so that a copy's Restore changes the samplers behind the copy, never those of the original.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .changes import Change
from .graph import SUBGRAPH_INPUT, Node, NodeId, Source
from .rules import NODES, PRIMITIVES, SPEED_UP
from .ui_format import is_id, is_index

RECORD = "sun_restore"
VERSION = 1
MOST = 10_000
"""Entries that are read of a record."""


@dataclass(frozen=True)
class Former:
    """A widget's former value, and the link that drove it."""

    node: Node
    widget: str
    value: Any
    """None where it had none beside the link, as in API graphs."""
    plug: Source | None


def make_record(sun: NodeId, changes: list[Change]) -> dict[str, Any]:
    """The record of the SUNSpeedUp that gets the id `sun`."""
    settings: dict[tuple[Node, str], dict[str, Any]] = {}
    for change in changes:
        entry = {"node": change.node.id, "type": change.node.type, "widget": change.widget, "value": change.old}
        if change.unplug is not None:
            entry["plug"] = [change.unplug.node, change.unplug.slot]
        settings[change.node, change.widget] = entry
    return {"version": VERSION, "sun": sun, "settings": list(settings.values())}


def has_record(node: Node) -> bool:
    """Whether a node is a SUNSpeedUp that Speed up with SUN put in."""
    return node.type == SPEED_UP["type"] and isinstance(node.properties.get(RECORD), dict)


def entries_of(sun: Node) -> list[dict[str, Any]]:
    """The entries of a record that name a node and a widget."""
    record = sun.properties.get(RECORD)
    settings = record.get("settings") if isinstance(record, dict) else None
    entries = settings[:MOST] if isinstance(settings, list) else []
    return [
        entry
        for entry in entries
        if isinstance(entry, dict) and is_id(entry.get("node")) and isinstance(entry.get("widget"), str)
    ]


def read_record(sun: Node, parts: Callable[[Node], Iterable[Node]]) -> list[Former]:
    """The former settings that the record of a SUNSpeedUp holds.

    `parts` gives the nodes that make the samplers behind a SUNSpeedUp.
    """
    entries, is_own = entries_of(sun), _is_own(sun)
    nodes = _named(sun, entries, is_own, parts)
    found = [_former(sun, entry, nodes[entry["node"]], is_own) for entry in entries if entry["node"] in nodes]
    return [former for former in found if former is not None]


def _is_own(sun: Node) -> bool:
    """Whether the record was written for this node, and not for one that it was copied from."""
    return str(sun.properties[RECORD].get("sun", sun.id)) == str(sun.id)


def _named(
    sun: Node, entries: list[dict[str, Any]], is_own: bool, parts: Callable[[Node], Iterable[Node]]
) -> dict[NodeId, Node]:
    """The node that each recorded id means now: the one with the id; else one behind `sun`, of the same type."""
    found: dict[NodeId, Node] = {}
    lost: dict[NodeId, str] = {}
    for entry in entries:
        node_id, node_type = entry["node"], entry.get("type")
        node = sun.graph.nodes.get(node_id) if is_own else None
        if node is not None and node_type in (None, node.type):
            found[node_id] = node
        elif isinstance(node_type, str):
            lost[node_id] = node_type
    taken = set(found.values())
    free = [node for node in parts(sun) if node not in taken] if lost else []
    for node_id, node_type in lost.items():
        node = next((node for node in free if node.type == node_type), None)
        if node is not None:
            free.remove(node)
            found[node_id] = node
    return found


def _former(sun: Node, entry: dict[str, Any], node: Node, is_own: bool) -> Former | None:
    widget, value = entry["widget"], entry.get("value")
    if node.type not in NODES:
        return None
    plug = _plug(sun, entry.get("plug")) if is_own else None
    if not isinstance(value, (int, float, str)) and not (value is None and plug):
        return None
    if widget not in NODES[node.type].sets and not (node.type in PRIMITIVES and widget == "value"):
        return None
    if isinstance(value, str) and len(value) > 200:
        return None
    return Former(node, widget, value, plug)


def _plug(sun: Node, plug: Any) -> Source | None:
    if not isinstance(plug, list) or len(plug) != 2 or not is_id(plug[0]) or not is_index(plug[1]):
        return None
    is_there = plug[0] in sun.graph.nodes or plug[0] == SUBGRAPH_INPUT
    return Source(plug[0], plug[1]) if is_there else None
