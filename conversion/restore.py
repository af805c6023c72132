"""Restore a workflow: remove the nodes that a plan put in and bring back the former settings."""

import json
from collections import defaultdict
from functools import cache

from .edits import Edit, Plan, connect_input, remove_node, sentences, set_widget, unset_widget
from .findings import former_edits, left_behind
from .graph import Node, Source, Workflow
from .models import Installed, Lines
from .record import Former, entries_of, forget, has_record, is_bypassed_by_sun, read_record, unlinked_before, wake
from .rules import NEGATIVE
from .samplers import Sampler, find_samplers
from .surroundings import Surroundings
from .words import say

Records = dict[Node, list[Former]]
"""The nodes that have a record, and the former settings in it."""


def restore(workflow: Workflow, targets: list[Node] | None, installed: Installed) -> Plan:
    """Plan to remove the nodes with a record that the targets mean, or all."""
    lines, samplers = Lines(workflow, installed), find_samplers(workflow)
    records = read_records(workflow, lines, samplers)
    suns = _with_shared_settings(_aimed_at(records, targets, lines, samplers), records)
    bypassed = _bypassed(workflow, targets, lines, samplers)
    if not suns and not bypassed and (back := after_deletion(workflow, targets, installed)):
        return Plan(say("The former settings are back"), "", "success", back)
    if not suns and not bypassed:
        here = say("There is nothing to restore here")
        return Plan(
            here if targets else say("There is nothing to restore in this workflow"),
            say(
                "Restore removes the nodes that SUN's menu added. A node that was added by hand has no record of the "
                "former settings; bypass it (Ctrl+B) or delete it."
            ),
        )
    formers = _formers(suns, records)
    made = [*undo(suns, records), *(edit for node in bypassed for edit in wake(node))]
    brought_back = [
        f"{former.node.label}: {former.widget} {former.value}." for former in formers if former.value is not None
    ]
    if any(len(records[sun]) < len(entries_of(sun)) for sun in suns):
        brought_back.append(say("Some of the changed nodes are gone, so their settings could not be restored."))
    brought_back += [say("{node} is active again.", node=node.label) for node in bypassed]
    summary = _summary(suns, bool(formers)) if suns else say("What Fix bypassed is active again")
    return Plan(summary, sentences(brought_back), "success", made)


def read_records(workflow: Workflow, lines: Lines, samplers: list[Sampler]) -> Records:
    """Return what every record in a workflow holds."""

    @cache
    def behind() -> dict[Node, list[Sampler]]:
        return lines.samplers_behind(samplers)

    def parts(sun: Node) -> list[Node]:
        here = [sampler for sampler in behind().get(sun, []) if sampler.graph is sun.graph]
        return list(dict.fromkeys(part for sampler in here for part in sampler.parts()))

    return {node: read_record(node, parts) for node in workflow.nodes() if has_record(node)}


def undo(suns: list[Node], records: Records) -> list[Edit]:
    """Return the edits that remove nodes with a record, and those alone, and bring back the settings before them."""
    formers, made = _formers(suns, records), take_out(suns)
    made += [edit for former in formers for edit in _bring_back(former)]
    return made + [edit for node in dict.fromkeys(former.node for former in formers) for edit in forget(node)]


def _formers(suns: list[Node], records: Records) -> list[Former]:
    return list(dict.fromkeys(former for sun in suns for former in records[sun]))


def after_deletion(workflow: Workflow, targets: list[Node] | None, installed: Installed) -> list[Edit]:
    """Return the edits for samplers whose SUN node was deleted, by the notes on their own nodes."""
    around = Surroundings(workflow, installed)
    aimed = [s for s in around.samplers if targets is None or not set(targets).isdisjoint(s.parts())]
    edits = [edit for sampler in aimed if left_behind(sampler, around) for edit in former_edits(sampler, around)]
    return list({json.dumps(edit): edit for edit in edits}.values())  # partners have theirs in common


def _bypassed(workflow: Workflow, targets: list[Node] | None, lines: Lines, samplers: list[Sampler]) -> list[Node]:
    """Return the nodes that Fix bypassed: all, or those on the MODEL lines that the targets mean."""
    found = [node for node in workflow.nodes() if is_bypassed_by_sun(node)]
    if targets is None or not found:
        return found
    aimed = set(targets)
    chosen = aimed.copy()
    for sampler in samplers:
        line, _ = lines.of_sampler(sampler)
        if not aimed.isdisjoint(sampler.parts()) or line.passes(aimed):
            chosen.update(line.passed)
    return [node for node in found if node in chosen]


def _summary(suns: list[Node], are_settings_back: bool) -> str:
    count = len(suns)
    if all(node.type == NEGATIVE for node in suns):
        one = say("Negative Prompt at CFG 1 is removed")
        what = one if count == 1 else say("{count} Negative Prompt at CFG 1 nodes are removed", count=count)
        return say("{what}, and the former settings are back", what=what) if are_settings_back else what
    if not are_settings_back:
        return say("SUN is removed") if count == 1 else say("{count} SUN nodes are removed", count=count)
    if count == 1:
        return say("SUN is removed, and the former settings are back")
    return say("{count} SUN nodes are removed, and the former settings are back", count=count)


def _aimed_at(records: Records, targets: list[Node] | None, lines: Lines, samplers: list[Sampler]) -> list[Node]:
    """Return the nodes with a record: all, or those on the MODEL lines that the targets mean."""
    if targets is None:
        return list(records)
    aimed = set(targets)
    chosen = aimed & records.keys()
    for sampler in samplers:
        line, _ = lines.of_sampler(sampler)
        if not aimed.isdisjoint(sampler.parts()) or line.passes(aimed):
            chosen.update(line.ours)
    return [node for node in records if node in chosen]


def _with_shared_settings(chosen: list[Node], records: Records) -> list[Node]:
    """Add the nodes whose record names a widget that the chosen ones bring back."""
    named: dict[tuple[Node, str], list[Node]] = defaultdict(list)
    for node, formers in records.items():
        for former in formers:
            named[former.node, former.widget].append(node)
    found, waiting = dict.fromkeys(chosen), list(chosen)
    while waiting:
        for former in records[waiting.pop()]:
            for other in named.pop((former.node, former.widget), ()):
                if other not in found:
                    found[other] = None
                    waiting.append(other)
    return list(found)


def take_out(suns: list[Node]) -> list[Edit]:
    """Remove nodes, and link what they feed to what feeds them.

    All links come first: a native reroute goes with its last link, and new links can run through it.
    """
    going = set(suns)
    return [*(edit for sun in suns for edit in _past(sun, going)), *(remove_node(sun.graph, sun.id) for sun in suns)]


def _past(sun: Node, suns: set[Node]) -> list[Edit]:
    """Link what the node feeds to what feeds it, past any other node that is removed too."""
    slot = sun.inputs.get("model")
    source = slot.source if slot else None
    via = slot.via if slot else None
    seen = {sun}
    while source is not None and (earlier := sun.graph.nodes.get(source.node)) in suns and earlier not in seen:
        seen.add(earlier)
        slot = earlier.inputs.get("model")
        source, via = (slot.source, slot.via) if slot else (None, None)
    unlinked = unlinked_before(sun) if has_record(sun) else []
    return [
        connect_input(sun.graph, source, consumer.node.id, consumer.input.name, via)
        for consumer in sun.graph.consumers(Source(sun.id, 0))
        if source is not None and consumer.node not in suns and [consumer.node.id, consumer.input.name] not in unlinked
    ]


def _bring_back(former: Former) -> list[Edit]:
    graph = former.node.graph
    back: list[Edit] = []
    if former.value is not None:
        back.append(set_widget(graph, former.node.id, former.widget, former.value))
    elif former.is_unset:
        back.append(unset_widget(graph, former.node.id, former.widget))
    if former.plug is not None:
        back.append(connect_input(graph, former.plug, former.node.id, former.widget))
    return back
