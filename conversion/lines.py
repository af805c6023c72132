"""The MODEL lines of a workflow, each walked and judged once."""

from collections.abc import Iterable

from .graph import Graph, Node, Source, Workflow
from .model_line import ModelLine, model_line
from .models import Installed, Model, model_of
from .samplers import Sampler


class Lines:
    def __init__(self, workflow: Workflow, installed: Installed) -> None:
        self._workflow, self._installed = workflow, installed
        self._lines: dict[tuple[str | None, Source | None], tuple[ModelLine, Model]] = {}

    def of(self, graph: Graph, source: Source | None) -> tuple[ModelLine, Model]:
        key = (graph.id, source)
        if key not in self._lines:
            line = model_line(self._workflow, graph, source)
            self._lines[key] = (line, model_of(line, self._installed))
        return self._lines[key]

    def of_sampler(self, sampler: Sampler) -> tuple[ModelLine, Model]:
        return self.of(sampler.graph, sampler.model_input.source if sampler.model_input else None)

    def samplers_behind(self, node: Node, samplers: Iterable[Sampler]) -> list[Sampler]:
        """Those of `samplers` on whose MODEL line a node is."""
        return [sampler for sampler in samplers if node in self.of_sampler(sampler)[0].passed]

    def into(self, node: Node) -> tuple[ModelLine, Model]:
        """The line that ends at a node's own model input."""
        slot = node.inputs.get("model")
        return self.of(node.graph, slot.source if slot else None)
