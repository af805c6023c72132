"""What is wrong with the settings around a SUN node, in words, and what would fix it."""

from typing import Any

from .changes import edits_for
from .edits import Edit, Finding, set_widget
from .graph import Node
from .left_behind import asleep_without_sun, is_off, left_behind, left_by_negative, left_by_sun
from .models import (
    Model,
    choose_adapter,
    few_step_nodes,
    judge,
    neighbours,
    released_text,
)
from .negative_prompt import model_refusal
from .notes import bypass
from .rules import DETERMINISTIC, NEGATIVE, RELEASED, STEPS, SUN_ON_MODEL, UNEVEN, UNEVEN_SCHEDULES
from .samplers import Sampler
from .surroundings import Surroundings, once, once_per_group
from .words import say, term

FROM_SAMPLER = "from sampler"


def findings(sun: Node, around: Surroundings) -> list[Finding]:
    """Return what is wrong with one SUN node, or with a sampler that SUN left behind, the worst first."""
    if sun.type == "SUNLoadAdapter":
        return _adapter_findings(sun, Model(), around)
    if sun.type == "SUNSampler":
        sampler = next((s for s in around.samplers if s.node is sun), None)
        return [*_without_sun(sampler, around), *_steps_findings(sun, [sampler], around)] if sampler else []
    if sun.type == NEGATIVE:
        return _negative_findings(sun, around)
    if sun.type not in SUN_ON_MODEL:
        return [finding for sampler in around.samplers_of(sun) for finding in left_behind(sampler, around)]
    _, model = around.lines.into(sun)
    samplers = around.fed_by(sun)
    if is_off(sun):
        left = [finding for sampler in samplers for finding in left_by_sun(sampler, around)]
        return left + [finding for sampler in samplers for finding in asleep_without_sun(sampler, around)]
    found = _lost_findings(sun, around) + _adapter_findings(sun, model, around)
    found += _model_findings(sun, model, around) + _few_step_findings(sun, around)
    found += _steps_findings(sun, [sampler for sampler in samplers if sampler.node.type != "SUNSampler"], around)
    if sun.widgets.get("settings") == FROM_SAMPLER:
        found += [finding for sampler in samplers for finding in _sampler_findings(sampler, around)]
    else:
        found += [finding for sampler in samplers for finding in _parts_findings(sampler, around)]
    return found + _neighbour_findings(sun, around)


def _negative_findings(node: Node, around: Surroundings) -> list[Finding]:
    """Return what is wrong with a SUNNegative: an adapter reads the negative prompt, or it cannot work on the model."""
    slot, (_, model) = node.inputs.get("model"), around.lines.into(node)
    if slot is None or slot.source is None:
        return []
    if is_off(node):
        return [finding for sampler in around.fed_by(node) for finding in left_by_negative(sampler, around)]
    if lost := _lost_findings(node, around):
        return lost
    sun = around.adapter_beside(node)
    if sun is not None:
        detail = say(
            "{node} is on the same MODEL line, and its adapter reads the negative prompt already. Remove one of them.",
            node=sun.label,
        )
        return [Finding(say("does nothing here"), detail)]
    if model.negative is not None:
        detail = say(
            "{node} is already on this MODEL line, and this node replaces it. Remove one of them.",
            node=model.negative.label,
        )
        return [Finding(say("twice on this line"), detail)]
    refusal = model_refusal(model)
    return [Finding(say("cannot work here"), say("It cannot work here: {reason}.", reason=refusal))] if refusal else []


def _lost_findings(node: Node, around: Surroundings) -> list[Finding]:
    """Return a finding for a node that a merge loses, because it takes only the weights of its second MODEL."""
    return [
        Finding(
            say("lost in a merge"),
            say(
                "{node} is on model2 of {merge}, which takes only the weights from there; put it behind the merge.",
                node=node.label,
                merge=merge.label,
            ),
        )
        for merge in around.merges_below(node)
    ]


def _neighbour_findings(sun: Node, around: Surroundings) -> list[Finding]:
    """Return a finding for each node on the MODEL line, above SUN or below, that does not go together with it."""
    lines = [around.lines.into(sun)[0], *around.lines_behind(sun)]
    found = dict.fromkeys(named for line in lines for named in neighbours(line))
    return [Finding(term(badge), text) for badge, text in found if badge is not None]


@once
def _parts_findings(sampler: Sampler, around: Surroundings) -> list[Finding]:
    """Return a finding for a sampler that shares one schedule with others, spaced so that its parts do not meet.

    Automatic settings space the steps of each part by themselves, between its first and last sigma.
    """
    scheduler = sampler.value("scheduler")
    if len(around.partners_of(sampler)) < 2 or not _runs_a_part(sampler):
        return []
    if scheduler in UNEVEN:
        detail = say(
            "{node} runs a part of the steps, and the scheduler {scheduler} leaves too much for some of them. Set "
            "the scheduler simple.",
            node=sampler.node.label,
            scheduler=scheduler,
        )
        return [Finding(say("scheduler {name}", name=scheduler), detail, _even_schedulers(sampler, around))]
    uneven = [member for member in sampler.members if member.type in UNEVEN_SCHEDULES]
    if not uneven:
        return []
    detail = say(
        "{node} runs a part of the steps, and {schedule} leaves too much for some of them. Use a "
        "BasicScheduler with the scheduler simple.",
        node=sampler.node.label,
        schedule=uneven[0].label,
    )
    return [Finding(uneven[0].type, detail)]


@once_per_group
def _even_schedulers(partners: list[Sampler], around: Surroundings) -> list[Edit]:
    return edits_for([partners], STEPS, ("scheduler",))


def _runs_a_part(sampler: Sampler) -> bool:
    return bool(sampler.all_of("boundary")) or any(member.type == "SplitSigmasDenoise" for member in sampler.members)


def _missing_adapter(name: str) -> str:
    if not name:
        return say("No SUN adapter is chosen; choose a file from the list.")
    if name == RELEASED["name"]:
        return released_text()
    return say(
        "{adapter} is not in models/{folder}; put it back, or choose another adapter.",
        adapter=name[:80],
        folder=RELEASED["folder"],
    )


def _adapter_findings(sun: Node, model: Model, around: Surroundings) -> list[Finding]:
    name, node = around.adapter_name(sun), around.adapter_node(sun)
    if name is None or node is None:
        return []
    adapter = around.installed.adapter(name)
    if adapter is None:
        text, detail = say("adapter missing"), _missing_adapter(name)
    elif adapter.error is not None:
        text, detail = say("adapter unusable"), adapter.error
    elif model.fits(adapter) is False:
        text = say("other family")
        detail = say(
            "{adapter} is for {its}, and the model is {family}; choose an adapter that was made for it.",
            adapter=name[:80],
            its=term(adapter.family[:80]) or say("another model"),
            family=(term(model.family) or model.name or say("another one"))[:80],
        )
    else:
        return []
    choice = choose_adapter(model, around.installed)
    if choice.name is None or choice.is_missing or choice.name == name:
        return [Finding(text, detail)]
    return [Finding(text, detail, [set_widget(node.graph, node.id, "adapter_name", choice.name)])]


def _model_findings(sun: Node, model: Model, around: Surroundings) -> list[Finding]:
    slot = sun.inputs.get("model")
    if slot is None or slot.source is None:
        return []
    if model.sun is not None:
        detail = say(
            "{node} is already on this MODEL line, and this node replaces it. Remove one of them.",
            node=model.sun.label,
        )
        return [Finding(say("SUN twice"), detail)]
    if model.refusal is not None:
        reason = say("SUN cannot work here: {reason}.", reason=model.refusal)
        in_the_way = few_step_nodes(around.lines.into(sun)[0]) if model.refusal == model.few_step else []
        return [Finding(say("cannot work here"), reason, _bypassed(in_the_way, around))]
    return []


def _few_step_findings(sun: Node, around: Surroundings) -> list[Finding]:
    """Return a finding for each node between SUN and a sampler that makes the model a few-step one.

    If SUN is for another family than the model, bypassing that node would not let it work.
    """
    line, model = around.lines.into(sun)
    adapter = around.adapter(sun)
    if model.others or (adapter is not None and model.fits(adapter) is False):
        return []
    above = few_step_nodes(line)
    nodes = dict.fromkeys(node for below in around.lines_behind(sun) for node in few_step_nodes(below))
    return [
        Finding(
            say("few-step LoRA"),
            say("{node} already makes its model a few-step one; bypass it to use SUN.", node=node.label),
            _bypassed([node], around),
        )
        for node in nodes
        if node not in above
    ]


def _bypassed(nodes: list[Node], around: Surroundings) -> list[Edit]:
    """Return the edits that bypass nodes.

    If one of them does more than the LoRA that is in the way, or a sampler without SUN needs it, return no edits.
    """
    if not around.workflow.has_modes or any(len(n.texts) > 1 or n in around.named_without_sun for n in nodes):
        return []
    return [edit for node in nodes for edit in bypass(node)]


def _without_sun(sampler: Sampler, around: Surroundings) -> list[Finding]:
    line, model = around.lines.of_sampler(sampler)
    if model.sun is not None or not line.loaders:
        return []
    detail = say("This sampler needs a MODEL with SUN: put SUN 4-Step Speed-Up or Apply SUN Adapter before it.")
    refusal = judge(sampler, around.lines, around.installed).refusal
    if refusal is not None:
        detail = say("{what} But {reason}.", what=detail, reason=refusal)
    return [Finding(say("no SUN"), detail, needs_sun=refusal is None)]


def _steps_findings(sun: Node, samplers: list[Sampler], around: Surroundings) -> list[Finding]:
    adapter = around.adapter(sun) if sun.type in SUN_ON_MODEL else None
    steps = adapter.steps if adapter else STEPS
    far = [sampler for sampler in samplers if _is_far(sampler.value("steps"), steps) and _is_far(sampler.run, steps)]
    if not far:
        return []
    found, given = far[0].value("steps"), {"node": far[0].node.label, "steps": steps}
    if found > steps:
        detail = say(
            "{node} is set to {found} steps, and the adapter is made for {steps}; more only take longer. Set {steps}.",
            found=found,
            **given,
        )
    else:
        detail = say(
            "{node} has too few steps ({found}) for the adapter, which is made for {steps}. Set {steps}.",
            found=found,
            **given,
        )
    text = say("1 step") if found == 1 else say("{steps} steps", steps=found)
    return [Finding(text, detail, _steps_edits(tuple(far), around, steps))]


@once
def _steps_edits(samplers: tuple[Sampler, ...], around: Surroundings, steps: int) -> list[Edit]:
    """Return the edits that give samplers and their partners so many steps, if all of them have SUN."""
    if not all(_have_sun(sampler, around) for sampler in samplers):
        return []
    one_each = list({id(around.partners_of(sampler)): sampler for sampler in samplers}.values())
    if len(one_each) == 1:
        return _steps_of_partners(one_each[0], around, steps)
    return edits_for(map(around.partners_of, one_each), steps, ("steps", "boundary"))


@once_per_group
def _have_sun(partners: list[Sampler], around: Surroundings) -> bool:
    return all(map(around.has_sun, partners))


@once_per_group
def _steps_of_partners(partners: list[Sampler], around: Surroundings, steps: int) -> list[Edit]:
    return edits_for([partners], steps, ("steps", "boundary"))


def _is_far(value: Any, steps: int) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not steps / 2 <= value <= 2 * steps


@once
def _sampler_findings(sampler: Sampler, around: Surroundings) -> list[Finding]:
    """Return what is wrong with a sampler under `settings: from sampler`. Automatic settings need none of this."""
    cfg, name, scheduler = (sampler.value(role) for role in ("cfg", "sampler", "scheduler"))
    wrong = []
    if isinstance(cfg, (int, float)) and cfg != 1:
        wrong.append(f"CFG {cfg:g}")
    if isinstance(name, str) and name not in DETERMINISTIC:
        wrong.append(say("sampler {name}", name=name[:40]))
    if scheduler in UNEVEN:
        wrong.append(say("scheduler {name}", name=scheduler))
    if not wrong:
        return []
    *others, last = wrong
    what = say("{one} and {other}", one=", ".join(others), other=last) if others else last
    detail = say(
        "{node} is set to {what}, and `settings` is `from sampler`: SUN needs CFG 1, a deterministic sampler (ddim, "
        "euler, dpmpp_2m) and an even scheduler (simple). Set them, or set `settings` to automatic.",
        node=sampler.node.label,
        what=what,
    )
    text = what if len(wrong) < 3 else say("{line} (and {count} more)", line=wrong[0], count=len(wrong) - 1)
    return [Finding(text, detail, edits_for([[sampler]], STEPS, ("cfg", "sampler", "scheduler")))]
