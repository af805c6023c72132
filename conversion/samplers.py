"""Find samplers as a whole: the node, its guider, its schedule and its choice of sampler.

Partners are samplers that can only be changed together.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .graph import MUTED, SUBGRAPH_INPUT, Consumer, Graph, Input, Node, Source, Workflow, on_one_line
from .model_line import MODEL, instance_input
from .rules import NOT_SUPPORTED, PRIMITIVES, REROUTES, SECTIONS, Role, is_latent_input
from .words import say, term

SPLIT = "SplitSigmas"
"""The node that cuts a schedule in two, counted from the beginning of what it takes."""
NO_NOISE = "DisableNoise"
"""The node that gives a SamplerCustomAdvanced no noise."""


@dataclass(frozen=True)
class Setting:
    """One widget of a sampler that SUN gives a new value."""

    node: Node
    widget: str
    role: Role

    @property
    def source(self) -> Source | None:
        """The output that drives the widget instead of its own value."""
        slot = self.node.inputs.get(self.widget)
        return slot.source if slot else None

    @property
    def primitive(self) -> Node | None:
        """The primitive node that drives the widget, past reroutes."""
        source = self.node.graph.through_reroutes(self.source)
        node = self.node.graph.nodes.get(source.node) if source else None
        return node if node is not None and node.type in PRIMITIVES and node.is_active else None

    @property
    def cut(self) -> int | None:
        """The step of the whole schedule at which a boundary cuts it; None if that is unknown.

        A SplitSigmas that takes the second part of another one counts its steps from where that part begins.
        """
        total = 0
        seen: set[Setting] = set()
        setting: Setting | None = self
        while setting is not None:
            value = setting.value
            if not isinstance(value, int) or setting in seen:
                return None
            seen.add(setting)
            total += value
            setting = setting.counts_from
        return total

    @property
    def counts_from(self) -> "Setting | None":
        """The boundary from which this one counts its steps, if that is not the beginning of the schedule."""
        graph, seen, node = self.node.graph, {self.node}, self.node
        while node.type == SPLIT:
            slot = node.inputs.get("sigmas")
            source = graph.through_reroutes(slot.source if slot else None)
            above = graph.nodes.get(source.node) if source is not None else None
            if source is None or above is None or above.type != SPLIT or not above.is_active or above in seen:
                return None
            if source.slot == 1:
                return Setting(above, "step", "boundary")
            seen.add(above)
            node = above
        return None

    @property
    def value(self) -> Any:
        """The current value, or None if another node computes it."""
        if self.primitive is not None:
            return self.primitive.widgets.get("value")
        return None if self.source is not None else self.node.widgets.get(self.widget)


@dataclass(eq=False)
class Sampler:
    node: Node
    members: list[Node]
    """The nodes that make it up, itself first."""
    model_node: Node | None
    """The one before whose model input SUN goes."""
    problem: str | None = None
    """What is not known well enough to change it, in words."""
    negative_problem: str | None = None
    """The same for its negative prompt, to which an unknown schedule does not matter."""
    settings: list[Setting] = field(default_factory=list)

    @property
    def graph(self) -> Graph:
        return self.node.graph

    def parts(self) -> list[Node]:
        """Return its nodes and the primitives that drive them."""
        primitives = [setting.primitive for setting in self.settings]
        return [*self.members, *(primitive for primitive in primitives if primitive is not None)]

    @property
    def model_input(self) -> Input | None:
        if self.model_node is None:
            return None
        rule, inputs = self.model_node.rule, self.model_node.inputs
        if self.model_node.problem is not None:
            return next((slot for slot in inputs.values() if slot.type == MODEL and slot.source), None)
        return inputs.get((rule.model if rule else None) or "model")

    @cached_property
    def start(self) -> Setting | None:
        """The setting that lets it begin within its schedule and run to the end, as image to image does."""
        steps = self.value("steps")
        if not isinstance(steps, int):
            return None
        cuts = [cut for cut in self.all_of("boundary") if isinstance(cut.value, int) and 0 < cut.value < steps]
        if len(cuts) != 1 or not (cuts[0].widget == "start_at_step" or self._runs_after(cuts[0].node)):
            return None
        return cuts[0]

    @property
    def run(self) -> Any:
        """How many steps of its schedule it runs, if that is known."""
        steps, start = self.value("steps"), self.start
        return steps - start.value if start is not None else steps

    def _runs_after(self, split: Node) -> bool:
        """Tell whether it takes the second part of a schedule that `split` cuts."""
        slot = self.node.inputs.get("sigmas")
        return self.graph.through_reroutes(slot.source if slot else None) == Source(split.id, 1)

    def all_of(self, role: Role) -> list[Setting]:
        return [setting for setting in self.settings if setting.role == role]

    def value(self, role: Role) -> Any:
        """Return the current value of the first setting with this role, or None if it is missing or unknown."""
        return self._values.get(role)

    @cached_property
    def _values(self) -> dict[Role, Any]:
        return {setting.role: setting.value for setting in reversed(self.settings)}


def find_samplers(workflow: Workflow) -> list[Sampler]:
    """Return the active samplers of all graphs that run. A subgraph runs if one of its nodes is active."""
    running = workflow.running_graphs()
    return [
        _sampler(node)
        for graph in workflow.graphs.values()
        if graph in running
        for node in graph.nodes.values()
        if node.is_active and (node.problem is not None or (node.rule is not None and node.rule.is_sampler))
    ]


def _sampler(node: Node) -> Sampler:
    """Follow the links that the rules name, from the sampler to its guider, schedule and choice of sampler."""
    if node.problem is not None:
        return Sampler(node, [node], node, node.problem, node.problem)
    sampler = Sampler(node, [], None)
    waiting = [node]
    while waiting:
        member = waiting.pop(0)
        if member in sampler.members:
            continue
        sampler.members.append(member)
        rule = member.rule
        assert rule is not None
        if rule.model is not None:
            sampler.model_node = member
        sampler.settings += [Setting(member, widget, role) for widget, role in rule.sets.items()]
        for name, section in rule.follow.items():
            slot = member.inputs.get(name)
            source = node.graph.through_reroutes(slot.source if slot else None)
            found = node.graph.nodes.get(source.node) if source else None
            if found is not None and found.type in SECTIONS[section] and found.is_active:
                waiting.append(found)
            elif section != "choices" and sampler.problem is None:  # automatic settings bring their own sampler
                sampler.problem = _unknown(name, source, found)
                if section == "guiders":  # what is wrong may be its model
                    sampler.model_node = found
                if section == "guiders" or (found is not None and found.type in NOT_SUPPORTED):
                    sampler.negative_problem = sampler.problem
    return sampler


def _unknown(name: str, source: Source | None, found: Node | None) -> str:
    verb = "come" if name.endswith("s") else "comes"
    if found is not None:
        why = term(NOT_SUPPORTED[found.type]) if found.type in NOT_SUPPORTED else say("SUN does not know")
        return say(
            "its {input} {verb} from {node}, of the type {type}, which {why}",
            input=name,
            verb=verb,
            node=found.label,
            type=on_one_line(found.type)[:60],
            why=why,
        )
    if source is not None and source.node == SUBGRAPH_INPUT:
        return say("its {input} {verb} from outside the subgraph", input=name, verb=verb)
    return say("nothing is connected to its {input} input", input=name)


def consumers_of_primitive(primitive: Node) -> list[Consumer]:
    """Return every input that a primitive drives, past reroutes."""
    return primitive.graph.final_consumers(Source(primitive.id, 0))


def with_partners(chosen: Iterable[Sampler], everything: list[Sampler], workflow: Workflow) -> list[Sampler]:
    """Add the samplers that cannot keep their settings when the chosen ones change."""
    groups = partner_groups(everything, workflow)
    numbers = {groups[sampler] for sampler in chosen}
    return [sampler for sampler in everything if groups[sampler] in numbers]


def grouped(samplers: list[Sampler], workflow: Workflow) -> list[list[Sampler]]:
    """Group samplers, partners together."""
    together: dict[Sampler, list[Sampler]] = defaultdict(list)
    for sampler, group in partner_groups(samplers, workflow).items():
        together[group].append(sampler)
    return list(together.values())


def partner_groups(samplers: list[Sampler], workflow: Workflow) -> dict[Sampler, Sampler]:
    """Return the representative of each sampler's group: a union-find over shared parts and latents.

    A shared choice of sampler makes no partners: what SUN needs there comes from its automatic settings too.
    """
    parent = {sampler: sampler for sampler in samplers}

    def root(sampler: Sampler) -> Sampler:
        while parent[sampler] is not sampler:
            parent[sampler] = parent[parent[sampler]]
            sampler = parent[sampler]
        return sampler

    by_member: dict[Node, Sampler] = {}
    by_node = {sampler.node: sampler for sampler in samplers}
    for sampler in samplers:
        for member in sampler.members:
            if member.type in SECTIONS["choices"]:
                continue
            parent[root(sampler)] = root(by_member.setdefault(member, sampler))
        for earlier in _noise_from(sampler, by_node, workflow):
            parent[root(sampler)] = root(earlier)
    return {sampler: root(sampler) for sampler in samplers}


def _noise_from(sampler: Sampler, by_node: Mapping[Node, Sampler], workflow: Workflow) -> Iterator[Sampler]:
    """Find every sampler whose unfinished latent this one continues, past nodes that change latents.

    A latent is unfinished if the earlier sampler leaves noise in it, or if this one adds none.
    """
    adds_none = _adds_no_noise(sampler)
    slot = sampler.node.inputs.get("latent_image")
    waiting = [(sampler.graph, slot.source)] if slot and slot.source else []
    seen: set[tuple[str | None, Source]] = set()
    while waiting:
        graph, source = waiting.pop()
        if (graph.id, source) in seen:
            continue
        seen.add((graph.id, source))
        node = graph.nodes.get(source.node)
        if node is not None and node in by_node:
            if adds_none or node.widgets.get("return_with_leftover_noise") == "enable":
                yield by_node[node]
        else:
            waiting.extend(_latents_above(graph, source, workflow))


def _adds_no_noise(sampler: Sampler) -> bool:
    """Tell whether a sampler starts from its latent as it is."""
    noise = sampler.node.inputs.get("noise")
    source = sampler.graph.through_reroutes(noise.source if noise else None)
    node = sampler.graph.nodes.get(source.node) if source else None
    return sampler.node.widgets.get("add_noise") in ("disable", False) or (node is not None and node.type == NO_NOISE)


def _latents_above(graph: Graph, source: Source, workflow: Workflow) -> Iterator[tuple[Graph, Source]]:
    """Find what feeds the node behind `source` with latents, into subgraphs and out of them."""
    node = graph.nodes.get(source.node)
    if source.node == SUBGRAPH_INPUT:
        for instance in graph.hosts:
            outer = instance_input(instance, graph, source.slot)
            if outer is not None and outer.source is not None:
                yield instance.graph, outer.source
    elif node is None or node.mode == MUTED:
        return
    elif (inner := workflow.inner(node)) is not None and node.is_active:
        feeding = inner.outputs[source.slot] if source.slot < len(inner.outputs) else None
        yield from [(inner, feeding)] if feeding is not None else []
    else:
        for slot in node.inputs.values():
            if slot.source is not None and (node.type in REROUTES or is_latent_input(slot.name, slot.type)):
                yield graph, slot.source
