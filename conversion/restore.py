"""Restore a workflow: remove the nodes that a plan put in and bring back the former settings."""

from collections import Counter, defaultdict

from .edits import Edit, Plan, connect_input, remove_node, sentences
from .graph import Node, Source, Workflow
from .left_behind import former_settings
from .models import Installed
from .notes import forget, is_bypassed_by_sun, wake, was_bypassed_by_sun
from .record import Former, bring_back, has_record, lost_entries, read_record, unlinked_before
from .rules import NEGATIVE
from .samplers import Sampler
from .surroundings import Surroundings
from .words import say

Records = dict[Node, list[Former]]
"""The nodes that have a record, and the former settings in it."""


def restore(workflow: Workflow, targets: list[Node] | None, installed: Installed) -> Plan:
    """Plan to remove the nodes with a record that the targets mean, or all.

    What a node left on the samplers that was deleted by hand comes back too.
    """
    around = Surroundings(workflow, installed)
    records = read_records(around)
    suns = _with_shared_settings(_aimed_at(records, targets, around), records)
    formers, noted = _formers(suns, records), _noted(suns, records, targets, around)
    bypassed = [node for node in _bypassed(targets, around) if node not in suns]
    if not suns and not bypassed and not any(noted.values()):
        here = say("There is nothing to restore here")
        return Plan(
            here if targets else say("There is nothing to restore in this workflow"),
            say(
                "Restore removes the nodes that SUN's menu added. A node that was added by hand has no record of the "
                "former settings; bypass it (Ctrl+B) or delete it."
            ),
        )
    made = [*undo(suns, records), *_by_notes(noted), *(edit for node in bypassed for edit in wake(node))]
    back = [*formers, *(former for by_type in noted.values() for former in by_type)]
    values: dict[Node, list[str]] = defaultdict(list)
    for former in back:
        if former.value is not None:
            values[former.node].append(f"{former.widget} {former.value}")
    said = [f"{node.label}: {', '.join(of_node)}." for node, of_node in values.items()]
    if any(_has_lost(sun, noted[sun.type], around) for sun in suns):
        said.append(say("Some of the changed nodes are gone, so their settings could not be restored."))
    said += [say("{node} is active again.", node=node.label) for node in bypassed if is_bypassed_by_sun(node)]
    return Plan(_summary(suns, bool(back)), sentences(said), "success", made)


def read_records(around: Surroundings) -> Records:
    """Return what every record in a workflow holds."""
    return {node: read_record(node, around.parts_behind) for node in around.workflow.nodes() if has_record(node)}


def _has_lost(sun: Node, noted: list[Former], around: Surroundings) -> bool:
    """Tell whether a record names settings that do not come back, by itself or by the notes on the samplers behind it.

    A sampler that was moved into a subgraph is not where the record says, but its note went along.
    """
    lost = Counter(entry["widget"] for entry in lost_entries(sun, around.parts_behind))
    behind = {part for sampler in around.fed_by(sun) for part in sampler.parts()} if lost else ()
    return bool(lost - Counter(former.widget for former in noted if former.node in behind))


def undo(suns: list[Node], records: Records) -> list[Edit]:
    """Return the edits that remove nodes with a record, and those alone, and bring back the settings before them."""
    made = take_out(suns) + [edit for former in _formers(suns, records) for edit in bring_back(former)]
    noted = dict.fromkeys((former.node, sun.type) for sun in suns for former in records[sun])
    return made + [edit for node, of in noted for edit in forget(node, of)]


def _formers(suns: list[Node], records: Records) -> list[Former]:
    return list(dict.fromkeys(former for sun in suns for former in records[sun]))


def by_notes(suns: list[Node], records: Records, targets: list[Node], around: Surroundings) -> list[Edit]:
    """Return the edits for what the notes of the targets' samplers name, and no record of `suns`, which go, does."""
    return _by_notes(_noted(suns, records, targets, around))


def _noted(
    suns: list[Node], records: Records, targets: list[Node] | None, around: Surroundings
) -> dict[str, list[Former]]:
    """Return what the samplers that the targets mean had, by their notes, where no record of `suns` says it."""
    recorded = {(former.node, former.widget) for former in _formers(suns, records)}
    aimed = _aimed_samplers(None if targets is None else {*targets, *suns}, around)
    return {
        of: [former for former in formers if (former.node, former.widget) not in recorded]
        for of, formers in former_settings(aimed, around, set(suns)).items()
    }


def _by_notes(noted: dict[str, list[Former]]) -> list[Edit]:
    made = [edit for formers in noted.values() for former in formers for edit in bring_back(former)]
    nodes = dict.fromkeys((former.node, of) for of, formers in noted.items() for former in formers)
    return made + [edit for node, of in nodes for edit in forget(node, of)]


def _bypassed(targets: list[Node] | None, around: Surroundings) -> list[Node]:
    """Return the nodes that a click bypassed, though the artist may have woken them: all, or those of the targets."""
    found = [node for node in around.workflow.nodes() if was_bypassed_by_sun(node)]
    if targets is None or not found:
        return found
    chosen = set(targets)
    for sampler in _aimed_samplers(set(targets), around):
        chosen.update(around.lines.of_sampler(sampler)[0].passed)
    return [node for node in found if node in chosen]


def _summary(suns: list[Node], are_settings_back: bool) -> str:
    count = len(suns)
    if not suns:
        return say("The former settings are back") if are_settings_back else say("What SUN bypassed is active again")
    if all(node.type == NEGATIVE for node in suns):
        one = say("Negative Prompt at CFG 1 is removed")
        what = one if count == 1 else say("{count} Negative Prompt at CFG 1 nodes are removed", count=count)
        return say("{what}, and the former settings are back", what=what) if are_settings_back else what
    if not are_settings_back:
        return say("SUN is removed") if count == 1 else say("{count} SUN nodes are removed", count=count)
    if count == 1:
        return say("SUN is removed, and the former settings are back")
    return say("{count} SUN nodes are removed, and the former settings are back", count=count)


def _aimed_at(records: Records, targets: list[Node] | None, around: Surroundings) -> list[Node]:
    """Return the nodes with a record: all, or those on the MODEL lines that the targets mean."""
    if targets is None:
        return list(records)
    chosen = set(targets)
    for sampler in _aimed_samplers(set(targets), around):
        line, _ = around.lines.of_sampler(sampler)
        chosen.update(line.ours, line.lost)
    return [node for node in records if node in chosen]


def _aimed_samplers(aimed: set[Node] | None, around: Surroundings) -> list[Sampler]:
    """Return the samplers of which a node, or one on their MODEL line, is in `aimed`; all if that is None."""
    return [
        sampler
        for sampler in around.samplers
        if aimed is None or not aimed.isdisjoint(sampler.parts()) or around.lines.of_sampler(sampler)[0].passes(aimed)
    ]


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
