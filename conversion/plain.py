"""The same graph without SUN, to draw the same picture both ways and compare."""

import copy
from typing import Any

from .changes import changes_for, edits_of, plain_values
from .edits import Edit
from .findings import FROM_SAMPLER
from .graph import SUBGRAPH_INPUT, ConversionError, Graph, Node, NodeId, Place, Source, Workflow, as_dict
from .left_behind import is_off
from .model_line import instance_input, model_inputs
from .models import Installed, Lines
from .notes import is_bypassed_by_sun, wake
from .plan import read
from .restore import by_notes, read_records, take_out, undo
from .rules import GET_NODE, PRIMITIVES, SUN_ON_MODEL
from .samplers import Sampler, Setting, find_samplers, grouped, with_partners
from .surroundings import Surroundings
from .ui_edits import apply_to_ui
from .words import say

Widgets = set[tuple[str | None, NodeId, str]]
"""Each by graph, node and name."""


def without_sun(data: Any, prompt: Any, installed: Installed) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return a workflow and its prompt, as the page sends both, without SUN, and the samplers' settings in words.

    A sampler gets the settings from before "Speed up with SUN", or plain ones if these were not recorded. The prompt
    keeps its seeds. Raises ConversionError if there is no SUN, or a node cannot run without it.
    """
    workflow = read(data, installed.definitions)
    sped_up = [node for node in workflow.nodes() if node.type in SUN_ON_MODEL and node.is_active]
    if not sped_up or not isinstance(prompt, dict):
        raise ConversionError(say("There is no SUN node in this workflow that could be left out"))
    only = next((node for node in workflow.nodes() if node.type == "SUNSampler" and node.is_active), None)
    if only is not None:
        raise ConversionError(
            say("{node} runs only with SUN; put a KSampler in its place to compare.", node=only.label)
        )
    around = Surroundings(workflow, installed)
    records = read_records(around)
    recorded = [sun for sun in sped_up if sun in records]
    samplers = _behind(sped_up, around)
    behind = {(s.graph.id, s.node.id) for s in samplers}
    asleep = _asleep(samplers, around)
    undone = [*undo(recorded, records), *by_notes(recorded, records, [s.node for s in samplers], around)]
    undone += [edit for node in asleep for edit in wake(node)]
    restored = apply_to_ui(data, undone, installed.definitions)
    rest = Surroundings(read(restored, installed.definitions), installed)
    plain = apply_to_ui(restored, _take_out_the_rest(rest), installed.definitions)
    after = read(plain, installed.definitions)
    samplers = [s for s in find_samplers(after) if (s.graph.id, s.node.id) in behind]
    lines = Lines(after, installed)
    said = ", ".join(_described(sampler, lines.of_sampler(sampler)[1].negative) for sampler in samplers)
    queued = _prompt_without_sun(prompt, after, _widgets(samplers))
    awake = {after.graphs[node.graph.id].nodes[node.id] for node in asleep}
    return plain, _with_negatives(queued, after, awake) if awake else queued, said


def _behind(suns: list[Node], around: Surroundings) -> list[Sampler]:
    chosen = dict.fromkeys(sampler for sun in suns for sampler in around.fed_by(sun))
    return with_partners(chosen, around.samplers, around.workflow)


def _asleep(samplers: list[Sampler], around: Surroundings) -> list[Node]:
    """Return the SUNNegatives that "Speed up" bypassed, because SUN does their work. Without SUN they do it again."""
    ours = dict.fromkeys(node for sampler in samplers for node in around.lines.of_sampler(sampler)[0].ours)
    return [node for node in ours if is_bypassed_by_sun(node)]


def _take_out_the_rest(around: Surroundings) -> list[Edit]:
    """Return the edits for the SUN nodes that have no record of the settings before them."""
    suns = [node for node in around.workflow.nodes() if node.type in SUN_ON_MODEL]
    samplers = _behind([sun for sun in suns if sun.is_active], around)
    wanted: dict[Setting, Any] = {}
    for group in grouped([sampler for sampler in samplers if sampler.node.problem is None], around.workflow):
        wanted |= plain_values(group)
    return [*edits_of(changes_for(wanted).values()), *take_out(suns)]


def _widgets(samplers: list[Sampler]) -> Widgets:
    settings = [setting for sampler in samplers for setting in sampler.settings]
    return {(setting.node.graph.id, setting.node.id, setting.widget) for setting in settings}


def _prompt_without_sun(prompt: dict[str, Any], workflow: Workflow, widgets: Widgets) -> dict[str, Any]:
    """Change a copy of the prompt, in which every node has a path: "7", or "5:7" in the subgraph of node 5.

    `widgets` get what they have in `workflow`, which is without SUN already.
    """
    prompt = copy.deepcopy(prompt)
    suns = {path: entry for path, entry in prompt.items() if as_dict(entry).get("class_type") in SUN_ON_MODEL}
    for path, entry in prompt.items():
        found = _at(workflow, path)
        inputs = as_dict(as_dict(entry).get("inputs"))
        for name, value in inputs.items():
            inputs[name] = _past(suns, value)
            if found and (found[-1].graph.id, found[-1].id, name) in widgets:
                former = _in_force(found[:-1], found[-1], name, workflow, prompt)
                inputs[name] = inputs[name] if former is None else former
    return {path: entry for path, entry in prompt.items() if path not in suns}


def _with_negatives(prompt: dict[str, Any], workflow: Workflow, awake: set[Node]) -> dict[str, Any]:
    """Put nodes that the page left out, because they were bypassed, before the inputs that they feed in `workflow`."""
    added: dict[str, Any] = {}
    for path, entry in prompt.items():
        found = _at(workflow, path)
        inputs = as_dict(as_dict(entry).get("inputs"))
        for name, value in inputs.items():
            source = found[-1].feed(name) if found else None
            above = _above(found[:-1], found[-1].graph, source, workflow, awake) if source is not None else None
            if above is None:
                continue
            hosts, negative = above
            number = ":".join(str(one.id) for one in (*hosts, negative))
            given = {own: _in_force(hosts, negative, own, workflow, prompt) for own in _given(negative)}
            added[number] = {"class_type": negative.type, "inputs": {**given, "model": value}}
            inputs[name] = [number, 0]
    return {**prompt, **added}


def _given(negative: Node) -> list[str]:
    """Return the names of what a prompt has to give to a node, its MODEL aside."""
    linked = [name for name, slot in negative.inputs.items() if slot.feed is not None and name != "model"]
    return list(dict.fromkeys([*negative.widgets, *linked]))


def _above(
    hosts: list[Node], graph: Graph, source: Source | None, workflow: Workflow, awake: set[Node]
) -> tuple[list[Node], Node] | None:
    """Return the first node that gives an output, past bypassed ones, with those around it, if it is one of `awake`."""
    seen: set[Node] = set()
    while source is not None:
        found = _giver(hosts, graph, source, workflow)
        if found is None or found[1] in seen:
            return None
        hosts, node, _ = found
        if node in awake:
            return hosts, node
        seen.add(node)
        graph = node.graph
        source = next((slot.source for slot in model_inputs(node) if slot.source), None) if not node.is_active else None
    return None


def _in_force(hosts: list[Node], node: Node, widget: str, workflow: Workflow, prompt: dict[str, Any]) -> Any:
    """Return a widget's value, or its link as the prompt has links; None if no value was saved.

    `hosts` are the nodes of the subgraphs around the node, the outermost first: each can have a value of its own.
    Raises ConversionError if another node gives the value, and the prompt does not have it.
    """
    source = node.graph.through_reroutes(node.feed(widget))
    if source is not None and source.node in node.graph.nodes:
        found = _giver(hosts, node.graph, source, workflow)
        path = ":".join(str(one.id) for one in (*found[0], found[1])) if found is not None else ""
        if found is not None and found[1].type in PRIMITIVES:
            return _in_force(found[0], found[1], "value", workflow, prompt)
        if found is None or path not in prompt:
            raise ConversionError(
                say(
                    "Without SUN, {node} gets its {widget} from a node that does not run; turn that one on to compare.",
                    node=node.label,
                    widget=widget[:40],
                )
            )
        return [path, found[2]]
    outer = next((place for place in Place(node, widget).on_hosts() if hosts and place.node is hosts[-1]), None)
    value = _in_force(hosts[:-1], *outer, workflow, prompt) if outer is not None else None
    return node.saved(widget) if value is None else value


def _giver(hosts: list[Node], graph: Graph, source: Source, workflow: Workflow) -> tuple[list[Node], Node, int] | None:
    """Return the node that gives an output, with those of the subgraphs around it, and its slot; None if nothing does.

    Goes on into subgraphs and out of them, and from a Get node to the Set node of that name, which only the page has.
    """
    seen: set[tuple[str | None, Source]] = set()
    way = list(hosts)
    while (feed := graph.through_reroutes(source)) is not None and (graph.id, feed) not in seen:
        seen.add((graph.id, feed))
        above = graph.nodes.get(feed.node)
        inner = workflow.inner(above) if above is not None else None
        if above is None:
            outer = instance_input(way[-1], graph, feed.slot) if way and feed.node == SUBGRAPH_INPUT else None
            output = outer.source if outer is not None else None
            graph = way.pop().graph if way else graph
        elif inner is not None:
            output = inner.outputs[feed.slot] if feed.slot < len(inner.outputs) else None
            way.append(above)
            graph = inner
        elif above.type == GET_NODE:
            output = _sent(above)
        else:
            return way, above, feed.slot
        if output is None:
            return None
        source = output
    return None


def _sent(getter: Node) -> Source | None:
    """Return what feeds the Set node of the name that a Get node asks for."""
    senders = getter.graph.senders.get(str(getter.widgets.get("name")), ())
    return next((slot.source for sender in senders for slot in sender.inputs.values() if slot.source), None)


def _past(suns: dict[str, Any], value: Any) -> Any:
    """Return what feeds the SUN node that a link comes from; any other value as it is."""
    seen: set[str] = set()
    while isinstance(value, list) and value and str(value[0]) in suns and value[0] not in seen:
        seen.add(value[0])
        value = as_dict(suns[str(value[0])].get("inputs")).get("model")
    return value


def _at(workflow: Workflow, path: str) -> list[Node]:
    """Return the node that runs as `path`, after those of the subgraphs around it; nothing if it is not there."""
    found: list[Node] = []
    graph: Graph | None = workflow.root
    for part in path.split(":"):
        node = _node(graph, part) if graph is not None else None
        if node is None:
            whole = _node(workflow.root, path)
            return [whole] if whole is not None else []
        found.append(node)
        graph = workflow.inner(node)
    return found


def _node(graph: Graph, name: str) -> Node | None:
    """Return a node by its id as a text. Most ids are numbers."""
    return graph.nodes.get(name) or (graph.nodes.get(int(name)) if name.isascii() and name.isdecimal() else None)


def _described(sampler: Sampler, negative: Node | None) -> str:
    """Describe the settings of a run to come: `KSampler (#3): 25 steps, CFG 7`.

    `negative` is the SUNNegative before the sampler, which sets CFG 1 unless it is told not to.
    """
    steps, cfg = sampler.value("steps"), sampler.value("cfg")
    known = [say("{steps} steps", steps=steps)] if isinstance(steps, int) else []
    if negative is not None and not is_off(negative) and negative.widgets.get("cfg") != FROM_SAMPLER and cfg != 1:
        known.append(say("CFG 1 by {node}", node=negative.label))
    elif isinstance(cfg, (int, float)):
        known.append(f"CFG {cfg:g}")
    return f"{sampler.node.label}: {', '.join(known)}" if known else sampler.node.label
