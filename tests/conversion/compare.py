"""What of a workflow counts when two are compared: everything, ids of links and the order of lists aside."""

import copy
import json
from typing import Any

Json = dict[str, Any]
COUNTERS = ("last_link_id", "last_node_id", "state")


def canonical(workflow: Json) -> Json:
    """A workflow in the UI's format with every link id replaced by what the link says, and lists of links sorted."""
    workflow = copy.deepcopy(workflow)
    definitions = workflow.get("definitions", {}).get("subgraphs", [])
    for graph in (workflow, *definitions):
        _name_links(graph)
    return workflow


def _name_links(graph: Json) -> None:
    links = all_links(graph)
    names = {number: json.dumps(link) for number, link in links.items()}
    for node in graph["nodes"]:
        node.pop("order", None)
        for slot in node.get("inputs", []):
            slot["link"] = names.get(slot.get("link"))
        for slot in node.get("outputs", []):
            slot["links"] = sorted(names[number] for number in slot.get("links") or [])
    for slot in (*graph.get("inputs", []), *graph.get("outputs", [])):
        slot["linkIds"] = sorted(names[number] for number in slot.get("linkIds") or [])
    for reroute in reroutes(graph):
        reroute["linkIds"] = sorted(names[number] for number in reroute["linkIds"])
    graph["links"] = sorted(names.values())
    graph.get("extra", {}).pop("linkExtensions", None)
    graph["nodes"].sort(key=lambda node: str(node["id"]))
    for key in COUNTERS:
        graph.pop(key, None)


def all_links(graph: Json) -> dict[int, list[Any]]:
    """Links by id: [from, slot, to, slot, type, last native reroute]."""
    parents = {entry["id"]: entry["parentId"] for entry in graph.get("extra", {}).get("linkExtensions", [])}
    found = {}
    for link in graph.get("links", []):
        if isinstance(link, dict):
            names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
            link = [*(link[name] for name in names), link.get("parentId")]
        found[link[0]] = [*link[1:6], link[6] if len(link) > 6 else parents.get(link[0])]
    return found


def reroutes(graph: Json) -> list[Json]:
    return graph.get("reroutes") or graph.get("extra", {}).get("reroutes") or []


def meaning(workflow: Json) -> Json:
    """What a workflow does, for graphs that went through a page, which measures nodes and fills in slots anew.

    For each graph: type, mode, position, widget values and SUN's record of every node by id, and every link as
    (from, slot, to, name of the input).
    """
    graphs = {None: workflow, **{g["id"]: g for g in workflow.get("definitions", {}).get("subgraphs", [])}}
    return {name: _graph_meaning(graph) for name, graph in graphs.items()}


def _graph_meaning(graph: Json) -> Json:
    nodes = {node["id"]: node for node in graph["nodes"]}
    links = []
    for origin, slot, target, index, *_ in all_links(graph).values():
        name = nodes[target]["inputs"][index]["name"] if target in nodes else index
        links.append((origin, slot, target, name))
    return {"nodes": {number: _node_meaning(node) for number, node in nodes.items()}, "links": sorted(links, key=str)}


def _node_meaning(node: Json) -> Json:
    position = node["pos"] if isinstance(node["pos"], list) else [node["pos"]["0"], node["pos"]["1"]]
    return {
        "type": node["type"],
        "mode": node.get("mode", 0),
        "pos": [round(value) for value in position],
        "widgets": node.get("widgets_values", []),
        "record": node.get("properties", {}).get("sun_restore"),
    }
