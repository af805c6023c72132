"""Find out which model a sampler uses, whether SUN can work on it, and which adapter fits."""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from .graph import Graph, Node, Source, Workflow, on_one_line
from .model_line import ModelLine, ModelLines
from .pack_samplers import Definitions
from .rules import (
    FEW_STEP_SAMPLERS,
    NEGATIVE,
    NEIGHBOURS,
    OTHER_NODES,
    OURS_ON_MODEL,
    RELEASED,
    RELEASED_SIZE,
    STEPS,
    SUN_ON_MODEL,
    UNET_FAMILIES,
    Distilled,
    distilled_by_name,
    family_by_name,
    is_unknown_unless_named,
)
from .samplers import Sampler
from .words import say, term

LOW_CFG, SHORT = 2.5, 12
"""The CFG and steps up to which a sampler's settings are those of a few-step model."""


@dataclass(frozen=True)
class Adapter:
    """An adapter file. `layout` is compared with a model's; it is None if the file was not read."""

    name: str
    family: str = ""
    layout: Hashable = None
    layers: int = 0
    steps: int = STEPS
    bytes: int = 0
    error: str | None = None
    """Why it cannot be used, in one sentence."""


def adapter_by_name(name: str) -> Adapter:
    """Return what is known of an adapter without reading it: of the released one, its family."""
    is_released = name.replace("\\", "/").split("/")[-1] == RELEASED["name"]
    return Adapter(name, RELEASED["family"] if is_released else "")


@dataclass(frozen=True)
class ModelFile:
    """A model file's header. `layout` is None if the model has no cross-attention layers that SUN knows."""

    name: str
    family: str
    layout: Hashable = None


@dataclass(frozen=True)
class Installed:
    """What this machine has. `model_file` finds a model by the file names on its loader, or returns None."""

    adapters: Sequence[Adapter] = ()
    default: str | None = None
    model_file: Callable[[Sequence[str]], ModelFile | None] = lambda names: None
    definitions: Definitions | None = None
    """Looks up the server's node definitions; None if there is no server."""
    is_known: bool = True
    """Whether `adapters` are those of the machine that will run the workflow."""

    def adapter(self, name: object) -> Adapter | None:
        return next((adapter for adapter in self.adapters if adapter.name == name), None)

    def usable(self) -> list[Adapter]:
        """Return the adapters without an error, the default one first."""
        usable = [adapter for adapter in self.adapters if adapter.error is None]
        return sorted(usable, key=lambda adapter: adapter.name != self.default)


@dataclass
class Model:
    """What is known about the model at the upper end of a MODEL line."""

    name: str = ""
    family: str = ""
    layout: Hashable = None
    others: list[str] = field(default_factory=list)
    """The families on the line that SUN is not for, each by its name."""
    unknown: str | None = None
    """Why it cannot be told which model it is, in words."""
    few_step: str | None = None
    """How it is known to be a few-step model, and what to do to use SUN, in words."""
    suspicion: str | None = None
    """The same if it is one only for a sampler that is set to few steps."""
    sun: Node | None = None
    """The SUN node that is already on the line."""
    negative: Node | None = None
    """The SUNNegative that is already on the line."""

    @property
    def refusal(self) -> str | None:
        """Why SUN cannot speed it up and what to do, in words."""
        return _not_for(self.others[0]) if self.others else self.unknown or self.few_step

    def fits(self, adapter: Adapter) -> bool | None:
        """Compare with an adapter. None if too little is known about either."""
        if self.layout is not None and adapter.layout is not None:
            return self.layout == adapter.layout
        if self.family and adapter.family:
            return self.family == adapter.family
        return None


def model_of(line: ModelLine, installed: Installed) -> Model:
    """Judge a MODEL line by its nodes and by the header of the model file, or by its name if it is not here."""
    model = Model()
    model.sun = next((node for node in line.ours if node.type in SUN_ON_MODEL and node.is_active), None)
    model.negative = next((node for node in line.ours if node.type == NEGATIVE and node.is_active), None)
    if not line.loaders:
        model.unknown = line.breaks[0]
        return model
    for loader in line.loaders:
        _look_at(loader, model, installed)
    if not model.others:
        model.others = [OTHER_NODES[node.type] for node in line.named if node.type in OTHER_NODES]
    _look_for_few_steps(line, model)
    return model


def _look_at(loader: Node, model: Model, installed: Installed) -> None:
    file = installed.model_file(loader.texts)
    named = family_by_name((*loader.texts, loader.type))
    if file is not None:
        model.name, model.family, model.layout = on_one_line(file.name), file.family, file.layout
        if file.layout is None:  # its name can tell more than "a transformer model"
            model.others.append(named if named is not None and named not in UNET_FAMILIES else file.family)
        return
    model.name = model.name or (on_one_line(loader.texts[0]) if loader.texts else "")
    if named is None and is_unknown_unless_named(loader.type):
        model.unknown = model.unknown or say(
            "its model file ({name}) cannot be read here, and {loader} rarely loads U-Nets",
            name=model.name[:80] or say("unnamed"),
            loader=on_one_line(loader.type)[:60],
        )
    elif named is not None and named not in UNET_FAMILIES:
        model.others.append(named)
    else:
        model.family = named or model.family


def _not_for(family: str) -> str:
    return say("its model is {family}, and SUN is for U-Nets such as Stable Diffusion 1.5", family=term(family))


def _look_for_few_steps(line: ModelLine, model: Model) -> None:
    """Note what makes a model a few-step one already, or a LoRA that may have made it so.

    A checkpoint is known by one word of its name. A LoRA needs a second sign, in its name or in the sampler's settings:
    many styles are called after lightning.
    """
    for node in [*line.named, *line.loaders]:
        named = _few_step_method(node)
        if named is None:
            continue
        if node in line.loaders:
            text = say(
                "its model is already a few-step one ({method}); load the ordinary version to use SUN",
                method=named.method,
            )
        else:
            text = say(
                "{node} already makes its model a few-step one ({method}); remove it to use SUN",
                node=node.label,
                method=named.method,
            )
        if named.is_sure or node in line.loaders:
            model.few_step = text
            return
        model.suspicion = model.suspicion or text


def _few_step_method(node: Node) -> Distilled | None:
    """Return the method by which a node makes its model a few-step one. An adapter's name can hold such a word too."""
    if node.type in OURS_ON_MODEL:
        return None
    if node.type == "ModelSamplingDiscrete" and node.widgets.get("sampling") == "lcm":
        return Distilled("LCM", True)
    return distilled_by_name(node.texts) if node.widgets.get("strength_model") != 0 else None


def few_step_nodes(line: ModelLine) -> list[Node]:
    """Return the nodes on a line, other than its loaders, that surely make the model a few-step one."""
    return [
        node
        for node in line.named
        if node not in line.loaders and (method := _few_step_method(node)) is not None and method.is_sure
    ]


def neighbours(line: ModelLine, going: Collection[Node] = ()) -> list[tuple[str | None, str]]:
    """Return badge and text for each node on a line, but for those in `going`, that does not go together with SUN."""
    return [
        (neighbour.badge, term(neighbour.text).format(node=node.label))
        for node in line.named
        if node not in going and (neighbour := NEIGHBOURS.get(node.type)) is not None
    ]


@dataclass(frozen=True)
class Choice:
    """The adapter to use: a name, or None and the reason."""

    name: str | None
    steps: int = STEPS
    note: str = ""
    is_missing: bool = False


def choose_adapter(model: Model, installed: Installed) -> Choice:
    """Choose the installed adapter that fits, the user's default first, or the released one if none is installed."""
    candidates = [(model.fits(adapter), adapter) for adapter in installed.usable()]
    for fit, adapter in candidates:
        if fit:
            return Choice(adapter.name, adapter.steps)
    for fit, adapter in candidates:
        if fit is None and (not model.family or adapter.layout is None):
            note = say(
                "The run will show whether {adapter} fits, because the model file could not be read.",
                adapter=adapter.name,
            )
            return Choice(adapter.name, adapter.steps, note)
    if model.family in ("", RELEASED["family"]) and installed.adapter(RELEASED["name"]) is None:
        note = released_text() if installed.is_known else _needed_text()
        return Choice(RELEASED["name"], note=note, is_missing=installed.is_known)
    note = say(
        "no adapter for {family} is installed; distil one with Train SUN Adapter, or use another model",
        family=term(model.family) or say("this model"),
    )
    return Choice(None, note=note)


def released_text() -> str:
    """Say which file to download and where to put it."""
    return say(
        "The adapter is not here yet: download {name} ({size}, {license}) from {url} into models/{folder} and press R.",
        **RELEASED,
        size=RELEASED_SIZE,
    )


def _needed_text() -> str:
    return say(
        "It needs the adapter {name} in models/{folder}; if it is not there yet, download it ({size}, {license}) from "
        "{url}.",
        **RELEASED,
        size=RELEASED_SIZE,
    )


class Lines:
    """The MODEL lines of a workflow, and the model of each."""

    def __init__(self, workflow: Workflow, installed: Installed) -> None:
        self._lines, self._installed = ModelLines(workflow), installed
        self._models: dict[tuple[str | None, Source | None], Model] = {}

    def of(self, graph: Graph, source: Source | None) -> tuple[ModelLine, Model]:
        """Return the line that ends at an output, and its model."""
        key, line = (graph.id, source), self._lines.at(graph, source)
        if key not in self._models:
            self._models[key] = model_of(line, self._installed)
        return line, self._models[key]

    def of_sampler(self, sampler: Sampler) -> tuple[ModelLine, Model]:
        return self.of(sampler.graph, sampler.model_input.source if sampler.model_input else None)

    def samplers_behind(self, samplers: Iterable[Sampler]) -> dict[Node, list[Sampler]]:
        """Return the samplers that each node of this pack leads to, active or not."""
        behind: dict[Node, list[Sampler]] = defaultdict(list)
        for sampler in samplers:
            for node in self.of_sampler(sampler)[0].ours:
                behind[node].append(sampler)
        return behind

    def into(self, node: Node) -> tuple[ModelLine, Model]:
        """Return the line that ends at a node's own model input, and its model."""
        slot = node.inputs.get("model")
        return self.of(node.graph, slot.source if slot else None)


@dataclass(eq=False)
class Candidate:
    """A sampler, its model, and either an adapter or the reason why the sampler stays as it is."""

    sampler: Sampler
    line: ModelLine
    model: Model
    choice: Choice | None = None
    refusal: str | None = None


def judge(sampler: Sampler, lines: Lines, installed: Installed) -> Candidate:
    """Decide whether a sampler can be sped up, and with which adapter."""
    line, model = lines.of_sampler(sampler)
    candidate = Candidate(sampler, line, model, refusal=sampler.problem)
    bypassed = next((node for node in line.ours if node.type in SUN_ON_MODEL and not node.is_active), None)
    if model.sun is not None:
        candidate.refusal = say("{node} is already on its MODEL line", node=model.sun.label)
    elif bypassed is not None:
        candidate.refusal = say(
            "{node} is already on its MODEL line, but bypassed; enable it (Ctrl+B)", node=bypassed.label
        )
    elif model.refusal is not None and (sampler.problem is None or line.loaders):
        candidate.refusal = model.refusal
    elif candidate.refusal is None and model.suspicion is not None and is_set_to_few_steps(sampler):
        candidate.refusal = model.suspicion
    elif candidate.refusal is None and _has_unknown_cut(sampler):
        candidate.refusal = say("another node sets its number of steps, so its start and end cannot be scaled")
    if candidate.refusal is None:
        candidate.choice = choose_adapter(model, installed)
        if candidate.choice.name is None:
            candidate.refusal = candidate.choice.note
    return candidate


def is_set_to_few_steps(sampler: Sampler) -> bool:
    """Tell whether a sampler runs as few-step models need it: with the sampler lcm, or few steps at a low CFG."""
    steps, cfg = sampler.value("steps"), sampler.value("cfg")
    is_low = isinstance(cfg, (int, float)) and cfg <= LOW_CFG
    is_short = isinstance(steps, int) and steps <= SHORT
    return sampler.value("sampler") in FEW_STEP_SAMPLERS or (is_low and is_short)


def _has_unknown_cut(sampler: Sampler) -> bool:
    steps = sampler.value("steps")
    cuts = [setting.value for setting in sampler.all_of("boundary")]
    return not isinstance(steps, int) and any(cut not in (0, 10000) for cut in cuts)
