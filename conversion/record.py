"""Write and read what Restore needs. It is kept in the properties of the SUNSpeedUp or SUNNegative that was put in.

Anybody may have written the file that holds a record. An entry that does not name a widget which the rules set, in the
same graph, is ignored. A note about subgraph nodes is ignored unless the widget still stands on them.

Ids do not last: a node that is copied, or taken out of a subgraph, gets a new one, and so do those around it. A record
says whose it is, so that Restore on a copy changes the samplers behind the copy, never those of the original.

For a record that was deleted with its node, see notes.py.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from .changes import Change
from .edits import Edit, connect_input, set_property, set_widget, unset_widget
from .graph import SUBGRAPH_INPUT, Consumer, Node, NodeId, Source
from .rules import INSERTED, PRIMITIVES
from .ui_format import dicts, is_id, is_index

RECORD = "sun_restore"
VERSION = 1
MOST = 10_000
"""The most entries of a record that are read."""


@dataclass(frozen=True)
class Former:
    """A widget's former value, and the link that drove it."""

    node: Node
    widget: str
    value: Any
    """None if it had no value of its own."""
    plug: Source | None
    is_unset: bool = False
    """Whether the widget had neither a value nor a link, so that the node's default counted."""


def make_record(sun: NodeId, changes: Iterable[Change], targets: Iterable[Consumer]) -> dict[str, Any]:
    """Make the record of the node that gets the id `sun` and goes before the inputs `targets`.

    The old values of `changes` are those to restore (see notes.to_restore).
    """
    settings = {(change.node, change.widget): _entry(change) for change in changes}
    record = {"version": VERSION, "sun": sun, "settings": list(settings.values())}
    unlinked = [[target.node.id, target.input.name] for target in targets if target.input.is_broadcast]
    return {**record, "unlinked": unlinked} if unlinked else record


def _entry(change: Change) -> dict[str, Any]:
    node = change.node
    entry = {"node": node.id, "type": node.type, "widget": change.widget, "value": change.old, **_noted_plug(change)}
    return {**entry, "hosts": [_noted_host(host) for host in change.hosts]} if change.hosts else entry


def _noted_host(host: Change) -> dict[str, Any]:
    """Note what stood on a subgraph's node, without its name there, because frontends change it."""
    return {"graph": host.node.graph.id, "node": host.node.id, "value": host.old, **_noted_plug(host)}


def _noted_plug(change: Change) -> dict[str, Any]:
    return {} if change.unplug is None else {"plug": [change.unplug.node, change.unplug.slot]}


def has_record(node: Node) -> bool:
    """Tell whether a node is one that a plan put in."""
    return node.type in INSERTED and isinstance(node.properties.get(RECORD), dict)


def entries_of(sun: Node) -> list[dict[str, Any]]:
    """Return the entries of a record that name a node and a widget."""
    record = sun.properties.get(RECORD)
    settings = record.get("settings") if isinstance(record, dict) else None
    entries = settings[:MOST] if isinstance(settings, list) else []
    return [
        entry
        for entry in entries
        if isinstance(entry, dict) and is_id(entry.get("node")) and isinstance(entry.get("widget"), str)
    ]


def unlinked_before(sun: Node) -> list[Any]:
    """Return [node, input] for each input that had no link before SUN, because its MODEL was broadcast."""
    unlinked = sun.properties[RECORD].get("unlinked") if _is_own(sun) else None
    return unlinked[:MOST] if isinstance(unlinked, list) else []


def read_record(sun: Node, parts: Callable[[Node], Iterable[Node]]) -> list[Former]:
    """Return the former settings that the record of a node holds.

    `parts` returns the nodes that make up the samplers behind it.
    """
    return [former for _, formers in _read(sun, parts) for former in formers]


def lost_entries(sun: Node, parts: Callable[[Node], Iterable[Node]]) -> list[dict[str, Any]]:
    """Return the entries of a record that bring nothing back, because their node is gone or their value is invalid."""
    return [entry for entry, formers in _read(sun, parts) if not formers]


def _read(sun: Node, parts: Callable[[Node], Iterable[Node]]) -> Iterator[tuple[dict[str, Any], list[Former]]]:
    entries, is_own = entries_of(sun), _is_own(sun)
    nodes = _named(sun, entries, is_own, parts)
    for entry in entries:
        node = nodes.get(entry["node"])
        former = _former(entry, node, is_own) if node is not None else None
        yield entry, _with_hosts(former, entry, is_own) if former is not None else []


def unrecorded(sun: Node, changes: Iterable[Change], parts: Callable[[Node], Iterable[Node]]) -> list[Change]:
    """Return the changes of settings that the record of a node does not name."""
    known = {(former.node, former.widget) for former in read_record(sun, parts)}
    return [change for change in changes if (change.node, change.widget) not in known]


def add_to_record(sun: Node, changes: Iterable[Change], parts: Callable[[Node], Iterable[Node]]) -> list[Edit]:
    """Return the edit that adds changes to a record that does not name their settings.

    Without it, Restore would leave them at what a later click set.
    """
    entries = entries_of(sun)
    ids = {node: number for number, node in _named(sun, entries, _is_own(sun), parts).items()}
    new = {
        (change.node, change.widget): {**_entry(change), "node": ids.get(change.node, change.node.id)}
        for change in changes
        if change.node.graph is sun.graph
    }
    record = {**sun.properties[RECORD], "settings": [*entries, *new.values()]}
    return [set_property(sun.graph, sun.id, RECORD, record)] if new else []


def bring_back(former: Former) -> list[Edit]:
    """Return the edits that give a widget its former value, and its input the former link."""
    graph = former.node.graph
    back: list[Edit] = []
    if former.value is not None:
        back.append(set_widget(graph, former.node.id, former.widget, former.value))
    elif former.is_unset:
        back.append(unset_widget(graph, former.node.id, former.widget))
    if former.plug is not None:
        back.append(connect_input(graph, former.plug, former.node.id, former.widget))
    return back


def _is_own(sun: Node) -> bool:
    """Tell whether the record was written for this node, and not for one that it was copied from."""
    return str(sun.properties[RECORD].get("sun", sun.id)) == str(sun.id)


def _named(
    sun: Node, entries: list[dict[str, Any]], is_own: bool, parts: Callable[[Node], Iterable[Node]]
) -> dict[NodeId, Node]:
    """Return the node that each recorded id means now: the one with the id, or one of its type behind `sun`."""
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


def _former(entry: dict[str, Any], node: Node, is_own: bool) -> Former | None:
    widget, value = entry["widget"], entry.get("value")
    if node.rule is None:
        return None
    plug = read_plug(node, entry.get("plug")) if is_own else None
    if not is_value(value) and value is not None:
        return None
    if widget not in node.rule.sets and not (node.type in PRIMITIVES and widget == "value"):
        return None
    return Former(node, widget, value, plug, value is None and plug is None and "value" in entry)


def _with_hosts(former: Former, entry: dict[str, Any], is_own: bool) -> list[Former]:
    """Return a former setting, and what stood for it on subgraph nodes.

    A subgraph node that was copied later gets what the first one had. If the widget no longer stands on any, because
    the subgraph was taken apart, that becomes the widget's own value.
    """
    noted = dicts(entry.get("hosts"))[:MOST]
    by_host = {(str(host.get("graph")), str(host.get("node"))): host for host in noted}
    values = [host["value"] for host in noted if is_value(host.get("value"))]
    hosts = former.node.places(former.widget)[1:]
    if values and not hosts:
        return [replace(former, value=values[0], is_unset=False)]
    found = [former]
    for node, widget in hosts:
        host = by_host.get((str(node.graph.id), str(node.id)), {"value": values[0] if values else None})
        value = host.get("value") if is_value(host.get("value")) else former.value
        plug = read_plug(node, host.get("plug")) if is_own else None
        if widget in node.widgets or plug is not None:
            found.append(Former(node, widget, value if widget in node.widgets else None, plug))
    return found


def is_value(value: Any) -> bool:
    """Tell whether a value can be that of a widget that SUN sets."""
    return isinstance(value, (int, float)) or (isinstance(value, str) and len(value) <= 200)


def read_plug(node: Node, plug: Any) -> Source | None:
    """Return the output that a record names as what fed an input, if it is still there."""
    if not isinstance(plug, list) or len(plug) != 2 or not is_id(plug[0]) or not is_index(plug[1]):
        return None
    is_there = plug[0] in node.graph.nodes or plug[0] == SUBGRAPH_INPUT
    return Source(plug[0], plug[1]) if is_there else None
