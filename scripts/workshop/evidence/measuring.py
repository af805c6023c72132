"""Draw a set of prompts in one way, and keep what the figures need of it.

Work is cut into chunks of prompts, shared between as many processes as there are cores. What a chunk gave is kept under
build/evidence/measured, named after all that it depends on, so that a run that was stopped goes on.
"""

import functools
import hashlib
import json
import multiprocessing
import os
import random
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from comfy.model_patcher import ModelPatcher
from safetensors.torch import load_file
from torch import Tensor

from sun_core.training.evaluation import psnr

from ..comfyui import start_comfyui
from ..mini.adapter import draw_pair
from ..mini.autoencoder import Autoencoder
from ..mini.family import BATCH, Family, unseen_prompts
from ..mini.files import BASE, COMMUNITY, JUDGE, LORAS, community_unet, lora_file
from ..mini.judge import Judge, load
from ..mini.loop import FAST_ON_A_CPU
from ..mini.world import TEMPLATES, Scene, all_scenes, caption
from . import methods
from .runs import WORK, without_norm

ARGUMENTS = ("--cpu", "--use-pytorch-cross-attention")
CHUNK = 4 * BATCH
TUNING = 2 * BATCH
"""Prompts that a peer's settings are chosen on."""
SEEDS = {"full": 1000, "pairs": 20_000, "open": 40_000, "tuning": 60_000}


@dataclass(frozen=True)
class Prompts:
    """Positive and negative texts, and what the pictures should show if that is known."""

    positives: list[str]
    negatives: list[str]
    scenes: list[Scene] | None = None


@functools.cache
def prompts(kind: str, count: int) -> Prompts:
    """Draw the prompts of a kind; a smaller count gives the first ones of a larger.

    `full`: combinations unseen in training, with an empty negative. `pairs`: random pairs of a positive and a negative
    on such combinations, as adapter.draw_pair mixes them (the paper's setting). `tuning`: such pairs on combinations of
    the training set. `open`: prompts that leave the colour open.
    """
    rng = random.Random(SEEDS[kind])
    if kind == "full":
        unseen = unseen_prompts(count)
        return Prompts([text for _, text in unseen], [""] * count, [scene for scene, _ in unseen])
    if kind == "open":
        drawn = [(rng.choice(list(all_scenes())), rng.choice(TEMPLATES)) for _ in range(count)]
        scenes = [Scene(scene.subject, None, scene.place) for scene, _ in drawn]
        texts = [caption(scene, template) for scene, (_, template) in zip(scenes, drawn, strict=True)]
        return Prompts(texts, [""] * count, scenes)
    scenes = [scene for scene in all_scenes() if scene.held_out == (kind == "pairs")]
    pairs = [draw_pair(rng.choice(scenes), rng) for _ in range(count)]
    return Prompts([positive for positive, _ in pairs], [negative for _, negative in pairs])


@dataclass(frozen=True)
class Job:
    """One chunk of one set in one way."""

    method: str
    kind: str
    first: int
    count: int
    """Of the whole set."""
    style: str = "storybook"
    settings: str = "null"
    """JSON, of a peer that is being tuned."""

    @property
    def rows(self) -> slice:
        """The chunk's rows of the set."""
        return slice(self.first, min(self.first + CHUNK, self.count))

    @property
    def reference(self) -> "Job | None":
        """The teacher's job that this one is measured against."""
        if self.method == "teacher-25" or self.kind == "open":
            return None
        return Job("teacher-25", self.kind, self.first, self.count, self.style)

    @property
    def is_ready(self) -> bool:
        """Whether what it is measured against was drawn."""
        return self.reference is None or self.reference.file.exists()

    @property
    def file(self) -> Path:
        """Where its result is kept."""
        method, texts = methods.method(self.method, json.loads(self.settings)), prompts(self.kind, self.count)
        of_rows = texts.positives[self.rows], texts.negatives[self.rows]
        known = hashlib.sha256(repr((method.way, method.norm, method.settings, of_rows)).encode())
        for weights in filter(None, (BASE, JUDGE, method.weights, style_file(self.style))):
            known.update(digest(weights))
        return WORK / "measured" / f"{self.method}-{self.kind}-{self.style}-{self.first}-{known.hexdigest()[:16]}.pt"


@functools.cache
def digest(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).digest()


def style_file(style: str) -> Path | None:
    return community_unet(style) if style in COMMUNITY else lora_file(style) if style in LORAS else None


def jobs(method: str, kind: str, count: int, style: str = "storybook", settings: str = "null") -> list[Job]:
    return [Job(method, kind, first, count, style, settings) for first in range(0, count, CHUNK)]


def collected(parts: Iterable[Job]) -> dict[str, Tensor]:
    """Join what all chunks of a set gave, apart from the pictures."""
    loaded = [torch.load(job.file, weights_only=True) for job in parts]
    return {key: torch.cat([part[key] for part in loaded]) for key in loaded[0] if key != "pictures"}


def work_off(todo: Sequence[Job], processes: int) -> None:
    """Do all jobs that were not done before, in this order if each one's reference is there."""
    waiting = list(dict.fromkeys(job for job in todo if not job.file.exists()))
    count, started = len(waiting), time.monotonic()
    os.environ.update(FAST_ON_A_CPU)
    context = multiprocessing.get_context("spawn")
    running: set[Future[Job]] = set()
    with ProcessPoolExecutor(processes, context, initializer=start_comfyui, initargs=ARGUMENTS) as pool:
        while waiting or running:
            for job in [job for job in waiting if job.is_ready][: processes - len(running)]:
                waiting.remove(job)
                running.add(pool.submit(do, job))
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for job in (future.result() for future in finished):
                done, seconds = count - len(waiting) - len(running), time.monotonic() - started
                print(f"{done}/{count}  {seconds:.0f} s  {job.method} {job.kind} {job.style} {job.first}", flush=True)


@functools.cache
def family(style: str) -> Family:
    """Load a style once."""
    return Family.load(style)


@functools.cache
def judge() -> Judge:
    """Load the judge once."""
    return load(JUDGE)


@torch.inference_mode()
def do(job: Job) -> Job:
    """Draw and measure one chunk; its file appears only once it is whole."""
    method, kin = methods.method(job.method, json.loads(job.settings)), family(job.style)
    texts = prompts(job.kind, job.count)
    with nullcontext() if method.norm else without_norm():
        model = method.patch(kin.model)
        draw = functools.partial(drawn, kin, model, method, texts.positives[job.rows], seed=SEEDS[job.kind] + job.first)
        is_open = job.kind == "open"
        result = {"stays": stays(draw)} if is_open else measured(draw(texts.negatives[job.rows]), job, texts)
    job.file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = job.file.with_suffix(".part")
    torch.save(result, unfinished)
    unfinished.replace(job.file)
    return job


def drawn(
    kin: Family, model: ModelPatcher, method: methods.Method, positives: list[str], negatives: list[str], seed: int
) -> Tensor:
    """Draw pictures (n, 3, h, w) in 0..1 from the same noise in every method."""
    latents = kin.sample(model, method.way, positives, negatives, seed)
    return torch.cat([decoded(part) for part in latents.split(BATCH)])


@functools.cache
def narrow_autoencoder() -> tuple[Autoencoder, Tensor, Tensor]:
    """Load the shipped autoencoder, its scale and its shift; ComfyUI runs it with zero channels up to TAESD's width."""
    prefix = "first_stage_model."
    weights = {key.removeprefix(prefix): value.float() for key, value in load_file(BASE).items() if prefix in key}
    scale, shift = weights.pop("vae_scale"), weights.pop("vae_shift")
    narrow = Autoencoder()
    narrow.load_state_dict(weights)
    return narrow.eval(), scale, shift


def decoded(latents: Tensor) -> Tensor:
    """Decode as ComfyUI's VAE does, in a tenth of the time."""
    autoencoder, scale, shift = narrow_autoencoder()
    return autoencoder.taesd_decoder((latents - shift) * scale).clamp(0, 1)


def stays(draw: functools.partial) -> Tensor:
    """Make the colour that came out the negative, and tell whether each picture has it again, (n,)."""
    count = len(draw.args[3])
    before = judge().name(draw([""] * count))
    after = judge().name(draw([scene.colour for scene in before]))
    return torch.tensor([a.colour == b.colour for a, b in zip(before, after, strict=True)])


def measured(pictures: Tensor, job: Job, texts: Prompts) -> dict[str, Tensor]:
    """Measure each picture: the judge's features, likeness to the 25 steps (dB), whether thing and colour are right."""
    result = {"features": judge().body(pictures * 2 - 1)}
    if job.reference is None:
        result["pictures"] = pictures.half()
    else:
        reference = torch.load(job.reference.file, weights_only=True)["pictures"].float()
        result["psnr"] = torch.tensor([psnr(*pair) for pair in zip(pictures.split(1), reference.split(1), strict=True)])
    if texts.scenes:
        seen = list(zip(texts.scenes[job.rows], judge().name(pictures), strict=True))
        result["subject"] = torch.tensor([a.subject == b.subject for a, b in seen])
        result["colour"] = torch.tensor([a.colour == b.colour for a, b in seen])
    return result
