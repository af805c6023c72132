"""What a workflow has around its SUN nodes: their MODEL lines, adapters, and the samplers behind and beside them."""

from collections import defaultdict
from collections.abc import Callable, Hashable
from functools import cached_property, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from .graph import Node, Workflow
from .model_line import ModelLine
from .models import Adapter, Installed, Lines
from .rules import NEGATIVE
from .samplers import Sampler, find_samplers, grouped

P = ParamSpec("P")
S = TypeVar("S", bound=Hashable)
T = TypeVar("T")


class Surroundings:
    """A workflow, what is installed, and what every SUN node has to be compared with."""

    def __init__(self, workflow: Workflow, installed: Installed) -> None:
        self.workflow, self.installed = workflow, installed
        self.lines = Lines(workflow, installed)
        self.samplers = find_samplers(workflow)
        self.kept: dict[tuple[Any, ...], Any] = {}
        """What `once` and `once_per_group` keep."""
        self._behind = self.lines.samplers_behind(self.samplers)
        self._of_node: dict[Node, list[Sampler]] = defaultdict(list)
        self._plain: dict[Node, list[Sampler]] = defaultdict(list)
        self._lost: dict[Node, list[tuple[Node, Sampler]]] = defaultdict(list)
        for sampler in self.samplers:
            self._of_node[sampler.node].append(sampler)
            line, model = self.lines.of_sampler(sampler)
            for node, merge in line.lost.items():
                self._lost[node].append((merge, sampler))
            for loader in line.loaders if model.sun is None else ():
                self._plain[loader].append(sampler)

    @cached_property
    def _partners(self) -> dict[Sampler, list[Sampler]]:
        groups = grouped(self.samplers, self.workflow)
        return {sampler: partners for partners in groups for sampler in partners}

    @cached_property
    def named_without_sun(self) -> set[Node]:
        """What the rules name on the MODEL lines of samplers without SUN."""
        without_sun = (line for line, model in map(self.lines.of_sampler, self.samplers) if model.sun is None)
        return {node for line in without_sun for node in line.named}

    def partners_of(self, sampler: Sampler) -> list[Sampler]:
        """Return the samplers that can only be changed together with this one, itself among them."""
        return self._partners[sampler]

    def samplers_of(self, node: Node) -> list[Sampler]:
        """Return the sampler that a node is, if it is one."""
        return self._of_node.get(node, [])

    def fed_by(self, sun: Node) -> list[Sampler]:
        """Return the samplers at the lower end of a SUN node's MODEL line."""
        return self._behind.get(sun, [])

    def works_for(self, node: Node) -> list[Sampler]:
        """Return the samplers for which a SUN node does something. An adapter leaves a SUNNegative nothing to do."""
        samplers = self.fed_by(node)
        return samplers if node.type != NEGATIVE else [one for one in samplers if not self.has_sun(one)]

    def lines_behind(self, sun: Node) -> list[ModelLine]:
        """Return the MODEL lines of those samplers, each once: hundreds can be at the end of one line."""
        return list(dict.fromkeys(self.lines.of_sampler(sampler)[0] for sampler in self.fed_by(sun)))

    def merges_below(self, sun: Node) -> list[Node]:
        """Return the merges that take only the weights of the MODEL with a SUN node, for samplers without another."""
        lost = [(merge, self.lines.of_sampler(sampler)[1]) for merge, sampler in self._lost.get(sun, ())]
        others = [model.sun or (model.negative if sun.type == NEGATIVE else None) for _, model in lost]
        return list(dict.fromkeys(merge for (merge, _), other in zip(lost, others, strict=True) if other is None))

    def parts_behind(self, sun: Node) -> list[Node]:
        """Return the nodes in a SUN node's own graph that make up the samplers behind it."""
        here = [sampler for sampler in self.fed_by(sun) if sampler.graph is sun.graph]
        return list(dict.fromkeys(part for sampler in here for part in sampler.parts()))

    def plain_beside(self, sun: Node) -> list[Sampler]:
        """Return the samplers without SUN on the same checkpoint: its run is compared with theirs."""
        return list(dict.fromkeys(plain for loader in self.lines.into(sun)[0].loaders for plain in self._plain[loader]))

    def sun_before(self, node: Node) -> Node | None:
        """Return the SUN node on the MODEL line of a sampler node."""
        return self.lines.into(node)[1].sun

    def adapter_beside(self, negative: Node) -> Node | None:
        """Return the SUN node, above a SUNNegative or below, whose adapter reads the negative prompt instead.

        If a sampler below has none, the SUNNegative still works for that one.
        """
        above, samplers = self.lines.into(negative)[1].sun, self.fed_by(negative)
        if not samplers or not all(map(self.has_sun, samplers)):
            return above
        return self.lines.of_sampler(samplers[0])[1].sun

    def has_sun(self, sampler: Sampler) -> bool:
        return self.lines.of_sampler(sampler)[1].sun is not None

    def adapter_node(self, sun: Node) -> Node | None:
        """Return the node whose widget names the adapter: the SUN node itself, or the loader before SUNApply."""
        if "adapter_name" in sun.widgets or sun.type == "SUNSpeedUp":
            return sun
        slot = sun.inputs.get("sun_adapter")
        source = sun.graph.through_reroutes(slot.source if slot else None)
        found = sun.graph.nodes.get(source.node) if source else None
        return found if found is not None and found.type == "SUNLoadAdapter" else None

    def adapter_name(self, sun: Node) -> str | None:
        """Return the adapter's file name, or None if it comes over a link."""
        node = self.adapter_node(sun)
        slot = node.inputs.get("adapter_name") if node else None
        name = node.widgets.get("adapter_name") if node and not (slot and slot.source) else None
        return name if isinstance(name, str) else None

    def adapter(self, sun: Node) -> Adapter | None:
        return self.installed.adapter(self.adapter_name(sun))


def once(
    make: Callable[Concatenate[S, Surroundings, P], T],
) -> Callable[Concatenate[S, Surroundings, P], T]:
    """Let the SUN nodes before a sampler, of which there can be many, share what `make` returns for it."""

    @wraps(make)
    def shared(subject: S, around: Surroundings, *args: P.args, **kwargs: P.kwargs) -> T:
        key = make, subject, args, *kwargs.items()
        if key not in around.kept:
            around.kept[key] = make(subject, around, *args, **kwargs)
        return around.kept[key]

    return shared


def once_per_group(
    make: Callable[Concatenate[list[Sampler], Surroundings, P], T],
) -> Callable[Concatenate[Sampler, Surroundings, P], T]:
    """Let partners, of whom there can be hundreds, share what `make` returns for all of them."""

    @wraps(make)
    def shared(sampler: Sampler, around: Surroundings, *args: P.args, **kwargs: P.kwargs) -> T:
        partners = around.partners_of(sampler)
        key = make, id(partners), args, *kwargs.items()
        if key not in around.kept:
            around.kept[key] = make(partners, around, *args, **kwargs)
        return around.kept[key]

    return shared
