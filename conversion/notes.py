"""Write and read what changed nodes keep: their settings from before, and the mode of a node that a click bypassed.

They are for what a record cannot help with, because the SUNSpeedUp or SUNNegative that held it was deleted. A note is a
property too, and anybody may have written it. A link that a click unplugged is noted with the type of the node it came
from, because another node can have that id by now, and with the id of the node itself, because a copy of it takes the
note along: the link was never the copy's.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from .changes import Change
from .edits import Edit, set_mode, set_property
from .graph import BYPASSED, Node, Source, as_dict
from .record import RECORD, VERSION, Former, has_record, is_value, read_plug
from .rules import NEGATIVE, SPEED_UP
from .ui_format import is_index

NOTES = {SPEED_UP: RECORD, NEGATIVE: "sun_negative_restore"}
"""The property with the note, by the type of node whose click left it: a sampler can have one of each."""


def to_restore(change: Change, of: str, older: Collection[Node] = ()) -> Change:
    """Return a change whose old value and link are those to restore.

    The nodes in `older` still have what a click changed whose own node is gone: what they had before that one counts,
    but not for a widget that was linked since.
    """
    node, widget = change.node, change.widget
    hosts = tuple(to_restore(host, of, older) for host in change.hosts)
    former = noted(node, widget, of) if node in older and change.unplug is None else None
    if former is not None:
        return replace(change, old=former.value, unplug=former.plug, hosts=hosts)
    return replace(change, old=node.saved(widget), hosts=hosts)


def notes_of(changes: Iterable[Change], of: str, older: Collection[Node] = ()) -> list[Edit]:
    """Return the edits that leave each changed node a note, for when the node of the type `of` is deleted.

    The old values of `changes` are those to restore; what the notes on the nodes in `older` say stays. A file's node
    that has no properties at all gets none, so that it can be restored exactly.
    """
    changed: dict[Node, list[Change]] = defaultdict(list)
    for change in changes:
        for part in (change, *change.hosts):
            changed[part.node].append(part)
    edits: list[Edit] = []
    for node, parts in changed.items():
        note = as_dict(node.properties.get(NOTES[of])) if node in older else {}
        former = {part.widget: part.old for part in parts} | as_dict(note.get("former"))
        plugs = {part.widget: _noted_plug(node, part.unplug) for part in parts if part.unplug is not None}
        plugs |= as_dict(note.get("plugs"))
        if node.properties and (plugs or any(value is not None for value in former.values())):
            value = {"version": VERSION, "former": former, **({"plugs": plugs} if plugs else {})}
            edits += [set_property(node.graph, node.id, NOTES[of], value)] if value != note else []
    return edits


def _noted_plug(node: Node, plug: Source) -> list[Any]:
    source = node.graph.nodes.get(plug.node)
    return [*plug, source.type if source is not None else None, node.id]


def noted(node: Node, widget: str, of: str) -> Former | None:
    """Return what a note on the node says a widget had before, or None."""
    note = as_dict(node.properties.get(NOTES[of]))
    value, plug = as_dict(note.get("former")).get(widget), _plug(node, as_dict(note.get("plugs")).get(widget))
    if not is_value(value):
        value = None
    return None if value is None and plug is None else Former(node, widget, value, plug)


def _plug(node: Node, plug: Any) -> Source | None:
    if not isinstance(plug, list) or len(plug) != 4 or plug[3] != node.id:
        return None
    found = read_plug(node, plug[:2])
    source = node.graph.nodes.get(found.node) if found is not None else None
    return found if plug[2] == (source.type if source is not None else None) else None


def forget(node: Node, of: str) -> list[Edit]:
    """Return the edit that takes the note from a node, if it has one."""
    has_note = NOTES[of] in node.properties and not has_record(node)
    return [set_property(node.graph, node.id, NOTES[of], None)] if has_note else []


def bypass(node: Node) -> list[Edit]:
    """Return the edits that bypass a node and note on it how it was."""
    note = {"version": VERSION, "mode": node.mode}
    return [set_mode(node.graph, node.id, BYPASSED), set_property(node.graph, node.id, _mode_note(node), note)]


def is_bypassed_by_sun(node: Node) -> bool:
    """Tell whether a node is bypassed by `bypass`."""
    return node.mode == BYPASSED and was_bypassed_by_sun(node)


def was_bypassed_by_sun(node: Node) -> bool:
    """Tell whether a node has the note of `bypass`, though the artist may have given it another mode since."""
    return is_index(as_dict(node.properties.get(_mode_note(node))).get("mode"))


def wake(node: Node) -> list[Edit]:
    """Return the edits that undo `bypass`. A mode that the artist chose since stays."""
    name = _mode_note(node)
    mode = node.properties[name]["mode"] if is_bypassed_by_sun(node) else node.mode
    note = set_property(node.graph, node.id, name, None)
    return [note] if mode == node.mode else [set_mode(node.graph, node.id, mode), note]


def _mode_note(node: Node) -> str:
    """Return the property with the mode from before. A SUNNegative can have its record in the usual one."""
    return NOTES[NEGATIVE] if node.type == NEGATIVE else RECORD
