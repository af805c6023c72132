"""What evaluate.py measures, with ComfyUI's own loaders and samplers."""

import argparse
import json
import re
import statistics
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.sample
import comfy.sd
import environment
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from measurements import timed
from metrics import clip_scores, frechet_inception_distance, psnr, ssim
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sun_core.adapter import load_adapter
from sun_core.apply import SunSettings, apply_sun

MINI = environment.REPOSITORY / "demo" / "mini_family"
sys.path.append(str(MINI.parent))
import mini_family  # noqa: E402, F401  (teaches ComfyUI the mini family)

TEACHER_STEPS = 25
PAPER, INK = "#faf9f6", "#22252b"
LABEL, HEADER, GAP, LARGEST_TILE = 220, 44, 8, 384  # pixels of the sheet
MINI_PROMPTS = (
    "a red cat in the snow | ",
    "a mushroom in a meadow | yellow",
    "a blue boat at sunset | night",
    "a house in the desert | red",
)


class EvaluationError(Exception):
    """What stands in the way, in one sentence for the user."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated."""

    checkpoint: Path
    adapter: Path
    pairs: list[tuple[str, str]]
    cfg: float
    size: int


@dataclass(frozen=True)
class Way:
    """One way of sampling, and what it drew."""

    title: str
    steps: int
    cfg: float
    model: ModelPatcher
    sampler: str = "ddim"
    scheduler: str = "simple"

    @property
    def evaluations(self) -> int:
        return self.steps * (2 if self.cfg != 1.0 else 1)


def run(chosen: argparse.Namespace) -> None:
    """Draw, measure, and write comparison.png and figures.json into the chosen folder."""
    subject = chosen_subject(chosen)
    model, clip, vae = load(subject.checkpoint)
    adapter = load_adapter(subject.adapter)
    told = adapter.metadata.get("steps", "")
    steps = int(told) if re.fullmatch("[1-9][0-9]?", told) else 4  # a file may say anything
    ways = (
        Way(f"{TEACHER_STEPS} steps, CFG {subject.cfg:g}", TEACHER_STEPS, subject.cfg, model, "dpmpp_2m", "normal"),
        Way(f"plain, {steps} steps", steps, 1.0, model),
        Way(f"SUN, {steps} steps", steps, 1.0, apply_sun(model, adapter, SunSettings())),
    )
    drawn = {way: draw(way, subject, clip, vae, chosen.seed) for way in ways}
    rows, notes = measure(drawn, [positive for positive, _ in subject.pairs], chosen.clip, chosen.inception)
    chosen.output.mkdir(parents=True, exist_ok=True)
    sheet({way.title: pictures for way, (pictures, _) in drawn.items()}, subject.pairs).save(
        chosen.output / "comparison.png"
    )
    found = {"prompts": len(subject.pairs), "checkpoint": subject.checkpoint.name, "adapter": subject.adapter.name}
    (chosen.output / "figures.json").write_text(json.dumps(found | {"ways": rows}, indent=2) + "\n", encoding="utf-8")
    print(table(rows))
    print("\n".join(notes))
    print(f"\nPictures: {chosen.output / 'comparison.png'}")


def chosen_subject(chosen: argparse.Namespace) -> Subject:
    try:
        lines = chosen.prompts.read_text(encoding="utf-8-sig").splitlines() if chosen.prompts else list(MINI_PROMPTS)
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{chosen.prompts} is not a text in UTF-8 ({error}); save it as one.") from error
    pairs = [read_pair(line) for line in lines if line.strip()]
    if not pairs:
        raise EvaluationError(f"{chosen.prompts} holds no prompts: write one on each line.")
    if chosen.checkpoint:
        return Subject(chosen.checkpoint, chosen.adapter, pairs, chosen.cfg or 7.0, chosen.size or 512)
    defaults = json.loads((MINI / "defaults.json").read_text(encoding="utf-8"))
    checkpoint, adapter = (MINI / "weights" / defaults[name] for name in ("checkpoint", "adapter"))
    return Subject(checkpoint, adapter, pairs, chosen.cfg or defaults["cfg"], chosen.size or defaults["width"])


def read_pair(line: str) -> tuple[str, str]:
    """`positive | negative`; the negative may be missing."""
    positive, _, negative = line.partition("|")
    return positive.strip(), negative.strip()


def load(checkpoint: Path) -> tuple[ModelPatcher, Any, Any]:
    """MODEL, CLIP and VAE."""
    try:
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(checkpoint), embedding_directory=None)
    except Exception as error:  # ComfyUI raises what its readers of files raise
        reason = " ".join(str(error).split())
        raise EvaluationError(f"ComfyUI cannot load {checkpoint.name} ({reason}); choose a checkpoint.") from error
    if model is None or clip is None or vae is None:
        raise EvaluationError(f"{checkpoint.name} is no whole checkpoint: it needs a U-Net, a CLIP and a VAE.")
    return model, clip, vae


@torch.inference_mode()
def draw(way: Way, subject: Subject, clip: Any, vae: Any, seed: int) -> tuple[Tensor, float]:
    """Pictures (n, 3, height, width) in 0..1, one at a time, and the median seconds of sampling one."""
    pictures, seconds = [], []
    empty = torch.zeros(1, 4, subject.size // 8, subject.size // 8)
    texts = {text for pair in subject.pairs for text in pair}
    conditionings = {text: clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in texts}
    for index, (positive, negative) in enumerate(subject.pairs):
        noise = comfy.sample.prepare_noise(empty, seed + index)

        def sample(noise: Tensor = noise, positive: str = positive, negative: str = negative) -> Tensor:
            return comfy.sample.sample(
                way.model, noise, way.steps, way.cfg, way.sampler, way.scheduler,
                conditionings[positive], conditionings[negative], empty, disable_pbar=True, seed=seed,
            )  # fmt: skip

        if index == 0:
            sample()  # what is done once, such as loading the model, is no part of the time
        latent, elapsed = timed(sample)
        seconds.append(elapsed)
        pictures.append(vae.decode(latent).movedim(-1, 1)[:, :3].float().cpu())
        print(f"{way.title}: {index + 1} of {len(subject.pairs)}", flush=True)
    return torch.cat(pictures), statistics.median(seconds)


def measure(
    drawn: Mapping[Way, tuple[Tensor, float]], positives: Sequence[str], clip: str | None, inception: Path | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """A row of figures for each way, and what there is to say about them. The first way is the reference."""
    (reference, reference_seconds), notes = next(iter(drawn.values())), []
    scores, missing = clip_scores({way.title: pictures for way, (pictures, _) in drawn.items()}, positives, clip)
    notes += [missing] if missing else []
    rows = []
    for index, (way, (pictures, seconds)) in enumerate(drawn.items()):
        row = {"way": way.title, "evaluations": way.evaluations, "seconds": round(seconds, 3)}
        row |= {"times faster": round(reference_seconds / seconds, 2)}
        if index > 0:
            row |= {"psnr": round(psnr(pictures, reference), 2), "ssim": round(ssim(pictures, reference), 4)}
            distance, note = frechet_inception_distance(pictures, reference, inception)
            row |= {} if distance is None else {"fid": round(distance, 2)}
            notes += [note] if note not in notes else []
        row |= {"clip score": round(scores[way.title], 2)} if scores else {}
        rows.append(row)
    return rows, notes


def table(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["".join(f"{column:>{24 if column == 'way' else 14}}" for column in columns)]
    lines += ["".join(f"{row.get(c, '')!s:>{24 if c == 'way' else 14}}" for c in columns) for row in rows]
    return "\n".join(lines)


def sheet(columns: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]]) -> Image.Image:
    """A row for each prompt, a column for each way."""
    size = next(iter(columns.values())).shape[-1]
    tile = max(min(size, LARGEST_TILE), 192)
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
