"""What a plan is: edits, and what to say about them; and what a finding is, which a plan can mend.

Edits are JSON. The page applies them to the live graph (web/js/edits.js), api_format.py and ui_edits.py to files.
tests/conversion/test_edits.py holds the page to the types here.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from .graph import Graph, NodeId, Source
from .words import say


class Add(TypedDict):
    """A new node under an id that is free."""

    op: Literal["add"]
    graph: str | None
    id: int
    type: str
    pos: tuple[float, float]
    size: tuple[float, float]
    widgets: dict[str, Any]
    properties: dict[str, Any]


class Remove(TypedDict):
    """A node that is removed together with its links."""

    op: Literal["remove"]
    graph: str | None
    node: NodeId


_Connect = TypedDict(
    "_Connect",
    {"op": Literal["connect"], "graph": str | None, "from": Source, "to": tuple[NodeId, str]},
)


class Connect(_Connect, total=False):
    """A link from an output to an input, which is named; it replaces the link that is there."""

    via: int
    """The native reroute whose chain the link runs through."""


class Disconnect(TypedDict):
    """An input that loses its link."""

    op: Literal["disconnect"]
    graph: str | None
    to: tuple[NodeId, str]


class SetWidget(TypedDict):
    """A widget's new value."""

    op: Literal["set"]
    graph: str | None
    node: NodeId
    widget: str
    value: Any


class UnsetWidget(TypedDict):
    """A widget that gets back what it has if a file saves no value for it."""

    op: Literal["unset"]
    graph: str | None
    node: NodeId
    widget: str


class SetMode(TypedDict):
    """A node that is bypassed, or active again. Only the UI's format has modes."""

    op: Literal["mode"]
    graph: str | None
    node: NodeId
    mode: int


class SetProperty(TypedDict):
    """A node's property, by which SUN remembers what it changed; None removes it."""

    op: Literal["property"]
    graph: str | None
    node: NodeId
    name: str
    value: Any


Edit = Add | Remove | Connect | Disconnect | SetWidget | UnsetWidget | SetMode | SetProperty


def remove_node(graph: Graph, node: NodeId) -> Remove:
    """Make the edit that removes a node."""
    return {"op": "remove", "graph": graph.id, "node": node}


def connect_input(graph: Graph, source: Source, node: NodeId, name: str, via: int | None = None) -> Connect:
    """Make the edit that links `source` to the input `name` of a node."""
    edit: Connect = {"op": "connect", "graph": graph.id, "from": source, "to": (node, name)}
    if via is not None:
        edit["via"] = via
    return edit


def disconnect_input(graph: Graph, node: NodeId, name: str) -> Disconnect:
    """Make the edit that unplugs the input `name` of a node."""
    return {"op": "disconnect", "graph": graph.id, "to": (node, name)}


def set_widget(graph: Graph, node: NodeId, widget: str, value: Any) -> SetWidget:
    """Make the edit that gives a widget a value."""
    return {"op": "set", "graph": graph.id, "node": node, "widget": widget, "value": value}


def unset_widget(graph: Graph, node: NodeId, widget: str) -> UnsetWidget:
    """Make the edit that takes a widget's saved value away."""
    return {"op": "unset", "graph": graph.id, "node": node, "widget": widget}


def set_mode(graph: Graph, node: NodeId, mode: int) -> SetMode:
    """Make the edit that bypasses a node or makes it active."""
    return {"op": "mode", "graph": graph.id, "node": node, "mode": mode}


def set_property(graph: Graph, node: NodeId, name: str, value: Any) -> SetProperty:
    """Make the edit that gives a node a property, or removes it."""
    return {"op": "property", "graph": graph.id, "node": node, "name": name, "value": value}


@dataclass
class Plan:
    summary: str
    detail: str = ""
    severity: str = "info"
    """success, info or warn: the words of the page's toasts."""
    edits: list[Edit] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {"edits": self.edits, "severity": self.severity, "summary": self.summary, "detail": self.detail}


@dataclass
class Finding:
    """One thing that is wrong: a few words, the remedy in words, and the edits that apply it if there are any."""

    text: str
    detail: str
    edits: list[Edit] = field(default_factory=list)
    needs_sun: bool = False
    """Whether the remedy is a SUNSpeedUp before the node."""

    @property
    def can_fix(self) -> bool:
        return self.needs_sun or bool(self.edits)


def sentences(parts: list[str], most: int = 12) -> str:
    """Join the different parts, one a line. A graph with a hundred samplers is not listed whole."""
    unique = list(dict.fromkeys(part for part in parts if part))
    if len(unique) > most:
        unique = [*unique[:most], say("... and {count} more.", count=len(unique) - most)]
    return "\n".join(unique)
