"""The tables of docs/compatibility.md, from what scripts/neighbours.py measured on each ComfyUI."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from .. import REPOSITORY
from .pack_list import CORE, PACKS
from .running import Result, figure

PAGE = REPOSITORY / "docs" / "compatibility.md"
SECTIONS = ("works", "negative", "no effect", "changed")
ALWAYS = ("findings", "layers", "named")
"""Checks that the page names once, above a table."""
Runs = dict[str, dict[str, Result]]
"""From the version of a ComfyUI to the results of its packs, by their names."""


def publish(files: list[Path]) -> None:
    """Write the tables of these JSON files, one for each ComfyUI, into the page; exit if a file has none or several."""
    runs: Runs = {}
    for file in files:
        results = json.loads(file.read_text(encoding="utf-8"))
        versions = {result["comfyui"] for result in results if "comfyui" in result}
        if len(versions) != 1:
            sys.exit(f"{file} has figures of {len(versions)} versions of ComfyUI; give a file of one version each.")
        runs[versions.pop()] = {result["pack"]: result for result in results}
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), runs), encoding="utf-8")


def with_tables(text: str, runs: Runs) -> str:
    """Return the text of the page with each table between its marks."""
    made = {"packs": packs_table(runs)} | {section: table(section, runs) for section in SECTIONS}
    for name, lines in made.items():
        start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
        before, _, rest = text.partition(start)
        text = f"{before}{start}\n{lines}\n{end}{rest.partition(end)[2]}"
    return text


def packs_table(runs: Runs) -> str:
    """Return the Markdown table of the packs that were run."""
    lines = ["| pack | commit |", "|---|---|"]
    for pack, (owner, _) in PACKS.items():
        found = {version: results[pack]["commit"] for version, results in runs.items() if pack in results}
        commits = {version: commit for version, commit in found.items() if commit}  # none if it could not be loaded
        if pack != CORE:
            lines.append(f"| [{pack}](https://github.com/{owner}/{pack}) | {_by_version(commits)} |")
    return "\n".join(lines)


def table(section: str, runs: Runs) -> str:
    """Return the Markdown table of a section."""
    lines = ["| pack | node | order | figures | own test |", "|---" * 5 + "|"]
    for pack, row in _rows(section, runs):
        figures = {version: _figures(results.get(pack), row) for version, results in runs.items()}
        test = f"`{row['test']}`" if row["test"] else ""
        lines.append(f"| {' | '.join((pack, row['name'], row['order'], _by_version(figures), test))} |")
    return "\n".join(lines)


def _rows(section: str, runs: Runs) -> Iterator[tuple[str, Result]]:
    """Yield each row once, in the order of the list of packs."""
    for pack in PACKS:
        of_pack = [row for results in runs.values() if pack in results for row in results[pack]["rows"]]
        named = {row["name"]: row for row in of_pack if row["section"] == section}
        yield from ((pack, row) for row in named.values())


def _by_version(values: dict[str, str]) -> str:
    """Say once what all versions have in common."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return "; ".join(f"{version}: {value}" for version, value in values.items())


def _figures(result: Result | None, row: Result) -> str:
    if result is None or result["why"]:
        return "not run"
    for other in result["rows"]:
        if (other["name"], other["section"]) == (row["name"], row["section"]) and "missing" not in other:
            if "error" in other:
                return other["error"]
            shown = [check for check in other["checks"] if check["what"] not in ALWAYS]
            return ", ".join(f"{check['what']} {figure(check['figure'])}" for check in shown)
    return "no such node"
