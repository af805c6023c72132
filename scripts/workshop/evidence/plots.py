"""The curves and the picture grid of the evidence."""

import io
import json
import re
import textwrap
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from safetensors import safe_open
from torch import Tensor

from ..mini.files import ADAPTER
from ..mini.world import SIZE
from . import methods
from .measuring import SEEDS, drawn, family, prompts
from .report import FOLDER

GAP, LABEL, HEADER = 8, 210, 44  # pixels
PAPER, INK = "#faf9f6", "#22252b"
COLUMNS = ("teacher-25", "teacher-4", "plain-4", "sun-shipped", "lcm-lora-1e-4", "nag")
ROWS = 8


def training_curve(results: dict[str, Any]) -> None:
    """Plot likeness and distance to the 25 steps over the shipped adapter's training; what needs none is a line."""
    points = sorted((steps_of(name), row) for name, row in results["curve"].items())
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8))
    for axis, key, label in zip(axes, ("psnr", "frechet"), ("PSNR to teacher-25, dB", "Fréchet distance"), strict=True):
        steps, figures = [p for p, _ in points], [row[key] for _, row in points]
        values = [f["value"] for f in figures]
        errors = [[f["value"] - f["low"] for f in figures], [f["high"] - f["value"] for f in figures]]
        axis.errorbar(steps, values, errors, marker="o", capsize=3, color="#b3541e", label="SUN, 4 evaluations")
        for name, style in (("teacher-4", "--"), ("plain-4", ":")):
            row = results["methods"][name]
            axis.axhline(row[key]["value"], linestyle=style, color="#22252b", label=row["title"])
        axis.set(xlabel="optimizer steps", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    _write(figure, "training.png")


def steps_of(name: str) -> int:
    """Return the optimizer steps of a point of the curve."""
    if name.startswith("curve-"):
        return int(name.removeprefix("curve-"))
    with safe_open(ADAPTER, "pt") as file:
        recipe = json.loads(file.metadata()["recipe"])
    return int(recipe["optimiser_steps"]) + int(recipe["trajectory_steps"])


def strength_curve(results: dict[str, Any]) -> None:
    """Plot how often a negated colour stays, by the strength of the negative."""
    graded = results["graded"]
    figures = list(graded.values())
    figure, axis = plt.subplots(figsize=(5, 3.4))
    values = [f["value"] for f in figures]
    errors = [[f["value"] - f["low"] for f in figures], [f["high"] - f["value"] for f in figures]]
    axis.errorbar([float(s) for s in graded], values, errors, marker="o", capsize=3, color="#b3541e", label="SUN")
    axis.axhline(
        results["methods"]["teacher-25"]["stays"]["value"], linestyle="--", color="#22252b", label="teacher-25"
    )
    axis.set(xlabel="negative strength", ylabel="negated colour stays, %", ylim=(-2, 102))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    _write(figure, "strength.png")


def _write(figure: Figure, name: str) -> None:
    written = io.BytesIO()
    figure.savefig(written, dpi=110)
    picture = Image.open(written).convert("RGB").quantize(256, dither=Image.Dither.NONE)  # a third of the bytes
    picture.save(FOLDER / name, optimize=True)


@torch.inference_mode()
def grid() -> None:
    """Draw random pairs in several ways from the same noise: the first of the measured set that have a negative."""
    pairs, kin, seed = prompts("pairs", 500), family("storybook"), SEEDS["pairs"]
    rows = [i for i, negative in enumerate(pairs.negatives) if negative and pairs.positives[i]][:ROWS]
    columns: list[Tensor] = []
    for name in COLUMNS:
        method = methods.method(name)
        model = method.patch(kin.model)
        one = [drawn(kin, model, method, [pairs.positives[i]], [pairs.negatives[i]], seed + i) for i in rows]
        columns.append(torch.cat(one))
    sheet = Image.new("RGB", (LABEL + len(COLUMNS) * (SIZE + GAP), HEADER + len(rows) * (SIZE + GAP)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for x, (name, pictures) in enumerate(zip(COLUMNS, columns, strict=True)):
        left = LABEL + x * (SIZE + GAP)
        title = re.sub(r" as shipped|, learning rate [^,]*", "", methods.method(name).title)
        lines = title.replace(", ", "\n", 1)
        draw.multiline_text((left + SIZE // 2, HEADER // 2), lines, INK, font, anchor="mm", align="center")
        for y, picture in enumerate(pictures):
            sheet.paste(image(picture), (left, HEADER + y * (SIZE + GAP)))
    for y, i in enumerate(rows):
        text = f"{pairs.positives[i]}\n\nnot: {pairs.negatives[i]}"
        draw.multiline_text((GAP, HEADER + y * (SIZE + GAP) + SIZE // 2), wrapped(text), INK, font, anchor="lm")
    sheet.save(FOLDER / "grid.jpg", quality=85, optimize=True, progressive=True)


def wrapped(text: str, width: int = 34) -> str:
    """Break `text` into lines of at most `width` characters."""
    return "\n".join("\n".join(textwrap.wrap(line, width)) for line in text.splitlines())


def image(picture: Tensor) -> Image.Image:
    """Turn a picture (3, h, w) in 0..1 into an image of its own size."""
    array = (picture.clamp(0, 1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return Image.fromarray(array)
