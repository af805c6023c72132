"""What the SUN nodes of a graph show on their faces, and the fix for what is wrong around them."""

import json
from typing import Any

from .edits import Plan, sentences
from .findings import FROM_SAMPLER, findings
from .graph import Node, Source, Workflow
from .left_behind import is_off, notes_on_delete
from .models import Adapter, Installed
from .rules import BROADCASTS, DETERMINISTIC, NEGATIVE, OURS_ON_MODEL, SECTIONS, SUN_ON_MODEL
from .samplers import Sampler
from .served import served
from .speed_up import speed_up
from .surroundings import Surroundings
from .words import say, term

SPEAKING = (*SECTIONS["sun"], "SUNSampler")
MOST_PLAIN = 2
"""How many samplers without SUN a face names: it has room for five lines."""


def check(workflow: Workflow, installed: Installed) -> list[dict[str, Any]]:
    """Return what each SUN node shows: lines for its face, and a badge if something is wrong.

    A sampler that still has the settings of a SUN node that is off or deleted has an entry too: a badge and no face.
    Each entry is {"graph", "node", "face": lines, "badge": {"text", "detail", "fix"} or None, "plain": samplers,
    "samplers", "on_delete": edits}. `fix` tells whether the action fix on this node can mend it, `plain` names the
    samplers beside it that run without SUN, and `samplers` (see served.py) those behind it. The page makes the edits of
    `on_delete` when the artist deletes the node.
    """
    around = Surroundings(workflow, installed)
    entries, notes = [], notes_on_delete(around)
    for node in workflow.nodes():
        if not _is_looked_at(node, around):
            continue
        face, found = _face(node, around) if node.is_active else [], findings(node, around)
        badge = None
        if found:
            can_fix = any(finding.can_fix for finding in found)
            badge = {"text": found[0].text, "detail": sentences([f.detail for f in found]), "fix": can_fix}
        on_delete = notes.get(node, [])
        if face or badge or on_delete:
            entry = {"graph": node.graph.id, "node": node.id, "face": face, "badge": badge}
            samplers = served(node, around) if node.type in OURS_ON_MODEL else []
            entries.append({**entry, "plain": _plain(node, around), "samplers": samplers, "on_delete": on_delete})
    return entries


def _is_looked_at(node: Node, around: Surroundings) -> bool:
    """Tell whether a node can have an entry: an active SUN node, one that puts SUN on a MODEL, or a sampler."""
    return (node.type in SPEAKING and node.is_active) or node.type in OURS_ON_MODEL or bool(around.samplers_of(node))


def fix(workflow: Workflow, targets: list[Node] | None, installed: Installed) -> Plan:
    """Apply the remedies of the targets' badges, or of all badges if there are no targets."""
    around = Surroundings(workflow, installed)
    aimed = workflow.nodes() if targets is None else targets
    nodes = [node for node in aimed if _is_looked_at(node, around)]
    found = [(node, finding) for node in nodes for finding in findings(node, around)]
    repairs = [finding for _, finding in found if finding.can_fix]
    left = sentences([finding.detail for _, finding in found if not finding.can_fix])
    if not repairs:
        nothing = say("There is nothing that SUN can fix by itself") if found else say("There is nothing to fix")
        return Plan(nothing, left)
    lists = {id(finding.edits): finding.edits for finding in repairs}  # partners have theirs in common
    unique = {json.dumps(edit): edit for edits in lists.values() for edit in edits}  # a loader can serve several
    edits = list(unique.values())
    without_sun = [node for node, finding in found if finding.needs_sun]
    if without_sun:
        edits += speed_up(workflow, without_sun, installed).edits
    summary = say("Fixed: {what}", what=", ".join(dict.fromkeys(finding.text for finding in repairs)))
    return Plan(summary, left, "info" if left else "success", edits)


def _face(node: Node, around: Surroundings) -> list[str]:
    if node.type == "SUNSampler":
        sun = around.sun_before(node)
        return _face(sun, around)[:1] if sun is not None else []
    adapter = around.adapter(node)
    lines = [_adapter_line(adapter)] if adapter is not None and adapter.error is None else []
    if is_off(node):
        return [*lines, say("turned off by its own settings")]
    if node.type == NEGATIVE:
        lines += [*_plug_lines(node), *(() if around.adapter_beside(node) else _run_lines(node, around))]
    if node.type in SUN_ON_MODEL:
        lines += [*_fit_lines(node, adapter, around), *_run_lines(node, around)]
    return lines


def _plain(node: Node, around: Surroundings) -> list[dict[str, Any]]:
    """Return the samplers whose times the page compares with those of a run with SUN."""
    plain = around.plain_beside(node)[:MOST_PLAIN] if node.type in SUN_ON_MODEL else []
    return [{"graph": s.graph.id, "node": s.node.id, "label": s.node.label} for s in plain]


def _adapter_line(adapter: Adapter) -> str:
    family = term(adapter.family[:40]) or say("unknown family")
    size = f"{adapter.bytes / 1e6:.1f} MB"
    return say(
        "{family} · {layers} layers · {steps} steps · {size}",
        family=family,
        layers=adapter.layers,
        steps=adapter.steps,
        size=size,
    )


def _plug_lines(node: Node) -> list[str]:
    lines = []
    if not _is_plugged(node, "model"):
        lines.append(say("no MODEL is connected"))
    senders = any(other.type in BROADCASTS and other.is_active for other in node.graph.nodes.values())
    if node.type == "SUNApply" and not _is_plugged(node, "sun_adapter") and not senders:
        lines.append(say("no SUN adapter is connected"))
    return lines


def _is_plugged(node: Node, name: str) -> bool:
    slot = node.inputs.get(name)
    return slot is not None and slot.source is not None


def _fit_lines(node: Node, adapter: Adapter | None, around: Surroundings) -> list[str]:
    if unplugged := _plug_lines(node):
        return unplugged
    _, model = around.lines.into(node)
    if adapter is None or adapter.error is not None or model.refusal is not None:
        return []
    name = model.name[:60] or say("this MODEL")
    fits = model.fits(adapter)
    if fits is None:
        return [say("the run will show whether it fits {model}", model=name)]
    return [say("fits {model}", model=name) if fits else say("does not fit {model}", model=name)]


def _run_lines(node: Node, around: Surroundings) -> list[str]:
    """Describe the run to come: `KSampler: 4 steps, automatic: CFG 7 -> 1`."""
    samplers = around.works_for(node)
    if not samplers:
        return [] if _is_used(node) or _plug_lines(node) else [say("no sampler is connected")]
    first = samplers[0]
    if first.node.problem is not None:
        line = say("{node}: SUN does not know its settings", node=first.node.label)
    else:
        line = f"{first.node.label}: {_run(first, node)}"
    return [say("{line} (and {count} more)", line=line, count=len(samplers) - 1) if len(samplers) > 1 else line]


def _is_used(node: Node) -> bool:
    """Tell whether a node's MODEL goes to another node, or out of its subgraph."""
    graph, output = node.graph, Source(node.id, 0)
    return bool(graph.final_consumers(output)) or output in map(graph.through_reroutes, graph.outputs)


def _run(sampler: Sampler, node: Node) -> str:
    steps, cfg = sampler.value("steps"), sampler.value("cfg")
    name, scheduler = sampler.value("sampler"), sampler.value("scheduler")
    if not isinstance(steps, int):
        said = say("steps by link")
    elif sampler.start is not None:
        said = say("{run} of {steps} steps", run=sampler.run, steps=steps)
    else:
        said = say("{steps} steps", steps=steps)
    if FROM_SAMPLER in (node.widgets.get("settings"), node.widgets.get("cfg")):
        return say("{steps}, as set on it", steps=said)
    changed = []
    if isinstance(cfg, (int, float)) and cfg != 1:
        changed.append(f"CFG {cfg:g} -> 1")
    is_set_by_sun = node.type in SUN_ON_MODEL  # Negative Prompt at CFG 1 leaves sampler and scheduler as they are
    if is_set_by_sun and isinstance(name, str) and name not in DETERMINISTIC:
        changed.append(f"{name[:30]} -> euler")
    if is_set_by_sun and isinstance(scheduler, str) and scheduler != "simple":
        changed.append(f"{scheduler[:30]} -> trailing")
    if not changed:
        return say("{steps}, automatic", steps=said)
    return say("{steps}, automatic: {changes}", steps=said, changes=", ".join(changed))
