"""Encoded prompts, as the U-Net reads them."""

import hashlib
import math
from collections.abc import Iterable, MutableMapping
from functools import cached_property
from typing import Any, NamedTuple

import torch
from comfy.model_base import BaseModel
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import SunError
from .captions import problem_of
from .tensor_folder import Tensors, content_hash


class Prompt(NamedTuple):
    """An encoded prompt: the context of cross-attention, and SDXL's vector of pooled text and picture size."""

    context: Tensor
    """(1, tokens, context_dim)."""
    y: Tensor | None
    """(1, channels); None for Stable Diffusion 1 and 2."""


class TextEncoder:
    """Encodes texts with ComfyUI's CLIP, and with what the MODEL adds for pictures of one size."""

    def __init__(self, clip: Any, base: BaseModel, latent_size: tuple[int, int]):
        """Encode for latents of the size `latent_size`, (height, width)."""
        self.clip, self.base, self.latent_size = clip, base, latent_size

    @torch.no_grad()
    def __call__(self, text: str) -> Prompt:
        """Encode one text."""
        [(context, extras)] = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))
        height, width = self.latent_size
        conds = self.base.extra_conds(
            cross_attn=context, pooled_output=extras.get("pooled_output"), device=context.device,
            noise=torch.zeros(1, self.base.latent_format.latent_channels, height, width),
            width=width * 8, height=height * 8, prompt_type="positive",
        )  # fmt: skip
        return Prompt(conds["c_crossattn"].cond, conds["y"].cond if "y" in conds else None)

    def key(self, text: str) -> str:
        """Name the encoded `text` in the cache."""
        return f"text-{self._name}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    @cached_property
    def _name(self) -> str:
        height, width = self.latent_size
        return f"{content_hash(self.clip.cond_stage_model)}-{height}x{width}"


def _check(text: str) -> None:
    """Raise SunError for a text that cannot be meant as a prompt."""
    if problem := problem_of(text):
        raise SunError("A prompt, {text!r}..., {problem}; change it.", text=text[:40], problem=problem)


class Prompts:
    """Looks up encoded prompts by their text, in `store`."""

    def __init__(self, encoder: TextEncoder, store: MutableMapping[str, Tensors]):
        self.encoder, self.store = encoder, store

    def encode(self, texts: Iterable[str]) -> None:
        """Encode those `texts` that are not in the store yet.

        Raises SunError for one that cannot be meant as a prompt.
        """
        texts = list(texts)
        for text in texts:
            _check(text)
        missing = [text for text in texts if self.encoder.key(text) not in self.store]
        for text in tqdm(missing, desc="Encoding texts", unit="text", disable=not missing):
            try:
                prompt = self.encoder(text)
            except RecursionError:  # in ComfyUI, which reads (weights) so
                raise SunError(
                    "A prompt, {text!r}..., nests parentheses too deeply; remove some.", text=text[:40]
                ) from None
            tensors = {"context": prompt.context} | ({} if prompt.y is None else {"y": prompt.y})
            self.store[self.encoder.key(text)] = {name: t.float().cpu().clone() for name, t in tensors.items()}

    def __getitem__(self, text: str) -> Prompt:
        tensors = self.store[self.encoder.key(text)]
        return Prompt(tensors["context"], tensors.get("y"))

    def batch(self, texts: list[str]) -> Prompt:
        """Stack the prompts of several texts, (rows, ...); shorter contexts are repeated, as ComfyUI repeats them."""
        prompts = [self[text] for text in texts]
        tokens = math.lcm(*(prompt.context.shape[1] for prompt in prompts))
        contexts = [prompt.context.repeat(1, tokens // prompt.context.shape[1], 1) for prompt in prompts]
        vectors = [prompt.y for prompt in prompts if prompt.y is not None]
        return Prompt(torch.cat(contexts), torch.cat(vectors) if vectors else None)
