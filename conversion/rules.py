"""Read rules.json: which nodes sample, which widgets they have and in which order, which values SUN needs."""

import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

RULES: dict[str, Any] = json.loads((Path(__file__).parent / "rules.json").read_text(encoding="utf-8"))

Role = str
"""What a widget sets: steps, cfg, sampler, scheduler, or a boundary (a number of steps at which a schedule is cut)."""


@dataclass(frozen=True)
class NodeRule:
    """What is known of one node type."""

    widgets: tuple[str, ...]
    """The widgets in the order in which the UI saves their values."""
    sets: dict[str, Role] = field(default_factory=dict)
    """The widgets that SUN gives a new value, and the role of each."""
    model: str | None = None
    """The input before which SUN is inserted."""
    follow: dict[str, str] = field(default_factory=dict)
    """The inputs whose nodes belong to the same sampler, and the section of the rules that lists these nodes."""
    defaults: dict[str, Any] = field(default_factory=dict)
    """What the widgets hold in a new node."""
    choices: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """What the combos among the widgets offer, if that is known."""
    is_sampler: bool = False

    def order(self, values: list[Any]) -> list[str]:
        """Return the widgets' names in the order of `values`. Files from before 2023-04 lack control_after_generate."""
        names = list(self.widgets)
        if len(values) == len(names) - 1 and "control_after_generate" in names:
            names.remove("control_after_generate")
        return names


def _section(name: str) -> dict[str, NodeRule]:
    return {
        node_type: NodeRule(
            tuple(rule["widgets"]),
            rule.get("sets", {}),
            rule.get("model"),
            rule.get("follow", {}),
            dict(zip(rule["widgets"], rule.get("defaults", ()), strict=False)),
            is_sampler=name == "samplers",
        )
        for node_type, rule in RULES[name].items()
    }


SECTIONS = {
    name: _section(name)
    for name in (
        "switches",
        "samplers",
        "guiders",
        "choices",
        "schedules",
        "primitives",
        "sun",
        "named",
        "few_step_nodes",
        "prompts",
    )
}
PRIMITIVES = SECTIONS["primitives"]
NODES: dict[str, NodeRule] = {node_type: rule for section in SECTIONS.values() for node_type, rule in section.items()}

STEPS: int = RULES["values"]["steps"]
VALUES: dict[Role, Any] = RULES["values"]
PLAIN: dict[Role, Any] = RULES["plain"]
"""What a sampler without SUN is set to if nothing says what it had."""
UNEVEN: tuple[str, ...] = tuple(RULES["uneven"])
"""Schedulers that do not go together with a schedule in parts."""
UNEVEN_SCHEDULES: frozenset[str] = frozenset(RULES["uneven_schedules"])
"""Nodes that make such schedules."""
PROMPTS = SECTIONS["prompts"]
DETERMINISTIC: tuple[str, ...] = tuple(RULES["deterministic"])
FEW_STEP_SAMPLERS = ("lcm", "tcd")
"""Samplers that are for few-step models alone."""


@dataclass(frozen=True)
class Inserted:
    """A node that a plan can put on a MODEL line, as the page saves it."""

    title: str
    size: tuple[float, float]
    widgets: dict[str, Any]
    """Their values by name; the adapter's name is chosen anew each time."""
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


INSERTED: dict[str, Inserted] = {
    node_type: Inserted(**{**node, "size": tuple(node["size"])}) for node_type, node in RULES["inserted"].items()
}
SPEED_UP, NEGATIVE = "SUNSpeedUp", "SUNNegative"
SUN_ON_MODEL = (SPEED_UP, "SUNApply")
OURS_ON_MODEL = (*SUN_ON_MODEL, NEGATIVE)
RELEASED: dict[str, Any] = RULES["released"]
RELEASED_SIZE = f"{RELEASED['bytes'] / 1e6:.1f} MB"

REROUTES: frozenset[str] = frozenset(RULES["reroutes"])
SWITCHES: dict[str, dict[str, Any]] = RULES["switches"]
"""Nodes that hand on one of their inputs: `by` names the widget that chooses it; without it, the first one counts."""
BROADCASTS: frozenset[str] = frozenset(RULES["broadcasts"])
"""Nodes that feed every input of a type that has no link."""
SET_NODE, GET_NODE = RULES["named"]
OTHER_NODES: dict[str, str] = RULES["other_nodes"]


class Neighbour(NamedTuple):
    """What to say of a node beside SUN on the MODEL line."""

    text: str
    """With {node} in it."""
    badge: str | None
    """A few words for a badge; None if the picture is what was asked for."""


NEIGHBOURS: dict[str, Neighbour] = {
    node_type: Neighbour(entry["text"], entry.get("badge"))
    for entry in RULES["neighbours"]
    for node_type in entry["types"]
}
NAMED_ON_MODEL = frozenset({*SUN_ON_MODEL, *OTHER_NODES, *NEIGHBOURS, "ModelSamplingDiscrete"})
"""The nodes on a MODEL line that decide whether SUN can work there, or how well."""
NOT_SUPPORTED: dict[str, str] = RULES["not_supported"]
"""Guiders and schedules that SUN cannot work with; the reason follows their name in a sentence."""
PACK_SETTINGS: dict[str, tuple[str, Role]] = {
    name: (kind, role) for name, (kind, role) in RULES["pack_settings"].items()
}
"""Type and role of the four settings by which a sampler of another pack is known."""
CORE_NAMES: dict[str, frozenset[str]] = {name: frozenset(known) for name, known in RULES["core_names"].items()}
"""The samplers and schedulers that ComfyUI itself offers."""
LEFT_SAMPLERS: dict[str, str] = RULES["left_samplers"]
"""Samplers of other packs that SUN leaves alone although they have the usual settings, and the reason."""
UNET_FAMILIES: frozenset[str] = frozenset(RULES["unet_families"])
COUNTS_ABOVE_CFG: float = RULES["negative"]["counts_above_cfg"]
"""Above this CFG the negative prompt counts by itself; few-step models are sampled below."""
NEGATIVE_FAMILIES: frozenset[str] = UNET_FAMILIES.union(
    family for family, works in RULES["negative"]["families"].items() if works
)
"""The families that Negative Prompt at CFG 1 works on. Others of the table have cross-attention, but no hook yet."""
NO_NEGATIVE: frozenset[str] = frozenset(RULES["negative"]["empty"])
"""Nodes that stand where a negative prompt would, and hold none."""

_api_model = re.compile(RULES["api_model_inputs"])
_hidden_model = re.compile(RULES["hidden_model_inputs"], re.IGNORECASE)
_hidden_types = re.compile(RULES["hidden_model_types"])
_model_name = re.compile(RULES["model_name_inputs"])
_whole_sampler = re.compile(RULES["sampler_types"])
_sampler_input = re.compile(RULES["sampler_inputs"])
_latent = re.compile(RULES["latent_inputs"])
_unknown_unless_named = re.compile(RULES["unknown_unless_named"], re.IGNORECASE)
_merge = re.compile(RULES["merges"]["types"])
_group_node = re.compile(RULES["group_node"])
_file_name = re.compile(RULES["file_names"], re.IGNORECASE)
_families = [(re.compile(pattern), name) for pattern, name in RULES["families_by_name"]]
_distilled = [
    (re.compile(pattern), method, re.compile(f"{sure}|{RULES['few_steps_named']}"))
    for pattern, method, sure in RULES["distilled_names"]
]
_word_ends = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def is_model_input(name: str) -> bool:
    """Tell whether an input of this name takes a MODEL. API graphs do not say so."""
    return bool(_api_model.search(name))


def can_hide_model(name: str, slot_type: str) -> bool:
    """Tell whether a MODEL can come through an input of another type: a pipe, a context, or one that takes anything."""
    return bool(_hidden_types.search(slot_type)) or (slot_type == "*" and bool(_hidden_model.search(name)))


def is_sampler_input(name: str, slot_type: str) -> bool:
    """Tell whether an input takes a sampler together with its MODEL. API graphs have only the input's name."""
    return bool(_whole_sampler.search(slot_type)) or (slot_type == "*" and bool(_sampler_input.search(name)))


def is_model_name(name: str) -> bool:
    """Tell whether an input of this name says which file to load."""
    return bool(_model_name.search(name))


def is_latent_input(name: str, slot_type: str) -> bool:
    return slot_type == "LATENT" or (slot_type == "*" and bool(_latent.search(name)))


def is_unknown_unless_named(loader_type: str) -> bool:
    """Tell whether the models that a node of this type loads are rarely U-Nets."""
    return bool(_unknown_unless_named.search(loader_type))


def takes_weights_only(node_type: str, name: str) -> bool:
    """Tell whether a node merges the weights of the MODEL at this input into another, without what is on that MODEL."""
    return name == RULES["merges"]["weights"] and bool(_merge.search(node_type))


def is_group_node(node_type: str) -> bool:
    """Tell whether a node is a group node, the older form of a subgraph."""
    return bool(_group_node.search(node_type))


def is_file_name(text: str) -> bool:
    return len(text) < 1000 and bool(_file_name.search(text))


def in_words(file_name: str) -> str:
    """Return a file's name without its ending, as words: `exampleVision_v51HyperVAE` is `example vision v51 hyper vae`.

    A pattern can then ask for a whole word: "ovis" is not one in TurboVision.
    """
    stem = _file_name.sub("", file_name[:1000])
    return " ".join(word for word in _word_ends.split(stem) if word).lower()


@lru_cache(maxsize=4096)
def family_by_name(file_names: tuple[str, ...]) -> str | None:
    """Return the model family that a file name tells."""
    names = [in_words(name) for name in file_names]
    return next((family for pattern, family in _families if any(map(pattern.search, names))), None)


class Distilled(NamedTuple):
    """What the name of a model or LoRA says about distillation for few steps."""

    method: str
    """LCM, Lightning, ..."""
    is_sure: bool
    """Whether more than one sign is in the name: the method is often a word of a style's name too."""


@lru_cache(maxsize=4096)
def distilled_by_name(file_names: tuple[str, ...]) -> Distilled | None:
    """Return the few-step method that the name of a model or LoRA tells, the surest one first."""
    names = [in_words(name) for name in file_names]
    found = [
        Distilled(method, sure.search(name) is not None)
        for pattern, method, sure in _distilled
        for name in names
        if pattern.search(name)
    ]
    return max(found, key=lambda one: one.is_sure, default=None)
