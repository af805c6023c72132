"""How good the shipped mini family is, drawn by ComfyUI's own loaders and samplers: the figures of README.md here."""

import itertools
import random
from dataclasses import dataclass
from pathlib import Path

import comfy.sample
import comfy.samplers
import comfy.sd
import torch
from measure import Judge
from models import UNET_CONFIG  # noqa: F401  (importing it teaches ComfyUI the mini family)
from safetensors.torch import load_file
from torch import Tensor
from world import SIZE, TEMPLATES, Scene, all_scenes, caption

BATCH = 25
CFG = 3.0


@dataclass(frozen=True)
class Way:
    """One way of sampling."""

    title: str
    steps: int
    cfg: float
    sampler: str
    scheduler: str
    sun: bool = False

    @property
    def evaluations(self) -> int:
        """U-Net evaluations of one picture; one with CFG counts as two."""
        return self.steps * (2 if self.cfg != 1.0 else 1)


TEACHER_25 = Way(f"teacher, 25 steps, CFG {CFG:g}", 25, CFG, "dpmpp_2m", "normal")
WAYS = (
    TEACHER_25,
    Way(f"teacher, 4 steps, CFG {CFG:g}", 4, CFG, "ddim", "simple"),
    Way("plain, 4 steps, no CFG", 4, 1.0, "ddim", "simple"),
    Way("SUN, 4 steps, no CFG", 4, 1.0, "ddim", "simple", sun=True),
)


@dataclass(frozen=True)
class Family:
    """A loaded checkpoint: ComfyUI's MODEL, CLIP and VAE."""

    model: object
    clip: object
    vae: object

    @classmethod
    def load(cls, checkpoint: Path, unet: Path | None = None, lora: Path | None = None) -> "Family":
        """`unet` takes the place of the checkpoint's own, `lora` goes on top (community styles)."""
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(checkpoint), embedding_directory=None)
        if unet:
            model = comfy.sd.load_diffusion_model(str(unet))
        if lora:
            model, _ = comfy.sd.load_lora_for_models(model, None, load_file(lora), 1.0, 0.0)
        return cls(model, clip, vae)

    def encode(self, texts: list[str]) -> Tensor:
        """Contexts (n, 77, width)."""
        return torch.cat([self.clip.encode_from_tokens(self.clip.tokenize(text)) for text in texts])

    @torch.inference_mode()
    def draw(self, model: object, way: Way, texts: list[str], negatives: list[str], seed: int) -> Tensor:
        """Pictures in 0..1 (n, 3, h, w); the i-th starts from the noise of seed + i, whatever the way."""
        out = []
        for first in range(0, len(texts), BATCH):
            rows = slice(first, first + BATCH)
            noise = torch.cat(
                [torch.randn(1, 4, SIZE // 8, SIZE // 8, generator=torch.Generator().manual_seed(seed + i))
                 for i in range(first, min(first + BATCH, len(texts)))]
            )  # fmt: skip
            latents = comfy.sample.sample(
                model, noise, way.steps, way.cfg, way.sampler, way.scheduler,
                [[self.encode(texts[rows]), {}]], [[self.encode(negatives[rows]), {}]],
                torch.zeros_like(noise), disable_pbar=True, seed=seed,
            )  # fmt: skip
            out.append(self.vae.decode(latents).movedim(-1, 1)[:, :3].float())
        return torch.cat(out)


def unseen_prompts(count: int, seed: int = 0) -> list[tuple[Scene, str]]:
    """Prompts for combinations that no U-Net drew in training, in a fixed random order, repeated where too few."""
    pairs = [(scene, caption(scene, t)) for scene in all_scenes() if scene.held_out for t in TEMPLATES]
    random.Random(seed).shuffle(pairs)
    return list(itertools.islice(itertools.cycle(pairs), count))


def share(hits: list[bool]) -> float:
    """Per cent of hits."""
    return 100 * sum(hits) / len(hits)


def psnr(a: Tensor, b: Tensor) -> float:
    """Mean over pictures of the peak signal-to-noise ratio, dB."""
    return float((-10 * (a - b).square().mean((1, 2, 3)).clamp(min=1e-10).log10()).mean())


def table(
    family: Family, models: dict[bool, object], judge: Judge, count: int = 200, ways: tuple[Way, ...] = WAYS
) -> list[dict]:
    """Accuracy and likeness of each way on unseen prompts.

    Args:
        models: the plain MODEL under False, the one with SUN under True.
    """
    scenes, texts = zip(*unseen_prompts(count), strict=True)
    reference, rows = None, []
    for way in ways:
        if way.sun and True not in models:
            continue
        pictures = family.draw(models[way.sun], way, list(texts), [""] * count, seed=1000)
        reference = pictures if reference is None else reference
        seen = judge.name(pictures)
        subject = [a.subject == b.subject for a, b in zip(scenes, seen, strict=True)]
        colour = [a.colour == b.colour for a, b in zip(scenes, seen, strict=True)]
        place = [a.place == b.place for a, b in zip(scenes, seen, strict=True)]
        rows.append(
            {
                "way": way.title,
                "evaluations": way.evaluations,
                "subject": share(subject),
                "colour": share(colour),
                "place": share(place),
                "both": share([s and c for s, c in zip(subject, colour, strict=True)]),
                "psnr": None if way is ways[0] else round(psnr(pictures, reference), 1),
            }
        )
    return rows


def negative_control(family: Family, models: dict[bool, object], judge: Judge, count: int = 100) -> list[dict]:
    """The colour that an open prompt came out in becomes its negative: how often does it stay? Lower is better."""
    rng = random.Random(1)
    texts = [caption(Scene(s.subject, None, s.place)) for s in rng.sample(list(all_scenes()), count)]
    rows = []
    for way in WAYS:
        if way.sun and True not in models:
            continue
        before = judge.name(family.draw(models[way.sun], way, texts, [""] * count, seed=5000))
        negatives = [scene.colour for scene in before]
        after = judge.name(family.draw(models[way.sun], way, texts, negatives, seed=5000))
        rows.append(
            {
                "way": way.title,
                "colour stays": share([a.colour == b.colour for a, b in zip(before, after, strict=True)]),
            }
        )
    return rows


def markdown(rows: list[dict]) -> str:
    """Rows of one shape as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(["" if v is None else v for v in row.values()] for row in rows)]
    return "\n".join(
        "| " + " | ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in line) + " |" for line in lines
    )
