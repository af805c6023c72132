"""What evaluate.py draws and measures, with ComfyUI's own loaders and samplers."""

import argparse
import json
import statistics
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.sample
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from inputs import load_models
from metrics import Figures
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sun_core.adapter import load_adapter
from sun_core.apply import apply_sun
from sun_core.settings import SunSettings
from sun_core.training.sampler import TEACHER_STEPS

PAPER, INK = "#faf9f6", "#22252b"
LABEL, HEADER, GAP, SMALLEST_TILE, LARGEST_TILE = 220, 44, 8, 192, 384  # pixels of the sheet


@dataclass(frozen=True)
class Method:
    """One way of sampling."""

    title: str
    steps: int
    cfg: float
    model: ModelPatcher
    sampler: str = "ddim"
    scheduler: str = "simple"

    @property
    def evaluations(self) -> int:
        """Evaluations of the U-Net for one picture; one with CFG counts as two."""
        return self.steps * (2 if self.cfg != 1.0 else 1)


@dataclass(frozen=True)
class Drawn:
    """What a method drew."""

    pictures: Tensor
    """(n, 3, height, width) in 0..1."""
    seconds: float
    """Median time of sampling one."""


def run(options: argparse.Namespace, prompts: Sequence[str]) -> None:
    """Draw, measure, and write comparison.png and figures.json into the chosen folder."""
    pairs = [read_pair(prompt) for prompt in prompts]
    model, clip, vae = load_models(options.checkpoint)
    adapter = load_adapter(options.adapter)
    steps = adapter.steps
    methods = (
        Method(f"{TEACHER_STEPS} steps, CFG {options.cfg:g}", TEACHER_STEPS, options.cfg, model, "dpmpp_2m", "normal"),
        Method(f"plain, {steps} steps", steps, 1.0, model),
        Method(f"SUN, {steps} steps", steps, 1.0, apply_sun(model, adapter, SunSettings())),
    )
    drawn = {method: draw(method, pairs, clip, vae, options.size, options.seed) for method in methods}
    rows, notes = measure(drawn, [positive for positive, _ in pairs], options.clip, options.inception)
    options.output.mkdir(parents=True, exist_ok=True)
    comparison = options.output / "comparison.png"
    sheet({method.title: drawn[method].pictures for method in methods}, pairs).save(comparison)
    found = {"prompts": len(pairs), "checkpoint": options.checkpoint.name, "adapter": options.adapter.name}
    (options.output / "figures.json").write_text(json.dumps(found | {"ways": rows}, indent=2) + "\n", encoding="utf-8")
    print(table(rows))
    print("\n".join(notes))
    print(f"\nPictures: {comparison}")


def read_pair(line: str) -> tuple[str, str]:
    """Split `positive | negative`; the negative may be missing."""
    positive, _, negative = line.partition("|")
    return positive.strip(), negative.strip()


@torch.inference_mode()
def draw(method: Method, pairs: Sequence[tuple[str, str]], clip: Any, vae: Any, size: int, seed: int) -> Drawn:
    """Draw a picture of `size` x `size` pixels for each pair; the i-th starts from the noise of seed + i."""
    pictures, seconds = [], []
    empty = torch.zeros(1, 4, size // 8, size // 8)
    texts = {text for pair in pairs for text in pair}
    conditionings = {text: clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in texts}
    for index, (positive, negative) in enumerate(pairs):
        noise = comfy.sample.prepare_noise(empty, seed + index)

        def sample(noise: Tensor = noise, positive: str = positive, negative: str = negative) -> Tensor:
            return comfy.sample.sample(
                method.model, noise, method.steps, method.cfg, method.sampler, method.scheduler,
                conditionings[positive], conditionings[negative], empty, disable_pbar=True, seed=seed,
            ).cpu()  # waits for the device  # fmt: skip

        if index == 0:
            sample()  # what happens only once, such as loading the model, does not count
        started = time.perf_counter()
        latent = sample()
        seconds.append(time.perf_counter() - started)
        pictures.append(vae.decode(latent).movedim(-1, 1)[:, :3].float().cpu())
        print(f"{method.title}: {index + 1} of {len(pairs)}", flush=True)
    return Drawn(torch.cat(pictures), statistics.median(seconds))


def measure(
    drawn: Mapping[Method, Drawn], positives: Sequence[str], clip: str | None, inception: Path | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Make a row of figures for each method, and notes on what is missing. The first method is the reference."""
    reference = next(iter(drawn.values()))
    figures = Figures(reference.pictures, positives, clip, inception)
    rows = []
    for method, result in drawn.items():
        row = {"way": method.title, "evaluations": method.evaluations, "seconds": round(result.seconds, 3)}
        row |= {"times faster": round(reference.seconds / result.seconds, 2)}
        rows.append(row | figures.of(result.pictures))
    return rows, figures.notes


def table(rows: list[dict[str, Any]]) -> str:
    """Format the rows as text."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["".join(f"{column:>{24 if column == 'way' else 14}}" for column in columns)]
    lines += ["".join(f"{row.get(c, '')!s:>{24 if c == 'way' else 14}}" for c in columns) for row in rows]
    return "\n".join(lines)


def sheet(columns: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]]) -> Image.Image:
    """Put pictures side by side: a row for each prompt, a column for each method."""
    size = next(iter(columns.values())).shape[-1]
    tile = max(min(size, LARGEST_TILE), SMALLEST_TILE)
    sheet = Image.new("RGB", (LABEL + len(columns) * (tile + GAP), HEADER + len(pairs) * (tile + GAP)), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for x, (title, pictures) in enumerate(columns.items()):
        left = LABEL + x * (tile + GAP)
        pen.text((left + tile // 2, HEADER // 2), title, INK, font, anchor="mm")
        for y, picture in enumerate(pictures):
            pixels = (picture.clamp(0, 1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            image = Image.fromarray(pixels).resize((tile, tile), Image.Resampling.LANCZOS)
            sheet.paste(image, (left, HEADER + y * (tile + GAP)))
    for y, (positive, negative) in enumerate(pairs):
        text = textwrap.wrap(positive, 26)[:6] + (["", *textwrap.wrap(f"not: {negative}", 26)[:4]] if negative else [])
        pen.multiline_text((GAP, HEADER + y * (tile + GAP) + tile // 2), "\n".join(text), INK, font, anchor="lm")
    return sheet
