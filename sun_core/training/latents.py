"""Training latents: pictures through the VAE, or drawn by the teacher from prompts alone; each computed once."""

import hashlib
from collections import Counter
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any, NamedTuple

import torch
from comfy.model_base import BaseModel
from PIL import UnidentifiedImageError
from tqdm.auto import tqdm

from .pictures import BadData, Picture
from .sampling import Sampler
from .tensor_folder import Tensors, content_hash
from .text import Prompts


class Example(NamedTuple):
    """A latent (its name in the store) with its caption."""

    latent: str
    caption: str


class PictureEncoder:
    """The VAE, for pictures of one size."""

    def __init__(self, vae: Any, base: BaseModel, width: int, height: int):
        self.vae, self.base, self.width, self.height = vae, base, width, height
        self._name = f"{content_hash(vae.first_stage_model)}-{height}x{width}"

    @torch.no_grad()
    def encode(self, picture: Picture, store: MutableMapping[str, Tensors], bad: BadData) -> Example | None:
        """Sees to it that the picture's latent is in `store`; None where it is no picture and the run goes on."""
        key = f"latent-{self._name}-{hashlib.sha256(picture.content).hexdigest()[:32]}"
        if key not in store:
            try:
                pixels = picture.pixels(self.width, self.height)
            except Exception as error:  # Pillow lets through what its decoders raise
                reason = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
                bad.report(f"The picture {picture.name} is damaged, or is none{reason}")
                return None
            latent = self.base.process_latent_in(self.vae.encode(pixels))
            store[key] = {"latent": latent.squeeze(0).half().cpu().clone()}
        return Example(key, picture.caption)


def encode_pictures(
    pictures: Iterable[Picture], encoder: PictureEncoder, store: MutableMapping[str, Tensors], bad: BadData
) -> list[Example]:
    """All usable pictures as examples."""
    bar = tqdm(pictures, desc="Pictures to latents", unit="picture")
    found = (encoder.encode(picture, store, bad) for picture in bar)
    return [example for example in found if example is not None]


def draw_latents(
    captions: Sequence[str],
    sampler: Sampler,
    prompts: Prompts,
    guidance: float,
    seed: int,
    store: MutableMapping[str, Tensors],
    rows: int,
    share: tuple[int, int] = (0, 1),
) -> list[Example]:
    """What the teacher draws, where there are no pictures: one per caption, `rows` at a time.

    The same caption twice gives two pictures; the same seed gives the same ones. `share` is (i, n) where n processes
    draw a part each, and the i-th is ours.
    """
    height, width = prompts.encoder.latent_size
    drawn = f"drawn-{sampler.name}-{height}x{width}-{guidance:g}-{seed}"
    occurrences: Counter[str] = Counter()
    examples = []
    for caption in captions:
        occurrences[caption] += 1
        of_caption = hashlib.sha256(f"{occurrences[caption]} {caption}".encode()).hexdigest()[:32]
        examples.append(Example(f"{drawn}-{of_caption}", caption))
    first_of_ours, processes = share
    missing = [example for example in examples[first_of_ours::processes] if example.latent not in store]
    for first in tqdm(range(0, len(missing), rows), desc="Drawing pictures", unit="batch", disable=not missing):
        some = missing[first : first + rows]
        pairs, seeds = [(example.caption, "") for example in some], [example.latent for example in some]
        latents = sampler.teacher(sampler.start(pairs, prompts, guidance, seeds))
        for example, latent in zip(some, latents, strict=True):
            store[example.latent] = {"latent": latent.half().cpu().clone()}
    return examples
