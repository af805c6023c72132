"""Tell whether Negative Prompt at CFG 1 would do something for a sampler: its negative prompt hardly counts so far.

And which of these nodes do nothing any more once samplers are sped up, because an adapter reads the negative prompt.
"""

from collections.abc import Collection, Iterator

from .graph import Node, Source, Workflow
from .model_line import MODEL, model_inputs
from .models import Candidate, Lines, Model, is_set_to_few_steps
from .rules import COUNTS_ABOVE_CFG, LEFT_SAMPLERS, NEGATIVE, NEGATIVE_FAMILIES, NO_NEGATIVE, REROUTES, SET_NODE
from .samplers import Sampler
from .words import say, term


def negative_refusal(sampler: Sampler, lines: Lines) -> str | None:
    """Say why a sampler's negative prompt stays as it is; None if the node can let it count."""
    line, model = lines.of_sampler(sampler)
    bypassed = next((node for node in line.ours if not node.is_active), None)
    if model.sun is not None:
        return say("{node} is on its MODEL line, and its adapter reads the negative prompt", node=model.sun.label)
    if model.negative is not None:
        return say("{node} is already on its MODEL line", node=model.negative.label)
    if bypassed is not None:
        return say("{node} is already on its MODEL line, but bypassed; enable it (Ctrl+B)", node=bypassed.label)
    if sampler.negative_problem is not None and not line.loaders:
        return _problem(sampler)
    refusal = model_refusal(model)
    if refusal is not None:
        return refusal
    if sampler.negative_problem is not None:
        return _problem(sampler)
    return _why_it_counts(sampler, model) or why_it_is_empty(sampler)


def model_refusal(model: Model) -> str | None:
    """Say why the node cannot work on a model, or that it cannot be told which model it is; None if it can."""
    other = next((family for family in model.others if family not in NEGATIVE_FAMILIES), None)
    if other is not None:
        return say("its model is {family}, on which Negative Prompt at CFG 1 does not work", family=term(other))
    return None if model.others else model.unknown


def _problem(sampler: Sampler) -> str | None:
    """Say what keeps a node from a sampler. Other packs' samplers have reasons that speak of steps."""
    if sampler.node.problem is None or sampler.node.type in LEFT_SAMPLERS:
        return sampler.negative_problem
    return say("SUN does not know its settings; put Negative Prompt at CFG 1 on its MODEL line by hand")


def _why_it_counts(sampler: Sampler, model: Model) -> str | None:
    """Say that the negative prompt counts by itself: at a higher CFG, with a model that is not a few-step one."""
    settings = sampler.all_of("cfg")
    if not settings:
        return say("it needs a SUN adapter, which reads the negative prompt")
    if model.few_step is not None or (model.suspicion is not None and is_set_to_few_steps(sampler)):
        return None
    cfg = settings[0].value
    if not isinstance(cfg, (int, float)):
        return say("another node sets its CFG, so SUN cannot tell whether its negative prompt counts already")
    if cfg > COUNTS_ABOVE_CFG:
        return say("at CFG {cfg} its negative prompt counts already", cfg=f"{cfg:g}")
    return None


def why_it_is_empty(sampler: Sampler) -> str | None:
    """Say that something else stands where the negative prompt would."""
    node = _negative_node(sampler)
    if node is None or node.type not in NO_NEGATIVE:
        return None
    return say("{node} empties its negative prompt; connect one instead", node=node.label)


def _negative_node(sampler: Sampler) -> Node | None:
    """Return the node that gives a sampler its negative prompt, past reroutes."""
    owner = sampler.model_node or sampler.node
    source = sampler.graph.through_reroutes(owner.feed("negative"))
    return sampler.graph.nodes.get(source.node) if source is not None else None


def idle_negatives(everything: list[Candidate], ready: list[Candidate], lines: Lines, workflow: Workflow) -> list[Node]:
    """Return the active SUNNegatives whose MODEL goes nowhere but to samplers with SUN, when `ready` have it too.

    A workflow in the API's format has none, because nothing can be bypassed there.
    """
    found = dict.fromkeys(node for c in ready for node in c.line.ours if node.type == NEGATIVE and node.is_active)
    if not found or not workflow.has_modes:
        return []
    is_ready = set(ready)
    with_sun = [c for c in everything if c in is_ready or c.model.sun is not None]
    members = {member for candidate in with_sun for member in candidate.sampler.members}
    busy = {node for c in everything if c.sampler.node not in members for node in c.line.ours}
    busy.update(node for end in _ends(workflow, members) for node in _ours_above(end, lines))
    return [node for node in found if node not in busy]


def _ends(workflow: Workflow, served: Collection[Node]) -> Iterator[Node]:
    """Find every node that takes a MODEL and hands none on, but for `served`: also one that does not run now."""
    for node in workflow.nodes():
        is_way = node.type in (*REROUTES, SET_NODE) or workflow.inner(node) is not None or _hands_model_on(node)
        if node not in served and not is_way:
            yield node


def _hands_model_on(node: Node) -> bool:
    outputs = [Source(node.id, slot) for slot, kind in enumerate(node.outputs) if kind == MODEL]
    return any(output in node.graph.outputs or node.graph.consumers(output) for output in outputs)


def _ours_above(end: Node, lines: Lines) -> Iterator[Node]:
    for slot in model_inputs(end):
        if slot.source is not None:
            yield from lines.of(end.graph, slot.source)[0].ours
