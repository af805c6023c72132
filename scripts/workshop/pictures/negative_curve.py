"""How surely a negative prompt counts at each scale, and what the images look like: a picture of a help page."""

import io
import json

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

from .. import REPOSITORY
from ..server.comfy_server import ComfyServer
from ..server.demo_models import Models
from ..server.example_workflows import example_file, set_to
from ..server.workflows import Workflow
from .tiles import GAP, INK, PAPER, sheet, tile

RESULTS = REPOSITORY / "benchmarks" / "negative.json"
CURVE, CFG = "LCM-LoRA, 4 steps, CFG 1, scale ", "25 steps, CFG 3"
"""The names of the measured ways: those of the curve, and the one that it is compared with."""
SCALES = (1.0, 1.5, 2.0, 3.0, 12.0)
TILE, COLUMNS, HEIGHT = 200, 3, 300  # pixels; the help panel is narrow
DPI = 100
BURNT = {"scale": 12.0, "tau": 20.0, "alpha": 1.0}


def negative_curve(server: ComfyServer, models: Models) -> Image.Image:
    """Put the measured curve above tiles of one seed, the last of them with all settings too high."""
    workflow = Workflow.read(example_file("negative_prompt_at_cfg_1"), server.get("/object_info"))
    set_to(models, workflow)
    workflow.set("Negative prompt", text=models.changed_negative)
    variants = [(f"scale {scale:g}", {"scale": scale}) for scale in SCALES]
    tiles = []
    for label, values in (*variants, ("12, tau 20, alpha 1", BURNT)):
        workflow.set("Negative Prompt at CFG 1", **values)
        png = server.run(workflow.to_api()).pictures[workflow.node_id("Save picture")]
        tiles.append(tile(png, TILE, TILE + 28, label))
    below = sheet([tiles[i : i + COLUMNS] for i in range(0, len(tiles), COLUMNS)])
    made = Image.new("RGB", (below.width, HEIGHT + GAP + below.height), INK)
    made.paste(curve(below.width), (0, 0))
    made.paste(below, (0, HEIGHT + GAP))
    return made


def curve(width: int) -> Image.Image:
    """Plot the shares over the scale, with 95 % intervals, as an image of that width."""
    ways = json.loads(RESULTS.read_text(encoding="utf-8"))["ways"]
    figures = {float(name.removeprefix(CURVE)): row for name, row in ways.items() if name.startswith(CURVE)}
    figure, axis = plt.subplots(figsize=(width / DPI, HEIGHT / DPI), dpi=DPI)
    for key, label, color in (
        ("thing_right", "thing is right", PAPER),
        ("colour_comes_again", "negated colour comes again", "#b3541e"),
    ):
        shares = [row[key] for row in figures.values()]
        values = [share["value"] for share in shares]
        errors = [[v - s["low"] for v, s in zip(values, shares, strict=True)],
                  [s["high"] - v for v, s in zip(values, shares, strict=True)]]  # fmt: skip
        axis.errorbar([*figures], values, errors, marker="o", capsize=3, color=color, label=label)
    guided = ways[CFG]["colour_comes_again"]["value"]
    axis.axhline(guided, linestyle="--", color="#b3541e", alpha=0.6, label=f"the same at {CFG}")
    axis.set(xlabel="scale (LCM-LoRA, 4 steps, CFG 1; 200 prompts)", ylabel="%", ylim=(-4, 106), xticks=[*figures])
    axis.set_xticklabels([f"{scale:g}" for scale in figures], fontsize=8)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="center right")
    figure.tight_layout()
    written = io.BytesIO()
    figure.savefig(written)
    plt.close(figure)
    return Image.open(written).convert("RGB")
