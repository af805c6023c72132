"""What is wrong with the settings around a SUN node, in words, and what would put it right."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .changes import changes_for, edits_of, wanted_values
from .edits import Edit, set_widget
from .graph import Node, Workflow
from .lines import Lines
from .models import Adapter, Installed, Model, choose_adapter, released_text
from .partners import with_partners
from .rules import DETERMINISTIC, RELEASED, STEPS, SUN_ON_MODEL
from .samplers import Sampler, find_samplers
from .speed_up import judge

FROM_SAMPLER = "from sampler"


@dataclass
class Finding:
    """One thing that is wrong: a few words, the remedy in words, and how it is applied where it can be."""

    text: str
    detail: str
    edits: list[Edit] = field(default_factory=list)
    needs_sun: bool = False
    """The remedy is a SUNSpeedUp before the node."""

    @property
    def can_fix(self) -> bool:
        return self.needs_sun or bool(self.edits)


class Surroundings:
    """A workflow, what is installed, and what is looked up for every SUN node."""

    def __init__(self, workflow: Workflow, installed: Installed) -> None:
        self.workflow, self.installed = workflow, installed
        self.lines = Lines(workflow, installed)
        self.samplers = find_samplers(workflow)

    def fed_by(self, sun: Node) -> list[Sampler]:
        """The samplers at the lower end of the MODEL line on which a SUN node is."""
        return [sampler for sampler in self.samplers if sun in self.lines.of_sampler(sampler)[0].passed]

    def has_sun(self, sampler: Sampler) -> bool:
        return self.lines.of_sampler(sampler)[1].sun is not None

    def adapter_node(self, sun: Node) -> Node | None:
        """The node whose widget names the adapter: the SUN node itself, or what SUNApply takes it from."""
        if "adapter_name" in sun.widgets or sun.type == "SUNSpeedUp":
            return sun
        slot = sun.inputs.get("sun_adapter")
        source = sun.graph.through_reroutes(slot.source if slot else None)
        found = sun.graph.nodes.get(source.node) if source else None
        return found if found is not None and found.type == "SUNLoadAdapter" else None

    def adapter_name(self, sun: Node) -> str | None:
        """None where it comes over a link."""
        node = self.adapter_node(sun)
        slot = node.inputs.get("adapter_name") if node else None
        name = node.widgets.get("adapter_name") if node and not (slot and slot.source) else None
        return name if isinstance(name, str) else None

    def adapter(self, sun: Node) -> Adapter | None:
        return self.installed.adapter(self.adapter_name(sun))


def findings(sun: Node, around: Surroundings) -> list[Finding]:
    """What is wrong with one SUN node, the worst first."""
    if sun.type == "SUNLoadAdapter":
        return _adapter_findings(sun, Model(), around)
    if sun.type == "SUNSampler":
        sampler = next((s for s in around.samplers if s.node is sun), None)
        return [*_without_sun(sampler, around), *_steps_findings(sun, [sampler], around)] if sampler else []
    if sun.type not in SUN_ON_MODEL:
        return []
    _, model = around.lines.into(sun)
    samplers = around.fed_by(sun)
    found = _adapter_findings(sun, model, around) + _model_findings(sun, model)
    found += _steps_findings(sun, [sampler for sampler in samplers if sampler.node.type != "SUNSampler"], around)
    if sun.widgets.get("settings") == FROM_SAMPLER:
        found += _sampler_findings(samplers)
    return found


def _adapter_findings(sun: Node, model: Model, around: Surroundings) -> list[Finding]:
    name, node = around.adapter_name(sun), around.adapter_node(sun)
    if name is None or node is None:
        return []
    adapter = around.installed.adapter(name)
    if adapter is None:
        folder = f"models/{RELEASED['folder']}"
        gone = f"{name[:80]} is not in {folder}; put it back, or choose another adapter."
        text, detail = "adapter missing", released_text() if name == RELEASED["name"] else gone
    elif adapter.error is not None:
        text, detail = "adapter unusable", adapter.error
    elif model.fits(adapter) is False:
        its = model.family or model.name or "another one"
        text = "other family"
        detail = f"{name[:80]} is for {adapter.family[:80] or 'another model'}, and the model is {its[:80]}; choose "
        detail += "an adapter that was made for it."
    else:
        return []
    choice = choose_adapter(model, around.installed)
    if choice.name is None or choice.is_missing or choice.name == name:
        return [Finding(text, detail)]
    return [Finding(text, detail, [set_widget(node.graph, node.id, "adapter_name", choice.name)])]


def _model_findings(sun: Node, model: Model) -> list[Finding]:
    slot = sun.inputs.get("model")
    if slot is None or slot.source is None:
        return []
    if model.sun is not None:
        detail = f"{model.sun.label} is on this MODEL line already; this one takes its place. Take one of them out."
        return [Finding("SUN twice", detail)]
    if model.refusal is not None:
        return [Finding("cannot work here", f"SUN cannot work here: {model.refusal}.")]
    return []


def _without_sun(sampler: Sampler, around: Surroundings) -> list[Finding]:
    line, model = around.lines.of_sampler(sampler)
    if model.sun is not None or not line.loaders:
        return []
    detail = "This sampler needs a MODEL with SUN: put SUN 4-Step Speed-Up or Apply SUN Adapter before it."
    refusal = judge(sampler, around.lines, around.installed).refusal
    return [Finding("no SUN", f"{detail} But {refusal}." if refusal else detail, needs_sun=refusal is None)]


def _steps_findings(sun: Node, samplers: list[Sampler], around: Surroundings) -> list[Finding]:
    adapter = around.adapter(sun) if sun.type in SUN_ON_MODEL else None
    steps = adapter.steps if adapter else STEPS
    far = [sampler for sampler in samplers if _is_far(sampler.value("steps"), steps)]
    if not far:
        return []
    detail = f"{far[0].node.label} is set to {far[0].value('steps')} steps, and the adapter is made for {steps}: more "
    detail += f"only take longer, fewer are not enough. Set {steps}."
    together = with_partners(far, around.samplers)
    can_fix = all(around.has_sun(sampler) for sampler in together)
    changed = _changes(together, steps, lambda role: role in ("steps", "boundary")) if can_fix else []
    return [Finding(f"{far[0].value('steps')} steps", detail, changed)]


def _is_far(value: Any, steps: int) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not steps / 2 <= value <= 2 * steps


def _sampler_findings(samplers: list[Sampler]) -> list[Finding]:
    """For `settings: from sampler`; automatic settings put all this right by themselves."""
    found = []
    for sampler in samplers:
        cfg, name = sampler.value("cfg"), sampler.value("sampler")
        wrong = []
        if isinstance(cfg, (int, float)) and cfg != 1:
            wrong.append(f"CFG {cfg:g}")
        if isinstance(name, str) and name not in DETERMINISTIC:
            wrong.append(f"sampler {name[:40]}")
        if wrong:
            what = " and ".join(wrong)
            detail = f"{sampler.node.label} is set to {what}, and `settings` is `{FROM_SAMPLER}`: SUN needs CFG 1 and "
            detail += "a deterministic sampler (ddim, euler, dpmpp_2m). Set them, or set `settings` to automatic."
            edits = _changes([sampler], STEPS, lambda role: role in ("cfg", "sampler", "scheduler"))
            found.append(Finding(what, detail, edits))
    return found


def _changes(samplers: list[Sampler], steps: int, wanted: Callable[[str], bool]) -> list[Edit]:
    """The edits that bring the settings with the wanted roles to what SUN needs."""
    values = {setting: value for setting, value in wanted_values(samplers, steps).items() if wanted(setting.role)}
    return edits_of(changes_for(values).values())
