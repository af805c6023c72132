"""The tables of speeds, from files in benchmarks/: sampling in benchmarks/README.md, training in docs/training.md."""

import json
from pathlib import Path
from typing import Any

from .. import REPOSITORY

SAMPLING, TRAINING = REPOSITORY / "benchmarks" / "speed", REPOSITORY / "benchmarks" / "training"
README, TRAINING_PAGE = REPOSITORY / "benchmarks" / "README.md", REPOSITORY / "docs" / "training.md"
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


def sampling_table() -> str:
    """Return a Markdown table with a row for each file and batch size; medians, with the spread of the speed-up."""
    lines = [
        f"| measured on | batch | {' | '.join(COLUMNS)} |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    for file in sorted(SAMPLING.glob("*.json")):
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


def training_table(folder: Path = TRAINING) -> str:
    """Return a Markdown table with a row for each measurement of training, or a sentence if nothing was measured."""
    measured = [row for file in sorted(folder.glob("*.json")) for row in json.loads(file.read_text(encoding="utf-8"))]
    if not measured:
        return "Nothing was measured on a GPU yet: `--dry-run` measures it on yours."
    lines = ["| measured on | U-Net | batch | settings | images/s | memory at most |", "|---" * 6 + "|"]
    for row in measured:
        settings = ", ".join([row["precision"], *(f"{name}={value}" for name, value in row["settings"].items())])
        memory = f"{row['peak_bytes'] / 1e9:.1f} GB" if row["peak_bytes"] else ""
        cells = (row["device"], {"sd15": "SD1.5", "sdxl": "SDXL"}[row["family"]], row["batch"], settings)
        lines.append(f"| {' | '.join(map(str, cells))} | {row['images_per_second']:.3g} | {memory} |")
    return "\n".join(lines)


def with_table(text: str, table: str) -> str:
    """Return the text of a document with this table between its marks."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{table}\n{END}{after}"


def publish() -> None:
    """Write both tables into their documents."""
    for document, table in ((README, sampling_table()), (TRAINING_PAGE, training_table())):
        text = document.read_text(encoding="utf-8")
        document.write_text(with_table(text, table), encoding="utf-8")
