"""The corpus of tests/conversion, by the page instead of tools/convert.py: the same edits on a live graph."""

from typing import Any

import pytest

from ..conversion.compare import meaning
from .conftest import CORPUS, corpus
from .page import CanvasPage
from .test_promoted import NAMES as PROMOTED

READ_OTHERWISE = {
    **dict.fromkeys(PROMOTED, "what stands on a subgraph's node counts, however the page saves it (test_promoted.py)"),
    "text_to_image_old_file": "the page itself gives these values to the wrong widgets (see test_files.py)",
    "primitives_drive_steps_and_cfg": "the page rounds what a primitive holds",
    "primitive_shared_with_another_node": "a primitive takes no plug again while the other node's pack is missing",
}
FILES = [file.stem for file in sorted(CORPUS.glob("*.json")) if not file.stem.endswith(".expected")]
NAMES = [name for name in FILES if not name.startswith("api_") and name not in READ_OTHERWISE]
PARTS = 4  # so that no single test takes half a minute

Graphs = dict[str | None, dict[str, Any]]


@pytest.mark.parametrize("drawn_by", ["litegraph"], indirect=True)
@pytest.mark.parametrize("part", range(PARTS))
def test_page_makes_of_every_workflow_what_is_expected(page: CanvasPage, no_adapter: None, part: int) -> None:
    different = {}
    for name in NAMES[part::PARTS]:
        page.load(corpus(name))
        loaded = meaning(page.graph())
        page.convert("speed_up")
        sped_up, driven = meaning(page.graph()), page.driven_widgets()
        page.convert("restore")
        before, expected = meaning(corpus(name)), meaning(corpus(f"{name}.expected"))
        different |= differences(name, sped_up, as_the_page_has_it(expected, before, loaded), driven)
        different |= differences(f"{name}, restored", meaning(page.graph()), loaded, driven)
    assert different == {}


def as_the_page_has_it(expected: Graphs, before: Graphs, loaded: Graphs) -> Graphs:
    """`expected`, where the nodes that SUN leaves alone are what the page made of them when it loaded the workflow."""
    for name, graph in expected.items():
        for number, node in graph["nodes"].items():
            if node == before[name]["nodes"].get(number):
                graph["nodes"][number] = loaded[name]["nodes"][number]
    return expected


def differences(what: str, found: Graphs, expected: Graphs, driven: list[list[Any]]) -> dict[str, Any]:
    """What was found and what was expected, by node and for the links, where they are not the same.

    A widget that is driven by a link shows what the link brings on the page, and an old value in a file. What the node
    of a subgraph lists are values of nodes inside of it, which are compared there; an unplugged one leaves the list.
    """
    for graphs in (found, expected):
        for graph, number, index in driven:
            values = graphs[graph]["nodes"][number]["widgets"]
            values[index : index + 1] = ["driven"] if index < len(values) else []
        for graph in graphs.values():
            for node in graph["nodes"].values():
                if node["type"] in graphs:
                    node["widgets"] = []
    different = {}
    for name, graph in expected.items():
        if found[name]["links"] != graph["links"]:
            different[f"{what}, links of {name}"] = found[name]["links"], graph["links"]
        for number in found[name]["nodes"].keys() | graph["nodes"].keys():
            node, other = found[name]["nodes"].get(number), graph["nodes"].get(number)
            if node != other:
                different[f"{what}, node {number} of {name}"] = node, other
    return different
