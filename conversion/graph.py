"""One view of a workflow in either format: graphs, nodes, their inputs and widgets, and what feeds them.

A view is read from JSON that anybody may have written. Malformed parts (a node without a type, a link to nowhere) are
left out of the view and stay in the JSON, so that no reader of a view has to expect them.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from .rules import REROUTES, SET_NODE, NodeRule, is_file_name

NodeId = int | str
Box = tuple[float, float, float, float]
"""left, top (of a node's title bar), right, bottom on the canvas."""
SUBGRAPH_INPUT = -10
"""The node id that stands for a subgraph's own inputs in ComfyUI's files."""

ALWAYS, MUTED, BYPASSED = 0, 2, 4

MOST_HOSTS = 100
"""How many nodes of one subgraph are searched for widgets. A file can have thousands, each with as many widgets."""


class ConversionError(ValueError):
    """Says in one sentence for its owner why a workflow cannot be read or changed."""


class Source(NamedTuple):
    """The output that a link comes from."""

    node: NodeId
    slot: int


@dataclass
class Input:
    name: str
    type: str
    source: Source | None = None
    via: int | None = None
    """The last native reroute (a point on the link, not a node) that the link runs through."""
    promoted: Source | None = None
    """The subgraph's own input that feeds a widget whose value stands on subgraph nodes; `source` is None then."""

    is_broadcast: bool = False
    """Whether `source` comes without a link, from a node that feeds every input of its type."""

    @property
    def feed(self) -> Source | None:
        """What feeds it: a node, or the subgraph's own input."""
        return self.source or self.promoted


class Place(NamedTuple):
    """Where a widget stands: on its own node, or on one that stands for the subgraph around it."""

    node: "Node"
    widget: str

    @property
    def feed(self) -> Source | None:
        return self.node.feed(self.widget)

    def on_hosts(self) -> list["Place"]:
        """Return where it stands one level up.

        It has the name of the subgraph's input that feeds it, or, in files of 2025, that of the node inside
        ("100: steps").
        """
        node, graph, feed = self.node, self.node.graph, self.feed
        if len(graph.hosts) > MOST_HOSTS:
            return []
        if feed is None:
            name = f"{node.id}: {self.widget}"
            return [Place(host, name) for host in graph.hosts if name in host.promoted]
        if feed.node != SUBGRAPH_INPUT or feed.slot >= len(graph.input_names):
            return []
        return [Place(host, graph.input_names[feed.slot]) for host in graph.hosts]


@dataclass(eq=False)
class Node:
    graph: "Graph"
    id: NodeId
    type: str
    mode: int = ALWAYS
    title: str = ""
    inputs: dict[str, Input] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    """The type of each output slot; empty if the format does not say."""
    widgets: dict[str, Any] = field(default_factory=dict)
    """Values by name, if the format names them or the rules know the widgets of this node type."""
    hidden: dict[str, Any] = field(default_factory=dict)
    """The node's own values of widgets whose current value stands on subgraph nodes."""
    promoted: list[str] = field(default_factory=list)
    """The widgets from inside that stand on a subgraph's node, in the order of its values."""
    texts: tuple[str, ...] = ()
    """The file names among the node's widget values."""
    properties: dict[str, Any] = field(default_factory=dict)
    rule: NodeRule | None = None
    problem: str | None = None
    """Why SUN cannot change it, in words, if it is a sampler without a rule."""
    box: Box = (0.0, 0.0, 0.0, 0.0)

    @property
    def label(self) -> str:
        """The node's name in messages: short and on one line, whatever its title holds."""
        return f"{on_one_line(self.title)[:40] or on_one_line(self.type)[:60]} (#{on_one_line(str(self.id))[:20]})"

    @property
    def is_active(self) -> bool:
        return self.mode not in (MUTED, BYPASSED)

    def feed(self, name: str) -> Source | None:
        """Return what feeds an input, or drives the widget of that name."""
        slot = self.inputs.get(name)
        return slot.feed if slot else None

    def order(self, values: list[Any]) -> list[str]:
        """Return the names of the widgets in the order of the node's saved values."""
        return self.promoted or (self.rule.order(values) if self.rule else [])

    def saved(self, widget: str) -> Any:
        """Return the value that the node itself saved for a widget, or None."""
        return self.hidden.get(widget, self.widgets.get(widget))

    def places(self, widget: str) -> list[Place]:
        """Return where a widget stands: here, then on the nodes of the subgraphs around it."""
        found = {Place(self, widget): None}
        waiting = [*found]
        while waiting:
            for host in waiting.pop(0).on_hosts():
                if host not in found:
                    found[host] = None
                    waiting.append(host)
        return [*found]


class Consumer(NamedTuple):
    node: Node
    input: Input


@dataclass(eq=False)
class Graph:
    id: str | None
    """None for the root, otherwise the id of the subgraph definition."""
    nodes: dict[NodeId, Node] = field(default_factory=dict)
    outputs: list[Source | None] = field(default_factory=list)
    """What feeds each output of a subgraph."""
    input_names: list[str] = field(default_factory=list)
    hosts: list[Node] = field(default_factory=list)
    """The nodes that stand for this subgraph, in all graphs."""
    fixtures: list[Box] = field(default_factory=list)
    """Where a subgraph's own inputs and outputs stand on the canvas, with all that lies behind the inputs."""
    _consumers: dict[Source, list[Consumer]] | None = None
    _final_consumers: dict[Source, list[Consumer]] = field(default_factory=dict)

    def boxes(self) -> set[Box]:
        """Return where nodes and fixtures stand on the canvas."""
        return {*(node.box for node in self.nodes.values()), *self.fixtures}

    def consumers(self, source: Source) -> list[Consumer]:
        """Return the inputs that an output feeds."""
        if self._consumers is None:
            self._consumers = defaultdict(list)
            for node in self.nodes.values():
                for slot in node.inputs.values():
                    if slot.feed is not None:
                        self._consumers[slot.feed].append(Consumer(node, slot))
        return self._consumers.get(source, [])

    @cached_property
    def senders(self) -> dict[str, list[Node]]:
        """The Set nodes by the name under which Get nodes hand on what feeds them."""
        found: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes.values():
            if node.type == SET_NODE:
                found[str(node.widgets.get("name"))].append(node)
        return found

    def through_reroutes(self, source: Source | None) -> Source | None:
        """Follow Reroute nodes up to the output that feeds a link; None if they lead nowhere or in a circle."""
        seen = set()
        while source is not None:
            node = self.nodes.get(source.node)
            if node is None or node.type not in REROUTES:
                return source
            if node.id in seen:
                return None
            seen.add(node.id)
            source = next((slot.source for slot in node.inputs.values() if slot.source), None)
        return None

    def final_consumers(self, source: Source) -> list[Consumer]:
        """Return the inputs that an output feeds in the end, past Reroute nodes."""
        if source not in self._final_consumers:
            self._final_consumers[source] = self._find_final_consumers(source)
        return self._final_consumers[source]

    def _find_final_consumers(self, source: Source) -> list[Consumer]:
        found: list[Consumer] = []
        waiting, seen = [source], {source}
        while waiting:
            for consumer in self.consumers(waiting.pop()):
                if consumer.node.type not in REROUTES:
                    found.append(consumer)
                    continue
                onward = Source(consumer.node.id, 0)
                if onward not in seen:
                    seen.add(onward)
                    waiting.append(onward)
        return found


@dataclass(eq=False)
class Workflow:
    graphs: dict[str | None, Graph]
    next_id: int
    """The lowest node id that is free in every graph."""
    has_modes: bool = True
    """Whether nodes can be bypassed, as in the UI's format."""

    @property
    def root(self) -> Graph:
        return self.graphs[None]

    def nodes(self) -> Iterator[Node]:
        for graph in self.graphs.values():
            yield from graph.nodes.values()

    def running_graphs(self) -> set[Graph]:
        """Return the root and every subgraph that an active node of a running graph stands for."""
        running, waiting = {self.root}, [self.root]
        while waiting:
            for node in waiting.pop().nodes.values():
                inner = self.inner(node) if node.is_active else None
                if inner is not None and inner not in running:
                    running.add(inner)
                    waiting.append(inner)
        return running

    def inner(self, node: Node) -> Graph | None:
        """Return the graph that a subgraph node stands for."""
        return self.graphs.get(node.type)


def on_one_line(text: str) -> str:
    """Remove everything from a text that a message cannot show: line breaks, control characters, half characters."""
    return "".join(letter for letter in text if letter.isprintable()).strip()


def as_dict(value: Any) -> dict[str, Any]:
    """Return the value if it is an object, otherwise an empty one."""
    return value if isinstance(value, dict) else {}


def widget_values(values: Any, rule: NodeRule | None) -> dict[str, Any]:
    """Return a node's saved widget values by name. If the file does not name them, the rule knows their order."""
    if isinstance(values, dict):
        return {name: value for name, value in values.items() if isinstance(name, str)}
    if not isinstance(values, list) or rule is None:
        return {}
    return dict(zip(rule.order(values), values, strict=False))


def file_names(values: Any) -> tuple[str, ...]:
    """Return the file names among widget values, also inside the lists and dicts that some packs save.

    A dict that is switched off ({"on": false, "lora": ...}) does not count.
    """
    found: list[str] = []
    waiting = [values]
    while waiting and len(found) < 100:
        value = waiting.pop()
        if isinstance(value, str) and is_file_name(value):
            found.append(value)
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict) and value.get("on") is not False:
            waiting.extend(value.values())
    return tuple(found)
