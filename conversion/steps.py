"""Give the samplers behind SUN nodes another number of steps."""

from typing import Any

from .changes import changes_for, edits_of, wanted_values
from .edits import Plan, sentences
from .graph import Node, Workflow
from .models import Installed
from .rules import SUN_ON_MODEL
from .samplers import Sampler, Setting, grouped, with_partners
from .surroundings import Surroundings
from .words import say

OFFERED = (2, 4, 6, 8)
"""The numbers of steps that the menu offers."""


def set_steps(workflow: Workflow, targets: list[Node] | None, installed: Installed, steps: int) -> Plan:
    """Plan for the samplers behind the targets, or behind all SUN nodes. Schedules in parts keep their cuts."""
    around = Surroundings(workflow, installed)
    chosen = [sampler for node in targets or workflow.nodes() for sampler in _samplers_of(node, around)]
    partners = grouped(with_partners(chosen, around.samplers, workflow), workflow)
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
    return Plan(summary, sentences(left), "info" if left else "success", edits_of(changes_for(wanted).values()))


def _length(partners: list[Sampler], steps: int, wanted: dict[Setting, Any]) -> int:
    """Return how many steps partners get: one for each of them at least, if they run the parts of a schedule."""
    totals = [wanted[setting] for sampler in partners for setting in sampler.all_of("steps") if setting in wanted]
    return max([steps, *totals]) if len(partners) > 1 else steps


def _samplers_of(node: Node, around: Surroundings) -> list[Sampler]:
    if node.type in SUN_ON_MODEL and node.is_active:
        return [sampler for sampler in around.fed_by(node) if sampler.node.problem is None]
    return [sampler for sampler in around.samplers if sampler.node is node and node.type == "SUNSampler"]
