"""Follow the MODEL line from a sampler up to its loader, through reroutes, bypassed nodes and subgraphs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .graph import BYPASSED, MUTED, SUBGRAPH_INPUT, Graph, Input, Node, NodeId, Source, Workflow
from .rules import BROADCASTS, GET_NODE, REROUTES, SET_NODE, SWITCHES, can_hide_model, is_model_name
from .words import say

MODEL = "MODEL"


@dataclass
class ModelLine:
    nodes: list[Node] = field(default_factory=list)
    """The active nodes that the MODEL runs through, the nearest first."""
    loaders: list[Node] = field(default_factory=list)
    """The nodes where it begins: they give a MODEL and take none."""
    passed: set[Node] = field(default_factory=set)
    """Every node on the way, including reroutes, bypassed nodes and subgraph nodes."""
    breaks: list[str] = field(default_factory=list)
    """The places where it leads nowhere, in words."""

    def add(self, rest: "ModelLine") -> None:
        """Append the rest of the line, further up."""
        self.nodes += rest.nodes
        self.loaders += rest.loaders
        self.passed |= rest.passed
        self.breaks += rest.breaks


Known = Mapping[tuple[str | None, Source | None], ModelLine]
"""Lines by the id of a graph and an output in it."""


def model_line(workflow: Workflow, graph: Graph, source: Source | None, known: Known | None = None) -> ModelLine:
    """Walk up from the output `source`, to each node once, so that a circle ends the walk.

    At an output whose line is known, the walk takes that line and ends.
    """
    line = ModelLine()
    if source is None:
        sender = next((node for node in graph.nodes.values() if node.type in BROADCASTS and node.is_active), None)
        if sender is None:
            line.breaks.append(say("nothing is connected to its model input"))
        else:
            line.breaks.append(
                say("SUN cannot tell what {node} sends to it; connect its model input", node=sender.label)
            )
        return line
    waiting: list[tuple[Graph, Source]] = [(graph, source)]
    seen: set[tuple[str | None, NodeId, int]] = set()
    while waiting:
        graph, source = waiting.pop()
        if (graph.id, *source) in seen:
            continue
        seen.add((graph.id, *source))
        rest = known.get((graph.id, source)) if known and not waiting else None
        if rest is not None and rest.passed.isdisjoint(line.passed):
            line.add(rest)
            break
        if source.node == SUBGRAPH_INPUT:
            _leave_subgraph(workflow, graph, source.slot, waiting, line)
            continue
        node = graph.nodes.get(source.node)
        if node is None:
            line.breaks.append(say("its MODEL line comes from node #{node}, which is not there", node=source.node))
            continue
        _pass_node(workflow, node, source.slot, waiting, line)
    if not line.loaders and not line.breaks:
        line.breaks.append(say("its MODEL line runs in a circle"))
    return line


def _pass_node(workflow: Workflow, node: Node, slot: int, waiting: list[tuple[Graph, Source]], line: ModelLine) -> None:
    line.passed.add(node)
    inner = workflow.inner(node)
    if node.mode == MUTED:
        line.breaks.append(say("its MODEL line runs through {node}, which is muted", node=node.label))
    elif inner is not None and node.mode != BYPASSED:
        source = inner.outputs[slot] if slot < len(inner.outputs) else None
        if source is None:
            line.breaks.append(say("its MODEL line comes from an output of {node} that nothing feeds", node=node.label))
        else:
            waiting.append((inner, source))
    elif node.type == GET_NODE:
        _follow_name(node, waiting, line)
    else:
        if node.is_active and node.type not in REROUTES:
            line.nodes.append(node)
        _climb(node, waiting, line)


def _climb(node: Node, waiting: list[tuple[Graph, Source]], line: ModelLine) -> None:
    """Go on to what feeds the node's own MODEL inputs. A bypassed node hands on only its first one."""
    inputs = list(node.inputs.values()) if node.type in REROUTES else model_inputs(node)
    linked = [slot.source for slot in inputs if slot.source is not None]
    if node.is_active and (chosen := _chosen(node)) is not None:
        waiting.append((node.graph, chosen))
    elif linked:
        waiting.extend((node.graph, source) for source in (linked[:1] if node.mode == BYPASSED else reversed(linked)))
    elif node.texts and not inputs and node.mode != BYPASSED:
        line.loaders.append(node)
    elif hidden := [source for slot, source in _links(node) if can_hide_model(slot.name, slot.type)]:
        waiting.extend((node.graph, source) for source in reversed(hidden))
    elif inputs or node.mode == BYPASSED:
        line.breaks.append(say("its MODEL line ends at {node}, which gets no MODEL", node=node.label))
    else:
        _begin(node, line)


def _chosen(node: Node) -> Source | None:
    """Return the source of the input that a switch hands on; None for another node, or an unknown choice."""
    rule = SWITCHES.get(node.type)
    if rule is None:
        return None
    if "by" not in rule:
        sources = [slot.source for slot in node.inputs.values() if slot.source is not None]
        return next((source for source in sources if _is_active(node.graph, source)), None)
    value = None if node.feed(rule["by"]) else node.widgets.get(rule["by"])
    name = rule["inputs"].get(str(value)) if "inputs" in rule else f"input{value}"
    slot = node.inputs.get(name)
    return slot.source if slot else None


def _is_active(graph: Graph, source: Source) -> bool:
    node = graph.nodes.get(source.node)
    return node is None or node.is_active


def _begin(node: Node, line: ModelLine) -> None:
    """Begin the line at a node that names no file. Another node may name it; otherwise the model is unknown."""
    links = _links(node)
    naming = [node.graph.nodes.get(source.node) for slot, source in links if is_model_name(slot.name)]
    named = [feeder for feeder in naming if feeder is not None and feeder.texts]
    if links and not named:
        line.breaks.append(say("SUN cannot tell which model {node} gives", node=node.label))
    else:
        line.loaders.extend(named or [node])


def _links(node: Node) -> list[tuple[Input, Source]]:
    return [(slot, slot.source) for slot in node.inputs.values() if slot.source is not None]


def model_inputs(node: Node) -> list[Input]:
    return [slot for slot in node.inputs.values() if slot.type == MODEL]


def _leave_subgraph(
    workflow: Workflow, graph: Graph, slot: int, waiting: list[tuple[Graph, Source]], line: ModelLine
) -> None:
    """Go on to what feeds input `slot` of every node that stands for this subgraph."""
    found = False
    for instance in [active for active in graph.hosts if active.is_active] or graph.hosts:
        outer = instance_input(instance, graph, slot)
        if outer is not None and outer.source is not None:
            found = True
            line.passed.add(instance)
            waiting.append((instance.graph, outer.source))
    if not found:
        line.breaks.append(say("its MODEL line comes from outside the subgraph, where nothing is connected"))


def instance_input(instance: Node, graph: Graph, slot: int) -> Input | None:
    """Return the input of a subgraph node that stands for input `slot` of its graph."""
    name = graph.input_names[slot] if slot < len(graph.input_names) else None
    return instance.inputs.get(name) if name is not None else None


def _follow_name(node: Node, waiting: list[tuple[Graph, Source]], line: ModelLine) -> None:
    """Go on from a Get node to what feeds the Set node of the same name."""
    name = node.widgets.get("name")
    for candidate in node.graph.nodes.values():
        if candidate.type == SET_NODE and candidate.widgets.get("name") == name:
            line.passed.add(candidate)
            source = next((slot.source for slot in candidate.inputs.values() if slot.source), None)
            if source is not None:
                waiting.append((node.graph, source))
                return
    line.breaks.append(say("its MODEL line comes from {node}, for which there is no Set node", node=node.label))
