"""What Restore needs, kept in the properties of the SUNSpeedUp that was put in.

The record comes back from files that anybody may have written: whatever in it does not name a widget that the rules
set, in the same graph, is passed over.
"""

from dataclasses import dataclass
from typing import Any

from .changes import Change
from .graph import SUBGRAPH_INPUT, Node, Source
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


def make_record(changes: list[Change]) -> dict[str, Any]:
    settings: dict[tuple[Node, str], dict[str, Any]] = {}
    for change in changes:
        entry = {"node": change.node.id, "widget": change.widget, "value": change.old}
        if change.unplug is not None:
            entry["plug"] = [change.unplug.node, change.unplug.slot]
        settings[change.node, change.widget] = entry
    return {"version": VERSION, "settings": list(settings.values())}


def has_record(node: Node) -> bool:
    """Whether a node is a SUNSpeedUp that Speed up with SUN put in."""
    return node.type == SPEED_UP["type"] and isinstance(node.properties.get(RECORD), dict)


def read_record(sun: Node) -> list[Former]:
    """The former settings that the record of a SUNSpeedUp holds."""
    record = sun.properties.get(RECORD)
    settings = record.get("settings") if isinstance(record, dict) else None
    found = [_former(sun, entry) for entry in settings[:MOST]] if isinstance(settings, list) else []
    return [former for former in found if former is not None]


def _former(sun: Node, entry: Any) -> Former | None:
    if not isinstance(entry, dict) or not is_id(entry.get("node")) or not isinstance(entry.get("widget"), str):
        return None
    node, widget, value = sun.graph.nodes.get(entry["node"]), entry["widget"], entry.get("value")
    if node is None or node.type not in NODES:
        return None
    plug = _plug(sun, entry.get("plug"))
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
