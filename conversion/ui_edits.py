"""Apply edits to a workflow in the UI's format, as the page does to the live graph."""

import copy
from collections import defaultdict
from typing import Any

from .edits import Add, Edit
from .graph import SUBGRAPH_INPUT, Graph, NodeId, Source, as_dict
from .pack_samplers import Definitions
from .rules import INSERTED
from .ui_format import Link, dicts, is_id, is_index, read_links, read_ui

KEPT_VALUES = "proxyWidgetErrorQuarantine"
"""Frontend 1.58 keeps the values of widgets here that an older page promoted. They win when it loads a file."""


def apply_to_ui(data: dict[str, Any], edits: list[Edit], definitions: Definitions | None = None) -> dict[str, Any]:
    """Apply `edits` to a copy of a workflow in the UI's format."""
    data, before = copy.deepcopy(data), read_ui(data, definitions).graphs
    graphs: dict[str | None, _Graph] = {None: _Graph(data, before[None])}
    for definition in dicts(as_dict(data.get("definitions")).get("subgraphs")):
        if isinstance(definition.get("id"), str):
            graphs.setdefault(definition["id"], _Graph(definition, before[definition["id"]]))
    for edit in edits:
        graph = graphs[edit["graph"]]
        match edit["op"]:
            case "add":
                graph.add(edit)
            case "remove":
                graph.remove(edit["node"])
            case "connect":
                graph.link(edit["from"], *edit["to"], edit.get("via"))
            case "disconnect":
                graph.unlink(*edit["to"])
            case "set":
                graph.set(edit["node"], edit["widget"], edit["value"])
            case "unset":
                graph.unset(edit["node"], edit["widget"])
            case "mode":
                graph.set_mode(edit["node"], edit["mode"])
            case "property":
                graph.set_property(edit["node"], edit["name"], edit["value"])
    for graph in graphs.values():
        graph.finish()
    return data


class _Graph:
    """The JSON of one graph, root or subgraph definition. It is changed in place."""

    def __init__(self, data: dict[str, Any], before: Graph) -> None:
        self._data = data
        self._before = before.nodes
        self._nodes: dict[NodeId, dict[str, Any]] = {}
        for node in dicts(data.get("nodes")):
            if is_id(node.get("id")):
                self._nodes.setdefault(node["id"], node)
        self._links = read_links(data)
        self._links_of: dict[NodeId, set[int]] = defaultdict(set)
        for number, link in self._links.items():
            self._links_of[link.source.node].add(number)
            self._links_of[link.target].add(number)
        self._has_link_objects = _has_link_objects(data)
        self._gone: set[int] = set()
        self._gone_nodes: list[dict[str, Any]] = []
        self._next_link = max([0, *self._links, *self._counters("last_link_id", "lastLinkId")]) + 1

    def add(self, edit: Add) -> None:
        new = INSERTED[edit["type"]]
        node = {
            "id": edit["id"],
            "type": edit["type"],
            "pos": list(edit["pos"]),
            "size": list(edit["size"]),
            "flags": {},
            "order": len(self._nodes),
            "mode": 0,
            "inputs": [{**slot, "link": None} for slot in copy.deepcopy(new.inputs)],
            "outputs": [{**slot, "links": []} for slot in copy.deepcopy(new.outputs)],
            "properties": {"Node name for S&R": edit["type"], "cnr_id": "sun-for-comfyui", **edit["properties"]},
            "widgets_values": [edit["widgets"][slot["name"]] for slot in new.inputs if "widget" in slot],
        }
        self._nodes[edit["id"]] = node
        self._data["nodes"].append(node)
        self._count("last_node_id", "lastNodeId", edit["id"])

    def remove(self, node_id: NodeId) -> None:
        for number in sorted(self._links_of[node_id]):
            self._unlink(number)
        self._gone_nodes.append(self._nodes.pop(node_id))

    def link(self, source: Source, target: NodeId, name: str, via: int | None) -> None:
        index, target_input = self._input(target, name)
        replaced, number = target_input.get("link"), self._next_link
        self._next_link += 1
        self._count("last_link_id", "lastLinkId", number)
        link = Link(source, target, index, self._link_type(source, target_input), via)
        self._store(number, link)
        if is_index(replaced) and replaced in self._links:
            self._unlink(replaced)
        target_input["link"] = number

    def unlink(self, target: NodeId, name: str) -> None:
        _, target_input = self._input(target, name)
        if target_input.get("link") in self._links:
            self._unlink(target_input["link"])

    def set(self, node_id: NodeId, widget: str, value: Any) -> None:
        node = self._nodes[node_id]
        if isinstance(node.get("widgets_values_named"), dict):  # newer pages save both, and may read this one
            node["widgets_values_named"][widget] = value
        if isinstance(node.get("widgets_values"), dict):
            node["widgets_values"][widget] = value
            return
        for entry in dicts(as_dict(node.get("properties")).get(KEPT_VALUES)):
            if entry.get("originalEntry") == ["-1", widget]:
                entry["hostValue"] = value
        values = node["widgets_values"] if isinstance(node.get("widgets_values"), list) else []
        order, rule = self._before[node_id].order(values), self._before[node_id].rule
        index = order.index(widget)
        if rule is not None and rule.defaults:  # a page would read null as a value
            values += [rule.defaults[name] for name in order[len(values) :]]
        values += [None] * (index + 1 - len(values))
        values[index] = value
        node["widgets_values"] = values

    def unset(self, node_id: NodeId, widget: str) -> None:
        """Take a widget's value away, and all values if only defaults would be left."""
        node, values = self._nodes[node_id], self._nodes[node_id].get("widgets_values")
        for named in (values, node.get("widgets_values_named")):
            if isinstance(named, dict):
                named.pop(widget, None)
        if not isinstance(values, list):
            return
        order, rule = self._before[node_id].order(values), self._before[node_id].rule
        index = order.index(widget)
        if index < len(values):
            values[index] = rule.defaults.get(widget) if rule else None
        if rule and all(value in (None, rule.defaults.get(name)) for name, value in zip(order, values, strict=False)):
            del node["widgets_values"]

    def set_mode(self, node_id: NodeId, mode: int) -> None:
        self._nodes[node_id]["mode"] = mode

    def set_property(self, node_id: NodeId, name: str, value: Any) -> None:
        node = self._nodes[node_id]
        if not isinstance(node.get("properties"), dict):
            node["properties"] = {}
        if value is None:
            node["properties"].pop(name, None)
        else:
            node["properties"][name] = value

    def _input(self, node_id: NodeId, name: str) -> tuple[int, dict[str, Any]]:
        """Find an input slot by its name. Files from before 2025-03 have none for a widget that was never linked."""
        node = self._nodes[node_id]
        if not isinstance(node.get("inputs"), list):
            node["inputs"] = []
        slots = node["inputs"]
        for index, slot in enumerate(slots):
            if isinstance(slot, dict) and slot.get("name", "") == name:
                return index, slot
        slots.append({"name": name, "type": "*", "link": None, "widget": {"name": name}})
        return len(slots) - 1, slots[-1]

    def _link_type(self, source: Source, target_input: dict[str, Any]) -> str:
        """Return the input's type, or the output's if the input takes any."""
        outputs = dicts(self._nodes.get(source.node, {}).get("outputs"))
        types = [target_input.get("type"), *(output.get("type") for output in outputs[source.slot : source.slot + 1])]
        return next((kind for kind in types if isinstance(kind, str) and kind != "*"), "*")

    def _store(self, number: int, link: Link) -> None:
        """Write a link in the style of the file, and on the output that it comes from."""
        links = self._data.get("links")
        if not isinstance(links, (list, dict)):
            links = self._data["links"] = []
        via = link.parent if link.parent in self._reroutes() else None
        entry = link.as_object(number) if via is None else {**link.as_object(number), "parentId": via}
        if isinstance(links, dict):
            links[str(number)] = entry
        elif self._has_link_objects:
            links.append(entry)
        else:
            links.append([number, *link.source, link.target, link.target_slot, link.type])
            self._extensions().extend([{"id": number, "parentId": via}] if via is not None else [])
        for reroute in self._chain(via):
            reroute["linkIds"] = [*_list(reroute.get("linkIds")), number]
        numbers = self._output_links(link)
        if numbers is not None:
            numbers.append(number)
        self._links[number] = link._replace(parent=via)
        self._links_of[link.source.node].add(number)
        self._links_of[link.target].add(number)

    def _unlink(self, number: int) -> None:
        """Remove a link from everything that names it, and native reroutes that are left without links."""
        link = self._links.pop(number)
        self._links_of[link.source.node].discard(number)
        self._links_of[link.target].discard(number)
        self._gone.add(number)
        reroutes = self._reroute_list()
        for reroute in self._chain(link.parent):
            reroute["linkIds"] = [other for other in _list(reroute.get("linkIds")) if other != number]
            if not reroute["linkIds"]:
                reroutes.remove(reroute)
        numbers = self._output_links(link)
        if numbers is not None and number in numbers:
            numbers.remove(number)
        for slot in dicts(self._nodes.get(link.target, {}).get("inputs")):
            if slot.get("link") == number:
                slot["link"] = None

    def finish(self) -> None:
        """Remove nodes and links from the lists, all at once."""
        if self._gone_nodes:
            gone = {id(node) for node in self._gone_nodes}
            self._data["nodes"] = [node for node in self._data["nodes"] if id(node) not in gone]
        if not self._gone:
            return
        links = self._data["links"]
        if isinstance(links, dict):
            self._data["links"] = {key: entry for key, entry in links.items() if _link_id(entry) not in self._gone}
        else:
            links[:] = [entry for entry in links if _link_id(entry) not in self._gone]
        extensions = as_dict(self._data.get("extra")).get("linkExtensions")
        if isinstance(extensions, list):
            extensions[:] = [entry for entry in extensions if _link_id(entry) not in self._gone]

    def _output_links(self, link: Link) -> list[int] | None:
        """Return the list of link ids that an output keeps: of a node, or of the subgraph's own input."""
        if link.source.node == SUBGRAPH_INPUT:
            slots, key = self._data.get("inputs"), "linkIds"
        else:
            slots, key = self._nodes.get(link.source.node, {}).get("outputs"), "links"
        slot = slots[link.source.slot] if isinstance(slots, list) and link.source.slot < len(slots) else None
        if not isinstance(slot, dict):
            return None
        if not isinstance(slot.get(key), list):
            slot[key] = []
        return slot[key]

    def _reroute_list(self) -> list[Any]:
        """Return the native reroutes. A root graph of version 0.4 has them in `extra`, other graphs in themselves."""
        own = self._data.get("reroutes")
        return own if isinstance(own, list) and own else _list(as_dict(self._data.get("extra")).get("reroutes"))

    def _extensions(self) -> list[Any]:
        """Return the list of native reroutes by link. Links that are lists have no room for it themselves."""
        extra = self._data.get("extra")
        if not isinstance(extra, dict) or not self._reroute_list():
            return []
        if not isinstance(extra.get("linkExtensions"), list):
            extra["linkExtensions"] = []
        return extra["linkExtensions"]

    def _reroutes(self) -> dict[int, dict[str, Any]]:
        return {reroute["id"]: reroute for reroute in dicts(self._reroute_list()) if is_index(reroute.get("id"))}

    def _chain(self, via: int | None) -> list[dict[str, Any]]:
        """Return the native reroutes that a link runs through, the last one first."""
        reroutes, chain = self._reroutes(), []
        while is_index(via) and via in reroutes and reroutes[via] not in chain:
            chain.append(reroutes[via])
            via = reroutes[via].get("parentId")
        return chain

    def _counters(self, name: str, state_name: str) -> list[int]:
        counters = (self._data.get(name), as_dict(self._data.get("state")).get(state_name))
        return [counter for counter in counters if is_index(counter) and counter < 2**52]

    def _count(self, name: str, state_name: str, number: int) -> None:
        for owner, key in ((self._data, name), (as_dict(self._data.get("state")), state_name)):
            if is_index(owner.get(key)):
                owner[key] = max(owner[key], number)


def _has_link_objects(graph: dict[str, Any]) -> bool:
    """Tell whether links are objects, as in subgraphs and newer files. Root graphs of version 0.4 have lists."""
    if links := _list(graph.get("links")):
        return all(isinstance(entry, dict) for entry in links)
    return "inputNode" in graph or graph.get("version") == 1


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _link_id(entry: Any) -> int | None:
    """Return the id in an entry of either style, or None."""
    number = entry.get("id") if isinstance(entry, dict) else entry[0] if isinstance(entry, list) and entry else None
    return number if is_index(number) else None
