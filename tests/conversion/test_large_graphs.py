"""Where SUN goes in graphs with long rows of reroutes and on full canvases."""

import random
import sys
from collections.abc import Callable
from typing import Any

import pytest
from sun_pack.conversion.check import check
from sun_pack.conversion.graph import Box, Node, Workflow
from sun_pack.conversion.graph import Graph as View
from sun_pack.conversion.insertion import COLUMNS, MARGIN, ROWS, STEP, Canvas, free_position
from sun_pack.conversion.model_line import model_line
from sun_pack.conversion.models import Installed
from sun_pack.conversion.plan import convert, make_plan, read
from sun_pack.conversion.samplers import find_samplers
from sun_pack.conversion.ui_format import TITLE_HEIGHT

from .compare import canonical
from .make_corpus import CHECKPOINT, KSAMPLER, Graph, Subgraph
from .test_findings import SD15, here
from .test_left_behind import without

Json = dict[str, Any]


def loader(graph: Graph) -> Json:
    return graph.node("CheckpointLoaderSimple", [CHECKPOINT])


def sampler(graph: Graph, model: Json, slot: int = 0) -> Json:
    return graph.node("KSampler", KSAMPLER, model=(model, slot))


def reroute(graph: Graph, model: Json, slot: int = 0) -> Json:
    return graph.node("Reroute", any=(model, slot))


def suns_before(workflow: Workflow) -> dict[Any, list[Any]]:
    """Return the SUN nodes on the MODEL line of each sampler, by id."""
    found = {}
    for one in find_samplers(workflow):
        assert one.model_input is not None
        line = model_line(workflow, one.graph, one.model_input.source)
        found[one.node.id] = [node.id for node in line.nodes if node.type == "SUNSpeedUp"]
    return found


def sped_up(before: Json, targets: Any = None) -> tuple[Workflow, list[Json]]:
    """Convert a workflow, check that Restore undoes it, and return it with the links of its SUN nodes."""
    after, plan = convert("speed_up", before, targets)
    assert canonical(convert("restore", after)[0]) == canonical(before)
    new = {edit["id"] for edit in plan.edits if edit["op"] == "add"}
    return read(after), [edit for edit in plan.edits if edit["op"] == "connect" and edit["from"][0] not in new]


def sources(links: list[Json]) -> list[Any]:
    return [link["from"][0] for link in links]


def row(count: int) -> tuple[Graph, list[Json], list[Json]]:
    """Draw reroutes in a row with a sampler at each."""
    graph = Graph()
    reroutes = [loader(graph)]
    for _ in range(count):
        reroutes.append(reroute(graph, reroutes[-1]))
    return graph, reroutes[1:], [sampler(graph, one) for one in reroutes[1:]]


@pytest.mark.parametrize("count", [2, 3, 500])
def test_a_row_of_reroutes_with_a_sampler_each_gets_one_sun_at_its_first_reroute(count: int) -> None:
    graph, reroutes, samplers = row(count)
    workflow, links = sped_up(graph.workflow())
    assert sources(links) == [reroutes[0]["id"]]
    assert {len(suns) for suns in suns_before(workflow).values()} == {1} and len(samplers) == count


def test_sun_goes_before_the_last_reroute_from_which_all_ways_part() -> None:
    graph = Graph()
    first = reroute(graph, loader(graph))
    fork = reroute(graph, reroute(graph, first))
    for branch in (reroute(graph, fork), reroute(graph, fork)):
        sampler(graph, branch)
        sampler(graph, reroute(graph, reroute(graph, branch)))
    workflow, links = sped_up(graph.workflow())
    assert sources(links) == [fork["id"]]
    assert all(len(suns) == 1 for suns in suns_before(workflow).values())


def test_a_sampler_alone_at_the_end_of_a_row_keeps_the_reroutes_behind_it_plain() -> None:
    graph = Graph()
    last = reroute(graph, reroute(graph, reroute(graph, loader(graph))))
    sampler(graph, last)
    assert sources(sped_up(graph.workflow())[1]) == [last["id"]]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_another_consumer_in_the_row_stays_plain(at: int) -> None:
    graph, reroutes, _ = row(3)
    other = graph.node("DifferentialDiffusion", model=(reroutes[at], 0))
    workflow, links = sped_up(graph.workflow())
    slot = workflow.root.nodes[other["id"]].inputs["model"]
    assert slot.source is not None and slot.source.node == reroutes[at]["id"]
    line = model_line(workflow, workflow.root, slot.source)
    assert [node.type for node in line.nodes] == ["CheckpointLoaderSimple"]
    assert all(len(suns) == 1 for suns in suns_before(workflow).values())
    assert sources(links) == [one["id"] for one in reroutes[: at + 1]]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_the_other_samplers_of_the_row_stay_plain_where_one_was_chosen(at: int) -> None:
    graph, reroutes, samplers = row(3)
    workflow, links = sped_up(graph.workflow(), [{"graph": None, "node": samplers[at]["id"]}])
    assert sources(links) == [reroutes[at]["id"]]
    suns = suns_before(workflow)
    assert {number for number, found in suns.items() if found} == {samplers[at]["id"]}


def test_a_model_that_leaves_a_subgraph_through_the_row_stays_plain() -> None:
    inner = Subgraph("row", 1, "model:MODEL", "MODEL:MODEL LATENT:LATENT")
    first = reroute(inner, inner.inside)
    second = reroute(inner, first)
    sampler(inner, first)
    latent = sampler(inner, second)
    inner.link(second, 0, inner.outside, "MODEL")
    inner.link(latent, 0, inner.outside, "LATENT")
    inner.type_of()
    graph = Graph()
    outer = graph.node(inner.id, model=(loader(graph), 0))
    graph.node("DifferentialDiffusion", model=(outer, 0))
    workflow, links = sped_up(graph.workflow(inner.definition()))
    (leaving, _) = workflow.graphs[inner.id].outputs
    line = model_line(workflow, workflow.graphs[inner.id], leaving)
    assert [node.type for node in line.nodes] == ["CheckpointLoaderSimple"]
    assert sources(links) == [first["id"], second["id"]]
    assert all(len(suns) == 1 for suns in suns_before(workflow).values())


def test_native_reroutes_below_a_reroute_node_need_no_sun_each() -> None:
    graph = Graph()
    model = loader(graph)
    way = reroute(graph, model)
    samplers = [sampler(graph, way), sampler(graph, way)]
    graph.reroute(1, 500, -80, [samplers[1]["inputs"][0]["link"]])
    _, links = sped_up(graph.workflow())
    assert sources(links) == [model["id"]]


@pytest.mark.parametrize("step", [(60, 40), (230, 80), (330, 300), (0, 0)])
def test_new_nodes_on_a_full_canvas_cover_no_other_and_not_each_other(step: tuple[int, int]) -> None:
    graph = Graph()
    for _ in range(40):
        sampler(graph, loader(graph))
    while len(graph.nodes) < 600:
        graph.node("EmptyLatentImage", [512, 512, 1])
    for number, node in enumerate(graph.nodes):
        node["pos"] = [step[0] * (number % 25), step[1] * (number // 25)]
        node["size"] = [max(step[0] - 20, 10), max(step[1] - 20, 10)]
    workflow, links = sped_up(graph.workflow())
    nodes = list(workflow.root.nodes.values())
    new = [node for node in nodes if node.type == "SUNSpeedUp"]
    assert len(new) == len(links) == 40
    assert not [(one.label, other.label) for one in new for other in nodes if one is not other and covers(one, other)]


def covers(one: Node, other: Node) -> bool:
    return overlap(one.box, other.box, 0)


def overlap(one: Box, other: Box, margin: float) -> bool:
    return (
        one[0] < other[2] + margin
        and other[0] < one[2] + margin
        and one[1] < other[3] + margin
        and other[1] < one[3] + margin
    )


def nearest_free_place(boxes: list[Box], beside: Box, width: float, height: float) -> tuple[float, float]:
    """Find what free_position has to find, by comparing every place with every box."""
    left, top = beside[0] - width - 2 * MARGIN, beside[1]
    places = [(x * STEP, y * STEP) for x in COLUMNS for y in ROWS]
    for x, y in sorted(places, key=lambda place: abs(place[1]) + max(-place[0], 3 * place[0])):
        place = (left + x, top + y, left + x + width, top + y + TITLE_HEIGHT + height)
        if not any(overlap(place, box, MARGIN) for box in boxes):
            return place[0], place[1] + TITLE_HEIGHT
    return left, max(box[3] for box in boxes) + MARGIN + TITLE_HEIGHT


@pytest.mark.parametrize("count", [1, 30, 100, 400, 2000])
def test_a_new_node_gets_the_nearest_free_place(count: int) -> None:
    random_ = random.Random(count)

    def box() -> Box:
        left, top = random_.randrange(-3000, 3000, 10), random_.randrange(-3000, 3000, 10)
        size = 10**9 if random_.random() < 0.002 else 10 * random_.randrange(1, 40)
        return float(left), float(top), float(left + size), float(top + 10 * random_.randrange(1, 40))

    for _ in range(10):
        view = View(None)
        for number in range(count):
            view.nodes[number] = Node(view, number, "Note", box=box())
        view.fixtures, taken = [box()], {box() for _ in range(count // 20)}
        everything = [*(node.box for node in view.nodes.values()), *view.fixtures, *taken]
        beside = view.nodes[0]
        expected = nearest_free_place(everything, beside.box, 300, 130)
        assert free_position(Canvas(view.boxes() | taken), beside, [300, 130]) == expected


ADVANCED = ["disable", 0, "fixed", 25, 7.5, "dpmpp_2m", "karras", 0, 10000, "enable"]


MODES = {"off": 4, "muted": 2}


def partners(count: int, state: str) -> Json:
    """Draw a row of samplers that go on with each other's noise, with SUN deleted, off, muted or at 30 steps."""
    graph = Graph()
    latent = graph.node("EmptyLatentImage", [512, 512, 1])
    for _ in range(count):
        model = loader(graph)
        latent = graph.node("KSamplerAdvanced", ADVANCED, model=(model, 0), latent_image=(latent, 0))
    workflow, _ = convert("speed_up", graph.workflow())
    if state == "deleted":
        for sun in [node for node in workflow["nodes"] if node["type"] == "SUNSpeedUp"]:
            workflow = without(workflow, "SUNSpeedUp", sun["id"])
        return workflow
    for node in workflow["nodes"]:
        node["properties"].pop("sun_restore", None)
        if node["type"] == "SUNSpeedUp" and state in MODES:
            node["mode"] = MODES[state]
        if node["type"] == "KSamplerAdvanced" and state == "far":
            node["widgets_values"][3] = 30
    return workflow


def calls(work: Callable[[], Any]) -> int:
    """Count the functions that are called, as a measure of the time that does not depend on the machine."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("state", ["deleted", "off", "muted", "far"])
def test_twice_as_many_partners_take_twice_as_long_to_check_and_to_mend(state: str) -> None:
    """They are changed together, so that what is said of one depends on all the others."""
    few, many = (partners(count, state) for count in (25, 50))
    assert len([entry for entry in check(read(many), Installed()) if entry["badge"]]) >= 50
    for work in (
        lambda workflow: check(read(workflow), Installed()),
        lambda workflow: make_plan("fix", workflow),
        lambda workflow: make_plan("restore", workflow),
    ):
        assert calls(lambda work=work: work(many)) < 2.5 * calls(lambda work=work: work(few))


def row_of_suns(count: int, setting: str) -> Json:
    """Draw SUN nodes in a row before a hundred samplers whose steps, CFG and sampler are not SUN's."""
    graph = Graph()
    model = loader(graph)
    for _ in range(count):
        model = graph.node(
            "SUNSpeedUp", [SD15.name, 1.0, "from sampler" if setting == "own" else "automatic"], model=(model, 0)
        )
        model["mode"] = MODES.get(setting, 0)
    for _ in range(100):
        sampler(graph, model)
    return graph.workflow()


@pytest.mark.parametrize("setting", ["automatic", "own", "off"])
def test_what_is_found_at_a_sampler_is_found_once_for_all_sun_nodes_before_it(setting: str) -> None:
    one, many = (row_of_suns(count, setting) for count in (1, 20))
    for work in (lambda workflow: check(read(workflow), here(SD15)), lambda workflow: make_plan("fix", workflow)):
        assert calls(lambda work=work: work(many)) < 5 * calls(lambda work=work: work(one))


def samplers_of_one_primitive(count: int) -> Json:
    graph = Graph()
    model = graph.node("SUNSpeedUp", [SD15.name, 1.0, "from sampler"], model=(loader(graph), 0))
    cfg = graph.primitive(7.0, "FLOAT")
    for _ in range(count):
        graph.node("KSampler", KSAMPLER, model=(model, 0), cfg=(cfg, 0))
    return graph.workflow()


def test_twice_as_many_samplers_with_one_primitive_take_twice_as_long_to_check() -> None:
    """Whether it may be set depends on all that it drives."""
    few, many = map(samplers_of_one_primitive, (200, 400))
    assert len(check(read(many), here(SD15))[0]["badge"]["detail"].splitlines()) > 10
    assert calls(lambda: check(read(many), here(SD15))) < 2.1 * calls(lambda: check(read(few), here(SD15)))
