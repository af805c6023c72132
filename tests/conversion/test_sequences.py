"""Whatever an artist clicks, switches and deletes in a row: Fix mends what it offers to, Restore leaves nothing behind.

SUN_TEST_SEQUENCES says how many sequences are tried on each workflow of the corpus.
"""

import copy
import os
import random
from typing import Any

import pytest
from sun_pack.conversion.check import check
from sun_pack.conversion.plan import convert, read
from sun_pack.conversion.restore import take_out
from sun_pack.conversion.rules import NEGATIVE
from sun_pack.conversion.ui_edits import apply_to_ui

from .compare import canonical
from .test_corpus import load
from .test_findings import SD15, here
from .test_left_behind import SUN, Json, badges
from .test_negative_beside_sun import with_negative
from .test_put_in_by_hand import WITH_SUN, graphs_of, placed_by_hand

OURS = (SUN, NEGATIVE)
SEQUENCES = int(os.environ.get("SUN_TEST_SEQUENCES", "1"))
CLICKS = ("speed_up", "negative", "fix", "restore", "steps_2", "steps_6")
SWITCHES: dict[str, Any] = {"bypass": 4, "mute": 2, "wake": 0}


def after(workflow: Json, what: str, rng: random.Random) -> Json:
    """The workflow after a click, a switch, a deletion, or a new strength or CFG."""
    if what in CLICKS:
        return convert(what, workflow, None, here(SD15))[0]
    if what == "delete":
        return without_one_sun(workflow, rng)
    workflow = copy.deepcopy(workflow)
    nodes = [node for graph in graphs_of(workflow) for node in graph["nodes"]]
    for node in nodes:
        if what == "cfg" and node["type"] == "KSampler":
            node["widgets_values"][3] = rng.choice([1.0, 2.0, 7.0])
    suns = [node for node in nodes if node["type"] in OURS]
    if suns and what in SWITCHES:
        rng.choice(suns)["mode"] = SWITCHES[what]
    elif what == "strength" and (strong := [node for node in suns if node["type"] == SUN]):
        rng.choice(strong)["widgets_values"][1] = rng.choice([0, 1.0])
    return workflow


def negative_by_hand(name: str) -> Json:
    return with_negative(name, "by hand")


def without_one_sun(workflow: Json, rng: random.Random) -> Json:
    now = read(workflow)
    suns = [node for node in now.nodes() if node.type in OURS]
    if not suns:
        return workflow
    gone = rng.choice(suns)
    found = [entry for entry in check(now, here(SD15)) if (entry["graph"], entry["node"]) == (gone.graph.id, gone.id)]
    notes = [edit for entry in found for edit in entry["on_delete"]]
    return apply_to_ui(workflow, [*notes, *take_out([gone])], {})


@pytest.mark.parametrize("name", WITH_SUN)
def test_any_sequence_can_be_fixed_and_restored(name: str) -> None:
    for number in range(SEQUENCES):
        rng = random.Random(f"{name} {number}")
        workflow = rng.choice([load, placed_by_hand, with_negative, negative_by_hand])(name)
        sequence = [rng.choice([*CLICKS, *SWITCHES, "delete", "strength", "cfg"]) for _ in range(rng.randint(2, 8))]
        for what in sequence:
            workflow = after(workflow, what, rng)
        if rng.random() < 0.5:
            for _ in range(3):  # a remedy can bring up what was hidden by the fault
                workflow = after(workflow, "fix", rng)
            assert not any(badge["fix"] for badge in badges(workflow).values()), sequence
        restored = after(workflow, "restore", rng)
        assert canonical(after(restored, "restore", rng)) == canonical(restored), sequence
        ours = [node for graph in graphs_of(restored) for node in graph["nodes"] if node["type"] in OURS]
        assert not any("sun_restore" in node["properties"] for node in ours), sequence
        assert not any("sun_negative_restore" in node["properties"] for node in ours), sequence
        assert not any(b["text"] == "SUN is gone" and b["fix"] for b in badges(restored).values()), sequence
