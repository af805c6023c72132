"""The edits are what their types say, in Python and on the page."""

import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from sun_pack.conversion.edits import Edit
from sun_pack.conversion.plan import make_plan

from .test_corpus import NAMES, load

PAGE = Path(__file__).parents[2] / "web" / "js" / "edits.js"
ENVELOPE = {"op", "graph"}
"""The fields that the page reads before it looks for the operation."""
EDITS: dict[str, Any] = {get_args(get_type_hints(kind)["op"])[0]: kind for kind in get_args(Edit)}


def page_operations() -> dict[str, set[str]]:
    """The fields that each operation of the page takes, by its name."""
    (body,) = re.findall(
        r"^const operations = \{\n(.*?)^\};", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return {
        name: {field.split(":")[0].strip() for field in re.sub(r"\[.*?\]", "", fields).split(",")}
        for name, fields in re.findall(r"^  (\w+)\(graph, \{ (.*?) \}\) \{", body, re.MULTILINE)
    }


def test_page_has_one_operation_for_each_kind_of_edit() -> None:
    assert page_operations().keys() == EDITS.keys()


@pytest.mark.parametrize("op", EDITS)
def test_page_reads_every_field_of_an_edit_and_no_other(op: str) -> None:
    assert page_operations()[op] == get_type_hints(EDITS[op]).keys() - ENVELOPE


@pytest.mark.parametrize("name", NAMES)
def test_plans_hold_edits_of_these_kinds_with_all_their_fields(name: str) -> None:
    speed_up = make_plan("speed_up", load(name)).edits
    for edit in [*speed_up, *make_plan("restore", load(f"{name}.expected")).edits]:
        kind = EDITS[edit["op"]]
        assert kind.__required_keys__ <= edit.keys() <= get_type_hints(kind).keys()
