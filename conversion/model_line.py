"""Follow the MODEL line from a sampler up to its loader, through reroutes, bypassed nodes and subgraphs."""

from collections.abc import Iterator, Set
from dataclasses import dataclass, field

from .graph import BYPASSED, MUTED, SUBGRAPH_INPUT, Graph, Input, Node, Source, Workflow
from .rules import (
    BROADCASTS,
    GET_NODE,
    NAMED_ON_MODEL,
    OURS_ON_MODEL,
    REROUTES,
    SWITCHES,
    can_hide_model,
    distilled_by_name,
    is_model_name,
    takes_weights_only,
)
from .words import say

MODEL = "MODEL"


@dataclass(eq=False)
class ModelLine:
    """The way of a MODEL from where it begins down to one output.

    Lines that join share what lies above the place where they do, so that a long one costs no more than a short one.
    """

    loaders: list[Node] = field(default_factory=list)
    """The nodes where it begins: they give a MODEL and take none."""
    breaks: list[str] = field(default_factory=list)
    """The places where it leads nowhere, in words."""
    named: list[Node] = field(default_factory=list)
    """Those of its nodes that the rules name, for better or worse: SUN, its neighbors, and what makes a few-step model
    or one of another family."""
    ours: list[Node] = field(default_factory=list)
    """The nodes of this pack on the way, active or not."""
    lost: dict[Node, Node] = field(default_factory=dict)
    """Those that are not, because they stand above an input of a merge that takes only the weights; and that merge."""
    outputs: set[tuple[str | None, Source]] = field(default_factory=set)
    """The outputs at which it parts or comes back to itself, and those above them."""
    weights: list[tuple[Node, Graph, Source]] = field(default_factory=list)
    """The outputs that feed such inputs, each after its merge, which are still to follow."""
    _merge: Node | None = None
    """The merge above whose input it goes on."""
    _nodes: list[Node] = field(default_factory=list)
    _passed: list[Node] = field(default_factory=list)
    _above: "ModelLine | None" = None

    @property
    def nodes(self) -> list[Node]:
        """The active nodes that the MODEL runs through, the nearest first."""
        return [node for part in self._parts() for node in part._nodes]

    @property
    def passed(self) -> list[Node]:
        """Every node on the way, reroutes, bypassed nodes and subgraph nodes among them."""
        return [node for part in self._parts() for node in part._passed]

    def passes(self, nodes: Set[Node]) -> bool:
        """Tell whether one of these is on the way, without making a list of what is."""
        return any(not nodes.isdisjoint(part._passed) for part in self._parts())

    def _parts(self) -> Iterator["ModelLine"]:
        part: ModelLine | None = self
        while part is not None:
            yield part
            part = part._above

    def go_through(self, node: Node) -> None:
        """Pass a node, whether or not it does anything to the MODEL."""
        self._passed.append(node)
        if node.type not in OURS_ON_MODEL or node in self.ours:
            return
        if self._merge is not None:
            self.lost.setdefault(node, self._merge)
        else:
            self.ours.append(node)

    def take_in(self, node: Node) -> None:
        """Count a node that the MODEL runs through."""
        self._nodes.append(node)
        if node in self.lost:
            return
        if node.type in NAMED_ON_MODEL or distilled_by_name(node.texts) is not None:
            self.named.append(node)

    def next_weights(self) -> list[tuple[Graph, Source]]:
        """Go on above the next input that takes only the weights. Returns the output that feeds it, if there is one."""
        if not self.weights:
            return []
        self._merge, graph, source = self.weights.pop(0)
        return [(graph, source)]

    def join(self, above: "ModelLine") -> None:
        """Make this one step below the line `above`."""
        self._above, self.loaders, self.breaks, self.outputs = above, above.loaders, above.breaks, above.outputs
        self.lost = above.lost
        self.named = [*self.named, *above.named] if self.named else above.named
        self.ours = list(dict.fromkeys([*self.ours, *above.ours])) if self.ours else above.ours


class ModelLines:
    """The MODEL lines of a workflow, each found once."""

    def __init__(self, workflow: Workflow) -> None:
        self._workflow = workflow
        self._known: dict[tuple[str | None, Source | None], ModelLine] = {}

    def at(self, graph: Graph, source: Source | None) -> ModelLine:
        """Return the line that ends at the output `source`, or at an input without a link if that is None."""
        first = graph, source
        steps: dict[tuple[str | None, Source], ModelLine] = {}
        while source is not None and (graph.id, source) not in self._known and (graph.id, source) not in steps:
            step = steps[graph.id, source] = ModelLine()
            onward = _step(self._workflow, graph, source, step)
            if len(onward) != 1 or step.weights:  # here it begins or parts
                del steps[graph.id, source]
                break
            ((graph, source),) = onward
        key = graph.id, source
        if key not in self._known:
            self._known[key] = model_line(self._workflow, graph, source)
        line = self._known[key]
        for place, step in reversed(steps.items()):
            if place in line.outputs:  # it runs in a circle
                return self._known.setdefault((first[0].id, first[1]), model_line(self._workflow, *first))
            step.join(line)
            line = self._known[place] = step
        return line


def model_line(workflow: Workflow, graph: Graph, source: Source | None) -> ModelLine:
    """Walk up from the output `source`, to each node once, so that a circle ends the walk.

    What only gives weights comes last: a node that is on another way too is not lost.
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
    while waiting:
        graph, source = waiting.pop()
        if (graph.id, source) not in line.outputs:
            line.outputs.add((graph.id, source))
            waiting += _step(workflow, graph, source, line)
        waiting = waiting or line.next_weights()
    if not line.loaders and not line.breaks:
        line.breaks.append(say("its MODEL line runs in a circle"))
    return line


def _step(workflow: Workflow, graph: Graph, source: Source, line: ModelLine) -> list[tuple[Graph, Source]]:
    """Add what gives the output `source` to a line. Returns the outputs that feed it, the last one to follow first."""
    onward: list[tuple[Graph, Source]] = []
    node = graph.nodes.get(source.node)
    if source.node == SUBGRAPH_INPUT:
        _leave_subgraph(graph, source.slot, onward, line)
    elif node is None:
        line.breaks.append(say("its MODEL line comes from node #{node}, which is not there", node=source.node))
    else:
        _pass_node(workflow, node, source.slot, onward, line)
    return onward


def _pass_node(workflow: Workflow, node: Node, slot: int, waiting: list[tuple[Graph, Source]], line: ModelLine) -> None:
    line.go_through(node)
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
            line.take_in(node)
        _climb(node, waiting, line)


def _climb(node: Node, waiting: list[tuple[Graph, Source]], line: ModelLine) -> None:
    """Go on to what feeds the node's own MODEL inputs. A bypassed node hands on only its first one."""
    inputs = list(node.inputs.values()) if node.type in REROUTES else model_inputs(node)
    linked = [slot.source for slot in inputs if slot.source is not None]
    if node.is_active and (weights := [slot for slot in inputs if takes_weights_only(node.type, slot.name)]):
        line.weights += [(node, node.graph, slot.source) for slot in weights if slot.source is not None]
        linked = [slot.source for slot in inputs if slot.source is not None and slot not in weights]
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


def _leave_subgraph(graph: Graph, slot: int, waiting: list[tuple[Graph, Source]], line: ModelLine) -> None:
    """Go on to what feeds input `slot` of every node that stands for this subgraph."""
    found = False
    for instance in [active for active in graph.hosts if active.is_active] or graph.hosts:
        outer = instance_input(instance, graph, slot)
        if outer is not None and outer.source is not None:
            found = True
            line.go_through(instance)
            waiting.append((instance.graph, outer.source))
    if not found:
        line.breaks.append(say("its MODEL line comes from outside the subgraph, where nothing is connected"))


def instance_input(instance: Node, graph: Graph, slot: int) -> Input | None:
    """Return the input of a subgraph node that stands for input `slot` of its graph."""
    name = graph.input_names[slot] if slot < len(graph.input_names) else None
    return instance.inputs.get(name) if name is not None else None


def _follow_name(node: Node, waiting: list[tuple[Graph, Source]], line: ModelLine) -> None:
    """Go on from a Get node to what feeds the Set node of the same name."""
    for sender in node.graph.senders.get(str(node.widgets.get("name")), ()):
        line.go_through(sender)
        source = next((slot.source for slot in sender.inputs.values() if slot.source), None)
        if source is not None:
            waiting.append((node.graph, source))
            return
    line.breaks.append(say("its MODEL line comes from {node}, for which there is no Set node", node=node.label))
