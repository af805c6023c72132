"""Give the samplers behind SUN nodes another number of steps."""

from collections import defaultdict
from typing import Any

from .changes import Change, changes_for, edits_of, wanted_values
from .edits import Edit, Plan, sentences
from .graph import Node, Workflow
from .models import Installed
from .notes import notes_of, to_restore
from .record import add_to_record, has_record, unrecorded
from .rules import SPEED_UP, SUN_ON_MODEL
from .samplers import Sampler, Setting, grouped, with_partners
from .surroundings import Surroundings
from .words import say

OFFERED = (2, 4, 6, 8)
"""The numbers of steps that the menu offers."""


def set_steps(workflow: Workflow, targets: list[Node] | None, installed: Installed, steps: int) -> Plan:
    """Plan for the samplers with SUN that the targets mean, or for all. Schedules in parts keep their cuts."""
    around = Surroundings(workflow, installed)
    partners = grouped(with_partners(_aimed_at(targets, around), around.samplers, workflow), workflow)
    ready = [group for group in partners if all(map(around.has_sun, group))]
    left = [
        say("{node} stays as it is, because a sampler without SUN shares its schedule.", node=sampler.node.label)
        for group in partners
        if group not in ready
        for sampler in group
        if around.has_sun(sampler)
    ]
    if not ready:
        return Plan(say("There is no sampler behind SUN here"), sentences(left))
    wanted: dict[Setting, Any] = {}
    for group in ready:
        values = wanted_values(group, steps)
        wanted |= {setting: value for setting, value in values.items() if setting.role in ("steps", "boundary")}
    names = ", ".join(sampler.node.label for group in ready for sampler in group)
    needed = " / ".join(map(str, sorted({_length(group, steps, wanted) for group in ready})))
    summary = say("{node}: {steps} steps", node=names, steps=needed)
    changes = changes_for(wanted)
    made = [*edits_of(changes.values()), *_remembered([s for group in ready for s in group], changes, around)]
    return Plan(summary, sentences(left), "info" if left else "success", made)


def _length(partners: list[Sampler], steps: int, wanted: dict[Setting, Any]) -> int:
    """Return how many steps partners get: one for each of them at least, if they run the parts of a schedule."""
    totals = [wanted[setting] for sampler in partners for setting in sampler.all_of("steps") if setting in wanted]
    return max([steps, *totals]) if len(partners) > 1 else steps


def _remembered(samplers: list[Sampler], changes: dict[Setting, Change], around: Surroundings) -> list[Edit]:
    """Return the edits by which records and notes name what they did not: "Speed up" found 4 steps and left them."""
    nodes = {part.node for change in changes.values() for part in (change, *change.hosts)}
    former = {setting: to_restore(change, SPEED_UP, nodes) for setting, change in changes.items()}
    changed: dict[Node, list[Change]] = defaultdict(list)
    for sampler in samplers:
        made = [former[setting] for setting in sampler.settings if setting in former]
        for sun in around.lines.of_sampler(sampler)[0].ours:
            if sun.type in SUN_ON_MODEL and has_record(sun):
                changed[sun] += made
    parts = around.parts_behind
    new = {sun: unrecorded(sun, made, parts) for sun, made in changed.items()}
    edits = [edit for sun, made in new.items() for edit in add_to_record(sun, made, parts)]
    if around.workflow.has_modes:
        edits += notes_of([change for made in new.values() for change in made], SPEED_UP, nodes)
    return edits


def _aimed_at(targets: list[Node] | None, around: Surroundings) -> list[Sampler]:
    """Return the samplers with SUN of which a target is a part, or behind which SUN node they are."""
    with_sun = [
        sampler
        for sampler in around.samplers
        if sampler.node.problem is None and (around.has_sun(sampler) or sampler.node.type == "SUNSampler")
    ]
    if targets is None:
        return with_sun
    aimed = set(targets)
    suns = [node for node in targets if node.type in SUN_ON_MODEL and node.is_active]
    behind = {sampler for sun in suns for sampler in around.fed_by(sun)}
    return [sampler for sampler in with_sun if sampler in behind or not aimed.isdisjoint(sampler.members)]
