"""The map in CONTRIBUTING.md is true for what is there."""

import re

import pytest
from workshop import REPOSITORY

LINES = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()


def named_below(folder: str) -> set[str]:
    """Return the modules that the map names in a folder, apart from those in its subfolders."""
    start = next(i for i, line in enumerate(LINES) if line.strip().split(" ")[0] == f"{folder}/")
    depth, below = len(LINES[start]) - len(LINES[start].lstrip()), [LINES[start]]
    for line in LINES[start + 1 :]:
        indent = len(line) - len(line.lstrip())
        if indent <= depth:
            break
        if indent == depth + 2:
            below.append(line)
    return set(re.findall(r"\w+\.py", "\n".join(below)))


@pytest.mark.parametrize("folder", ["nodes", "sun_core", "sun_core/training", "conversion", "tools", "scripts"])
def test_the_map_names_each_module_and_nothing_else(folder: str) -> None:
    there = {file.name for file in (REPOSITORY / folder).glob("*.py")} - {"__init__.py"}
    assert named_below(folder.split("/")[-1]) == there
