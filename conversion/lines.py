"""The MODEL lines of a workflow, each walked and judged once."""

from collections import defaultdict
from collections.abc import Iterable

from .graph import Graph, Node, Source, Workflow
from .model_line import ModelLine, model_line, next_above
from .models import Installed, Model, model_of
from .samplers import Sampler

NEAR = 16
"""How many nodes above are looked for a line that is known."""


class Lines:
    def __init__(self, workflow: Workflow, installed: Installed) -> None:
        self._workflow, self._installed = workflow, installed
        self._lines: dict[tuple[str | None, Source | None], tuple[ModelLine, Model]] = {}

    def of(self, graph: Graph, source: Source | None) -> tuple[ModelLine, Model]:
        if (graph.id, source) not in self._lines:
            above = next_above(self._workflow, graph, source)
            if above is not None and (graph.id, above) not in self._lines:
                self._walk(graph, above)  # where the lines of the samplers further down can begin
            self._walk(graph, source)
        return self._lines[graph.id, source]

    def _walk(self, graph: Graph, source: Source | None) -> None:
        line = self._from_known(graph, source) or model_line(self._workflow, graph, source)
        self._lines[graph.id, source] = (line, model_of(line, self._installed))

    def _from_known(self, graph: Graph, source: Source | None) -> ModelLine | None:
        """The line from where one is known a few nodes above: a long one with many samplers is not walked anew."""
        way: list[Node] = []
        while source is not None and len(way) < NEAR:
            if (graph.id, source) in self._lines:
                line, _ = self._lines[graph.id, source]
                return None if line.passed.intersection(way) else line.continued(way)
            above = next_above(self._workflow, graph, source)
            if above is None:
                return None
            way.append(graph.nodes[source.node])
            source = above
        return None

    def of_sampler(self, sampler: Sampler) -> tuple[ModelLine, Model]:
        return self.of(sampler.graph, sampler.model_input.source if sampler.model_input else None)

    def samplers_behind(self, samplers: Iterable[Sampler]) -> dict[Node, list[Sampler]]:
        """For every node on a MODEL line those of `samplers` that it leads to."""
        behind: dict[Node, list[Sampler]] = defaultdict(list)
        for sampler in samplers:
            for node in self.of_sampler(sampler)[0].passed:
                behind[node].append(sampler)
        return behind

    def into(self, node: Node) -> tuple[ModelLine, Model]:
        """The line that ends at a node's own model input."""
        slot = node.inputs.get("model")
        return self.of(node.graph, slot.source if slot else None)
