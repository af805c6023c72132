"""The six edits that a conversion consists of, as JSON. The page applies them to the live graph, api_format.py and
ui_edits.py to files."""

from typing import Any

from .graph import Graph, NodeId, Source

Edit = dict[str, Any]


def add(
    graph: Graph,
    node_id: int,
    node_type: str,
    position: tuple[float, float],
    size: list[float],
    widgets: dict[str, Any],
    properties: dict[str, Any],
) -> Edit:
    """A new node under an id that is free."""
    return {
        "op": "add",
        "graph": graph.id,
        "id": node_id,
        "type": node_type,
        "pos": list(position),
        "size": size,
        "widgets": widgets,
        "properties": properties,
    }


def remove(graph: Graph, node: NodeId) -> Edit:
    return {"op": "remove", "graph": graph.id, "node": node}


def connect(graph: Graph, source: Source, node: NodeId, name: str, via: int | None = None) -> Edit:
    """A link into the input `name`, in the place of the one that is there.

    `via` is the native reroute whose chain the link runs through.
    """
    edit = {"op": "connect", "graph": graph.id, "from": [source.node, source.slot], "to": [node, name]}
    return edit if via is None else {**edit, "via": via}


def disconnect(graph: Graph, node: NodeId, name: str) -> Edit:
    return {"op": "disconnect", "graph": graph.id, "to": [node, name]}


def set_widget(graph: Graph, node: NodeId, widget: str, value: Any) -> Edit:
    return {"op": "set", "graph": graph.id, "node": node, "widget": widget, "value": value}
