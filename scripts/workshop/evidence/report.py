"""The tables of benchmarks/README.md, from results.json. Standard library only."""

import json
from typing import Any

from .. import REPOSITORY

README = REPOSITORY / "benchmarks" / "README.md"
FOLDER = REPOSITORY / "benchmarks" / "distillation"
RESULTS, SETTINGS = FOLDER / "results.json", FOLDER / "settings.json"
BEGIN, END = "<!-- begin of what evidence.py writes -->", "<!-- end of what evidence.py writes -->"

COLUMNS = {
    "title": "way",
    "evaluations": "evaluations",
    "training_steps": "trained for, steps",
    "psnr": "pairs: PSNR, dB",
    "behind": "pairs: PSNR of SUN over it, dB",
    "frechet": "pairs: Fréchet distance",
    "psnr_full": "full: PSNR, dB",
    "frechet_full": "full: Fréchet distance",
    "both": "full: both right, %",
    "stays": "negated colour stays, %",
}


def tables(results: dict[str, Any]) -> str:
    """Write all tables as Markdown."""
    parts = [
        ("Goals", goal_table(results["goals"])),
        ("Peers", table(results["methods"])),
        ("Ablations", table(results["ablations"], ("title", "training_steps", "psnr", "behind", "frechet"))),
        ("Steps", table(results["steps"], ("title", "evaluations", "training_steps", "psnr", "frechet"))),
        ("Noise", noise_table(results["noise"])),
        ("Strength of the negative", strength_table(results["graded"])),
        ("Community styles", style_table(results["styles"])),
    ]
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in parts)


def table(rows: dict[str, dict[str, Any]], columns: tuple[str, ...] = tuple(COLUMNS)) -> str:
    return markdown([COLUMNS[c] for c in columns], [[cell(row.get(c)) for c in columns] for row in rows.values()])


def goal_table(goals: list[dict[str, Any]]) -> str:
    rows = [[goal["what"], goal["goal"], found(goal), "met" if goal["met"] else "**missed**"] for goal in goals]
    return markdown(["what", "goal", "measured", ""], rows)


def found(goal: dict[str, Any]) -> str:
    return f"{cell(goal['found'])} {goal['unit']}".strip()


def strength_table(graded: dict[str, dict[str, float]]) -> str:
    return markdown(["negative strength", *graded], [["negated colour stays, %", *map(cell, graded.values())]])


def noise_table(noise: dict[str, dict[str, float]]) -> str:
    return markdown(
        ["full, each prompt once", *noise], [["Fréchet distance to teacher-25", *map(cell, noise.values())]]
    )


def style_table(styles: dict[str, dict[str, Any]]) -> str:
    columns = {
        "plain": "plain, 4 steps: PSNR, dB",
        "sun": "SUN, 4 steps: PSNR, dB",
        "gain": "gain, dB",
        "kept": "of the base's, %",
    }
    rows = [[style, *(cell(row[c]) for c in columns)] for style, row in styles.items()]
    return markdown(["style", *columns.values()], rows)


def cell(value: Any) -> str:
    """Format a figure with its 95 % interval, a number, a text, or nothing."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return f"{value['value']:.2f} ({value['low']:.2f} to {value['high']:.2f})"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(readme: str) -> str:
    """Return what the README holds between the two marks."""
    return readme.split(BEGIN)[1].split(END)[0].strip()


def write(results: dict[str, Any]) -> None:
    """Write results.json, and its tables into the README."""
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n\n{tables(results)}\n\n{END}{after}", encoding="utf-8")
