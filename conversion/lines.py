"""The MODEL lines of a workflow, each walked and judged once."""

from collections import defaultdict
from collections.abc import Iterable

from .graph import Graph, Node, Source, Workflow
from .model_line import ModelLine, model_line
from .models import Installed, Model, model_of
from .samplers import Sampler


class Lines:
    def __init__(self, workflow: Workflow, installed: Installed) -> None:
        self._workflow, self._installed = workflow, installed
        self._lines: dict[tuple[str | None, Source | None], ModelLine] = {}
        self._models: dict[tuple[str | None, Source | None], Model] = {}

    def of(self, graph: Graph, source: Source | None) -> tuple[ModelLine, Model]:
        """The line that ends at an output."""
        key = graph.id, source
        if key not in self._lines:
            line = self._lines[key] = model_line(self._workflow, graph, source, self._lines)
            self._models[key] = model_of(line, self._installed)
        return self._lines[key], self._models[key]

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
