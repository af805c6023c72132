"""Restore: takes SUNSpeedUp nodes out and brings back the settings that were there before."""

from collections import defaultdict

from . import edits
from .edits import Edit
from .graph import Node, Source, Workflow
from .lines import Lines
from .models import Installed
from .record import Former, has_record, read_record
from .result import Plan, sentences
from .samplers import find_samplers


def restore(workflow: Workflow, targets: list[Node] | None, installed: Installed) -> Plan:
    """The plan that takes out the SUNSpeedUp nodes that the targets mean, or all that have a record."""
    suns = _with_shared_settings(_aimed_at(workflow, targets, installed), workflow)
    if not suns:
        where = "here" if targets else "in this workflow"
        return Plan(
            f"There is nothing to restore {where}",
            "Restore takes out the SUN 4-Step Speed-Up that Speed up with SUN put in. One that was put in by hand has "
            "no record of what was there before; bypass it (Ctrl+B) or delete it.",
        )
    formers = list(dict.fromkeys(former for sun in suns for former in read_record(sun)))
    made: list[Edit] = []
    going = set(suns)
    for sun in suns:
        made += _take_out(sun, going)
    for former in formers:
        made += _bring_back(former)
    names = sentences([f"{former.node.label}: {former.widget} {former.value}." for former in formers])
    count = "SUN is out" if len(suns) == 1 else f"{len(suns)} SUN nodes are out"
    return Plan(f"{count}, and the former settings are back", names, "success", made)


def _aimed_at(workflow: Workflow, targets: list[Node] | None, installed: Installed) -> list[Node]:
    """The SUNSpeedUp nodes with a record: all, or those that are targets or on the MODEL line of a sampler that is."""
    recorded = [node for node in workflow.nodes() if has_record(node)]
    if targets is None:
        return recorded
    chosen = {node for node in targets if node in recorded}
    lines = Lines(workflow, installed)
    for sampler in find_samplers(workflow):
        passed = lines.of_sampler(sampler)[0].passed
        if any(target in passed or target in sampler.members for target in targets):
            chosen.update(passed)
    return [node for node in recorded if node in chosen]


def _with_shared_settings(chosen: list[Node], workflow: Workflow) -> list[Node]:
    """Adds the SUNSpeedUp nodes whose record names a widget that the chosen ones bring back."""
    named: dict[tuple[Node, str], list[Node]] = defaultdict(list)
    for node in workflow.nodes():
        if has_record(node):
            for former in read_record(node):
                named[former.node, former.widget].append(node)
    found, waiting = dict.fromkeys(chosen), list(chosen)
    while waiting:
        for former in read_record(waiting.pop()):
            for other in named.pop((former.node, former.widget), ()):
                if other not in found:
                    found[other] = None
                    waiting.append(other)
    return list(found)


def _take_out(sun: Node, suns: set[Node]) -> list[Edit]:
    """Links what the node feeds to what feeds it, over any other node that goes as well."""
    slot = sun.inputs.get("model")
    source = slot.source if slot else None
    via = slot.via if slot else None
    seen = {sun}
    while source is not None and (earlier := sun.graph.nodes.get(source.node)) in suns and earlier not in seen:
        seen.add(earlier)
        slot = earlier.inputs.get("model")
        source, via = (slot.source, slot.via) if slot else (None, None)
    linked = [
        edits.connect(sun.graph, source, consumer.node.id, consumer.input.name, via)
        for consumer in sun.graph.consumers(Source(sun.id, 0))
        if source is not None and consumer.node not in suns
    ]
    return [*linked, edits.remove(sun.graph, sun.id)]


def _bring_back(former: Former) -> list[Edit]:
    graph = former.node.graph
    back = []
    if former.value is not None:
        back.append(edits.set_widget(graph, former.node.id, former.widget, former.value))
    if former.plug is not None:
        back.append(edits.connect(graph, former.plug, former.node.id, former.widget))
    return back
