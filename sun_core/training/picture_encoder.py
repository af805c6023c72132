"""Training pictures through the VAE; each is encoded once."""

import hashlib
from collections.abc import Iterable, MutableMapping
from typing import Any

import torch
from comfy.model_base import BaseModel
from PIL import UnidentifiedImageError
from tqdm.auto import tqdm

from .bad_data import BadData
from .example import Example
from .pictures import Picture
from .tensor_folder import Tensors, content_hash


class PictureEncoder:
    """Encodes pictures of one size into latents as the U-Net has them, and keeps them in `store`."""

    def __init__(self, vae: Any, base: BaseModel, width: int, height: int, store: MutableMapping[str, Tensors]):
        self.vae, self.base, self.width, self.height, self.store = vae, base, width, height, store
        self._name = f"{content_hash(vae.first_stage_model)}-{height}x{width}"

    def encode_all(self, pictures: Iterable[Picture], bad: BadData) -> list[Example]:
        """Encode all usable pictures."""
        bar = tqdm(pictures, desc="Pictures to latents", unit="picture")
        found = (self.encode(picture, bad) for picture in bar)
        return [example for example in found if example is not None]

    @torch.no_grad()
    def encode(self, picture: Picture, bad: BadData) -> Example | None:
        """Encode one picture; None if it is not a picture and the run goes on."""
        key = f"latent-{self._name}-{hashlib.sha256(picture.content).hexdigest()[:32]}"
        if key not in self.store:
            try:
                pixels = picture.pixels(self.width, self.height)
            except Exception as error:  # Pillow lets through what its decoders raise
                reason = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
                bad.report(f"The picture {picture.name} is damaged, or is not a picture{reason}")
                return None
            latent = self.base.process_latent_in(self.vae.encode(pixels))
            self.store[key] = {"latent": latent.squeeze(0).half().cpu().clone()}
        return Example(key, picture.caption)
