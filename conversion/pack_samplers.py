"""Recognize samplers of other packs by their settings: steps, cfg, sampler_name and scheduler beside a MODEL.

What a node is can be seen in the server's node definitions. A file alone shows it too: the API's format and newer pages
name the settings, and older pages save the four values one after the other.
"""

from collections.abc import Callable, Mapping
from typing import Any

from .graph import Input, Node
from .rules import CORE_NAMES, LEFT_SAMPLERS, NODES, PACK_SETTINGS, NodeRule, can_hide_model, is_sampler_input
from .words import say, term

Definition = Mapping[str, Any]
"""A node type's entry in the server's /object_info."""
Definitions = Callable[[str], Definition | None]
"""Looks up a node type; None if its pack is not installed."""

CUTS = {"start_at_step": "boundary", "end_at_step": "boundary"}
PICTURES = {"LATENT", "IMAGE"}


def recognize(node: Node, values: Any, definitions: Definitions | None) -> None:
    """Give a node its rule, or its problem if it samples in a way that SUN cannot change.

    `values` are the saved widget values. `definitions` is None if there is no server to ask.
    """
    if node.type in NODES:
        node.rule = NODES[node.type]
        return
    if node.type in LEFT_SAMPLERS:
        node.problem = term(LEFT_SAMPLERS[node.type])
        return
    names = _names(node, values)
    model = _model_input(node)
    if names is None and _takes_a_sampler(node):
        node.problem = say(
            "another node gives it its sampler and its MODEL; put SUN 4-Step Speed-Up before that MODEL by hand, and "
            "set 4 steps"
        )
        return
    if names is None and not _looks_like_a_sampler(node):
        return
    if (model is None or model.feed is None) and _takes_a_pipe(node):
        node.problem = say(
            "its MODEL comes through a pipe; put SUN 4-Step Speed-Up before the pipe by hand, and set 4 steps"
        )
        return
    if model is None:
        if not PICTURES.isdisjoint(node.outputs):
            node.problem = say(
                "SUN cannot tell where its MODEL comes from; put SUN 4-Step Speed-Up there by hand, and set 4 steps"
            )
        return
    definition = definitions(node.type) if definitions is not None else None
    if definitions is not None and definition is None:
        node.problem = say("its pack is not installed here")
    elif names is None or (definition is not None and not _has_plain_settings(definition)):
        node.problem = say("SUN does not know its settings; put SUN 4-Step Speed-Up before it by hand, and set 4 steps")
    else:
        node.rule = _rule(node, names, values, model, definition)
        if isinstance(values, list):
            node.widgets = {name: value for name, value in zip(names, values, strict=False) if name}


def _names(node: Node, values: Any) -> list[str] | None:
    """Return the names of the saved values, "" for those that do not matter; None if a setting is missing."""
    if isinstance(values, list):
        return _named_by_value(node, values)
    names = [*node.widgets, *(name for name in node.inputs if name not in node.widgets)]
    return names if PACK_SETTINGS.keys() <= set(names) else None


def _named_by_value(node: Node, values: list[Any]) -> list[str] | None:
    """Find the four settings among values without names: a count, a number, a sampler of ComfyUI's, and a word."""
    for place in range(len(values) - 3):
        steps, cfg, sampler, scheduler, *cuts = values[place : place + 7]
        if _is_whole(steps) and (_is_whole(cfg) or isinstance(cfg, float)) and isinstance(scheduler, str):
            if not isinstance(sampler, str) or sampler not in CORE_NAMES["sampler_name"]:
                continue
            has_cuts = "start_at_step" in node.inputs or cuts[2:] in (["enable"], ["disable"])
            are_cuts = has_cuts and len(cuts) > 1 and all(map(_is_whole, cuts[:2]))
            return [*[""] * place, *PACK_SETTINGS, *(CUTS if are_cuts else ())]
    return None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _model_input(node: Node) -> Input | None:
    """Return the input that takes the MODEL: a linked one, or one that still lacks its link."""
    slots = [slot for slot in node.inputs.values() if slot.type == "MODEL"]
    linked = [slot for slot in slots if slot.feed is not None]
    return next(iter(linked), next((slot for slot in slots if slot.name == "model"), None))


def _takes_a_pipe(node: Node) -> bool:
    return any(slot.source is not None and can_hide_model(slot.name, slot.type) for slot in node.inputs.values())


def _takes_a_sampler(node: Node) -> bool:
    """Tell whether a node runs a sampler that another node makes, as RegionalSampler and its kind do."""
    if node.outputs and PICTURES.isdisjoint(node.outputs):
        return False
    return any(slot.source is not None and is_sampler_input(slot.name, slot.type) for slot in node.inputs.values())


def _looks_like_a_sampler(node: Node) -> bool:
    """Tell whether a node takes a MODEL and a prompt, or a pipe that may hold one, and gives a picture."""
    names = node.inputs.keys() | node.widgets.keys()
    takes_model = any(slot.type == "MODEL" and slot.feed is not None for slot in node.inputs.values())
    has_prompt = "positive" in names or any(slot.type == "CONDITIONING" for slot in node.inputs.values())
    is_prompted = has_prompt or _takes_a_pipe(node)
    if node.outputs:
        gives_picture = not PICTURES.isdisjoint(node.outputs) and "MODEL" not in node.outputs
        return takes_model and is_prompted and gives_picture
    return takes_model and is_prompted and not names.isdisjoint({"steps", "cfg", "seed", "noise_seed"})


def _has_plain_settings(definition: Definition) -> bool:
    """Tell whether a node has all four settings, each of its usual type."""
    kinds = {name: kind for name, (kind, _) in _inputs(definition).items()}
    return all(kinds.get(name) == kind for name, (kind, _) in PACK_SETTINGS.items())


def _inputs(definition: Definition) -> dict[str, tuple[str, list[Any]]]:
    """Return type and choices of each input that a node definition lists."""
    found: dict[str, tuple[str, list[Any]]] = {}
    groups = definition.get("input")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        for name, entry in group.items() if isinstance(group, Mapping) else ():
            kind, *options = entry if isinstance(entry, (list, tuple)) and entry else [None]
            if isinstance(kind, (list, tuple)):
                found[name] = "COMBO", list(kind)
            elif isinstance(kind, str):
                choices = options[0].get("options") if options and isinstance(options[0], Mapping) else None
                found[name] = kind, list(choices) if isinstance(choices, (list, tuple)) else []
    return found


def _rule(node: Node, names: list[str], values: Any, model: Input, definition: Definition | None) -> NodeRule:
    """Make the rule of a sampler whose settings are known.

    Without a definition, a sampler or scheduler is set only if its current value is one of ComfyUI's own: the node may
    offer others than these.
    """
    inputs = _inputs(definition) if definition is not None else {}
    sets = {name: role for name, (_, role) in PACK_SETTINGS.items()}
    current = dict(zip(names, values, strict=False)) if isinstance(values, list) else node.widgets
    for name, known in CORE_NAMES.items():
        value = current.get(name)
        if name not in inputs and isinstance(value, str) and value not in known:
            del sets[name]
    cuts = {name: role for name, role in CUTS.items() if name in names}
    choices = {name: tuple(inputs[name][1]) for name in CORE_NAMES if name in inputs}
    return NodeRule(tuple(names), {**sets, **cuts}, model.name, choices=choices, is_sampler=True)
