"""The table of speeds in benchmarks/README.md, made from the files in benchmarks/speed."""

import json
from pathlib import Path
from typing import Any

from .. import REPOSITORY

FOLDER = REPOSITORY / "benchmarks" / "speed"
README = REPOSITORY / "benchmarks" / "README.md"
START, END = "<!-- speed: start -->", "<!-- speed: end -->"
COLUMNS = (
    "plain, 25 steps, CFG",
    "plain, 4 steps",
    "SUN, 4 steps",
    "SUN, 4 steps, captured",
    "speed-up, eager",
    "speed-up, captured",
    "forward, SUN / plain",
)


def table() -> str:
    """Return a Markdown table with a row for each file and batch size; medians, with the spread of the speed-up."""
    lines = [
        f"| measured on | batch | {' | '.join(COLUMNS)} |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    for file in sorted(FOLDER.glob("*.json")):
        measured = json.loads(file.read_text(encoding="utf-8"))
        figures = measured["figures"]
        for batch in sorted({int(name.split(":")[0].split()[1]) for name in figures if name.startswith("batch ")}):
            where = f"{_machine(measured['machine'])} ([{file.name}](speed/{file.name}))"
            cells = [_cell(figures.get(f"batch {batch}: {column}")) for column in COLUMNS]
            lines.append(f"| {' | '.join([where, str(batch), *cells])} |")
    return "\n".join(lines)


def _machine(machine: dict[str, Any]) -> str:
    return f"{machine['device']}, {machine['weights']}, latents {machine['latent']}, ComfyUI {machine['comfyui']}"


def _cell(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return ""
    if figure["unit"] == "x":
        return f"{figure['median']:.2f} ({figure['min']:.2f} to {figure['max']:.2f})"
    return f"{figure['median']:.3g} {figure['unit']}"


def with_table(text: str) -> str:
    """Return the text of benchmarks/README.md with today's table between its marks."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{table()}\n{END}{after}"


def publish(readme: Path = README) -> None:
    """Write the table into benchmarks/README.md."""
    readme.write_text(with_table(readme.read_text(encoding="utf-8")), encoding="utf-8")
