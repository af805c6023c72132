"""Read the format that ComfyUI's page saves: nodes with slots and positions, links, subgraph definitions.

There are three ways to write links: [id, from, slot, to, slot, type] lists (root graphs), objects (subgraphs, newer
files), and, for native reroutes, `parentId` either in the link or in extra.linkExtensions.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

from .graph import (
    SUBGRAPH_INPUT,
    Box,
    ConversionError,
    Graph,
    Input,
    Node,
    NodeId,
    Source,
    Workflow,
    as_dict,
    file_names,
    widget_values,
)
from .pack_samplers import Definitions, recognize
from .rules import BROADCASTS, NODES, PRIMITIVES, SECTIONS, is_group_node
from .words import say

TITLE_HEIGHT = 30.0
COLLAPSED_WIDTH = 160.0
AROUND = 2000.0
"""How far left of the panel with a subgraph's inputs, above it and below, no new node goes: links run to the right."""
SUBGRAPH_OUTPUT = -20


class Link(NamedTuple):
    source: Source
    target: NodeId
    target_slot: int
    type: str
    parent: int | None
    """The native reroute nearest to the target."""

    def as_object(self, number: int) -> dict[str, Any]:
        """Write it as subgraphs and newer files do, without the reroute."""
        return dict(zip(LINK_KEYS, [number, *self.source, self.target, self.target_slot, self.type], strict=False))


def read_ui(data: dict[str, Any], definitions: Definitions | None = None) -> Workflow:
    """Read a workflow in the UI's format into a view. Raises ConversionError if it has no list of nodes."""
    if not isinstance(data.get("nodes"), list):
        raise ConversionError(say("This is not a ComfyUI workflow: it has no list of nodes."))
    subgraphs = as_dict(data.get("definitions")).get("subgraphs")
    drawn: dict[str | None, dict[str, Any]] = {None: data}
    for definition in dicts(subgraphs):
        if isinstance(definition.get("id"), str):
            drawn.setdefault(definition["id"], definition)
    graphs = {number: _read_graph(part, number) for number, part in drawn.items()}
    for number, part in drawn.items():
        _read_types(part, graphs[number], graphs, definitions)
    for graph in graphs.values():
        _show_what_is_in_force(graph)
        _follow_broadcast(graph)
    workflow = Workflow(graphs, 1)
    ids = [entry["id"] for part in drawn.values() for entry in dicts(part.get("nodes")) if is_index(entry.get("id"))]
    counters = [
        counter
        for graph in (data, *dicts(subgraphs))
        for counter in (graph.get("last_node_id"), as_dict(graph.get("state")).get("lastNodeId"))
        if isinstance(counter, int) and counter < 2**52
    ]
    workflow.next_id = max([0, *ids, *counters]) + 1
    return workflow


def read_links(data: dict[str, Any]) -> dict[int, Link]:
    """Return the links of one graph by their id."""
    links = {}
    values = data.get("links")
    for value in values.values() if isinstance(values, dict) else values if isinstance(values, list) else ():
        if isinstance(value, dict):
            value = [value.get(key) for key in LINK_KEYS]
        if not isinstance(value, list) or len(value) < 5:
            continue
        number, origin, slot, target, target_slot, *rest = value
        if not (is_id(origin) and is_id(target) and is_index(number) and is_index(slot) and is_index(target_slot)):
            continue
        link_type = rest[0] if rest and isinstance(rest[0], str) else "*"
        parent = rest[1] if len(rest) > 1 and is_index(rest[1]) else None
        links[number] = Link(Source(origin, slot), target, target_slot, link_type, parent)
    for extension in dicts(as_dict(data.get("extra")).get("linkExtensions")):
        number, parent = extension.get("id"), extension.get("parentId")
        if is_index(number) and is_index(parent) and number in links:
            links[number] = links[number]._replace(parent=parent)
    return links


LINK_KEYS = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type", "parentId")


def is_id(value: Any) -> TypeGuard[NodeId]:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def is_index(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read_graph(data: dict[str, Any], graph_id: str | None) -> Graph:
    graph = Graph(graph_id)
    links = read_links(data)
    for value in dicts(data.get("nodes")):
        if is_id(value.get("id")) and isinstance(value.get("type"), str) and value["id"] not in graph.nodes:
            graph.nodes[value["id"]] = _read_node(value, graph, links)
    graph.input_names = [str(slot.get("name", "")) for slot in dicts(data.get("inputs"))]
    graph.outputs = [None] * len(dicts(data.get("outputs")))
    for link in links.values():
        if link.target == SUBGRAPH_OUTPUT and link.target_slot < len(graph.outputs):
            graph.outputs[link.target_slot] = link.source
    if (entry := _panel(data, "inputNode")) is not None:
        left, top, right, bottom = entry
        graph.fixtures.append((left - AROUND, top - AROUND, right, bottom + AROUND))
    if (end := _panel(data, "outputNode")) is not None:
        graph.fixtures.append(end)
    return graph


def _panel(data: dict[str, Any], key: str) -> Box | None:
    """Return where the panel with a subgraph's own inputs or outputs stands."""
    bounding = as_dict(data.get(key)).get("bounding")
    if not isinstance(bounding, list) or len(bounding) != 4:
        return None
    (left, top), (width, height) = pair(bounding[:2]), pair(bounding[2:])
    return left, top, left + width, top + height


def _read_node(value: dict[str, Any], graph: Graph, links: dict[int, Link]) -> Node:
    node = Node(
        graph=graph,
        id=value["id"],
        type=value["type"],
        mode=value["mode"] if isinstance(value.get("mode"), int) else 0,
        title=value["title"] if isinstance(value.get("title"), str) else "",
        outputs=[str(slot.get("type", "*")) for slot in dicts(value.get("outputs"))],
        widgets=widget_values(value.get("widgets_values"), NODES.get(value["type"])),
        texts=file_names(value.get("widgets_values")),
        properties=as_dict(value.get("properties")),
        box=_box(value),
    )
    for slot in dicts(value.get("inputs")):
        name, slot_type = str(slot.get("name", "")), str(slot.get("type", "*"))
        link = links.get(slot["link"]) if is_index(slot.get("link")) else None
        if link is None or link.target != node.id:
            node.inputs.setdefault(name, Input(name, slot_type))
            continue
        node.inputs[name] = Input(name, link.type if slot_type == "*" else slot_type, link.source, link.parent)
    return node


def _read_types(
    data: dict[str, Any], graph: Graph, graphs: Mapping[str | None, Graph], definitions: Definitions | None
) -> None:
    """Read which widgets stand on the subgraph nodes of a graph, and recognize all other nodes."""
    read: set[NodeId] = set()
    for value in dicts(data.get("nodes")):
        number = value.get("id")
        if not is_id(number) or number not in graph.nodes or number in read:
            continue
        read.add(number)
        node = graph.nodes[number]
        if node.type in graphs:
            inner = graphs[node.type]
            inner.hosts.append(node)
            node.promoted = _promoted(value, inner)
            saved = value.get("widgets_values")
            named = zip(node.promoted, saved, strict=False) if isinstance(saved, list) else as_dict(saved).items()
            node.widgets = {name: entry for name, entry in named if entry is not None}
        elif is_group_node(node.type):
            if _has_sampler(node.type, data):
                node.problem = say("it is a group node with a sampler in it; convert it to a subgraph first")
        else:
            recognize(node, value.get("widgets_values"), definitions)


def _has_sampler(group_node: str, data: dict[str, Any]) -> bool:
    """Tell whether the definition of a group node, which its workflow keeps, has a sampler in it."""
    groups = as_dict(as_dict(data.get("extra")).get("groupNodes"))
    inside = dicts(as_dict(groups.get(group_node[len("workflow/") :])).get("nodes"))
    return any(isinstance(entry.get("type"), str) and entry["type"] in SECTIONS["samplers"] for entry in inside)


def _promoted(value: dict[str, Any], inner: Graph) -> list[str]:
    """Return the names of the widgets that stand on a subgraph's node, in the order of its saved values.

    `proxyWidgets`, which frontends of 2025 write, has the order: [id of the node inside, widget], or ["-1", input].
    Without it, the order is that of the inputs.
    """
    proxies = as_dict(value.get("properties")).get("proxyWidgets")
    if isinstance(proxies, list) and proxies:
        return [_promoted_name(entry, inner) for entry in proxies]
    return [str(slot.get("name", "")) for slot in dicts(value.get("inputs")) if isinstance(slot.get("widget"), dict)]


def _promoted_name(entry: Any, inner: Graph) -> str:
    """Return the widget's name for an entry of `proxyWidgets`: that of the subgraph's input, or the page's."""
    match entry:
        case ["-1", str(name), *_]:
            return name
        case [str(number), str(widget), *_]:
            node = inner.nodes.get(int(number) if number.isdecimal() and len(number) < 16 else number)
            feed = node.feed(widget) if node is not None else None
            if feed is None or feed.node != SUBGRAPH_INPUT or feed.slot >= len(inner.input_names):
                return f"{number}: {widget}"
            return inner.input_names[feed.slot]
    return ""


def _show_what_is_in_force(graph: Graph) -> None:
    """Give widgets that SUN sets the values that stand for them on subgraph nodes, unless a link drives these."""
    for node in graph.nodes.values() if graph.hosts else ():
        names = ("value",) if node.type in PRIMITIVES else node.rule.sets if node.rule else ()
        for name in names:
            outermost = [place for place in node.places(name) if not place.on_hosts()]
            if not outermost or any(place.node is node or place.feed is not None for place in outermost):
                continue
            own, slot = node.widgets.get(name), node.inputs.get(name)
            first, *others = (place.node.widgets.get(place.widget, own) for place in outermost)
            node.hidden[name], node.widgets[name] = own, first if all(other == first for other in others) else None
            if slot is not None and slot.source is not None:
                slot.source, slot.promoted = None, slot.source


def _follow_broadcast(graph: Graph) -> None:
    """Give MODEL inputs without a link the source that a node broadcasts, if that is the only one."""
    senders = [node for node in graph.nodes.values() if node.type in BROADCASTS and node.is_active]
    sent = [slot.source for node in senders for slot in node.inputs.values() if slot.type == "MODEL" and slot.source]
    if len(sent) != 1 or not all(map(_sends_to_all, senders)):
        return
    above, waiting = set(senders), [sent[0]]
    while waiting:  # what leads to the sender would run in a circle
        node = graph.nodes.get(waiting.pop().node)
        if node is not None and node not in above:
            above.add(node)
            waiting += [slot.source for slot in node.inputs.values() if slot.source is not None]
    for node in graph.nodes.values():
        for slot in node.inputs.values() if node not in above else ():
            if slot.type == "MODEL" and slot.feed is None:
                slot.source, slot.is_broadcast = sent[0], True


def _sends_to_all(sender: Node) -> bool:
    """Tell whether a node broadcasts without conditions on titles, inputs, groups or colors."""
    conditions = as_dict(sender.properties.get("ue_properties"))
    restricted = any(value for key, value in conditions.items() if key.endswith(("_restricted", "_regex")))
    return not sender.type.endswith("?") and not restricted


def _box(value: dict[str, Any]) -> Box:
    left, top = pair(value.get("pos"))
    width, height = pair(value.get("size"))
    if as_dict(value.get("flags")).get("collapsed"):
        width, height = COLLAPSED_WIDTH, 0.0
    return left, top - TITLE_HEIGHT, left + width, top + height


def pair(value: Any) -> tuple[float, float]:
    """Read a position or size: [x, y], or {"0": x, "1": y} in old files. Anything but a number counts as 0."""
    if isinstance(value, dict):
        value = [value.get("0"), value.get("1")]
    if not isinstance(value, list):
        value = []
    first, second = (_number(value[i]) if i < len(value) else 0.0 for i in (0, 1))
    return first, second


def _number(value: Any) -> float:
    """Return a finite number. Python's JSON can hold NaN, infinity, and integers too large for a float."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9
    return float(value) if is_number and math.isfinite(value) else 0.0


def dicts(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
