"""A training session: from a MODEL with CLIP and VAE to the trainer of an adapter for it.

The node SUNTrain and tools/train.py both go this way:

    session = Session(model, clip, vae, config, store, accelerator)
    examples = session.draw(captions)            # or session.encode(folder, ...), session.caption(latents, captions)
    with session.loaded():
        trainer, evaluation = session.trainer(examples), session.evaluation(examples)
        for step in trainer.steps():
            ...
        adapter = trained_adapter(trainer, evaluation)
"""

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from accelerate import Accelerator
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..adapter import SunAdapter, check_fit, unet_layout
from ..errors import SunError
from ..layers import cross_attention_layers
from .bad_data import BadData
from .config import TrainingConfig, defaults_for
from .distillation import Distillation
from .drawing import draw_latents
from .eps_unet import EpsUNet, alphas_of
from .evaluation import Evaluation
from .example import Example
from .frozen_weights import channels_last, usable_for_autograd, with_weights_that_stay
from .fused_group_norm import fused_group_norms
from .picture_encoder import PictureEncoder
from .pictures import read_pictures
from .prompts import Prompts, TextEncoder
from .sampler import Sampler
from .teacher import check_teacher
from .tensor_folder import Tensors
from .trainer import Trainer
from .training_data import TrainingData

SAMPLE_PROMPTS = 4


def defaults_for_model(model: ModelPatcher) -> TrainingConfig:
    """Look up the default settings for a MODEL's family; raises SunError if no adapter can be trained on it."""
    check_teacher(model)
    return defaults_for(unet_layout(cross_attention_layers(model.model.diffusion_model)).family)


class Session:
    """What data is made with, and what trains: a MODEL with its CLIP and VAE, and a new adapter on it."""

    def __init__(
        self,
        model: ModelPatcher,
        clip: Any,
        vae: Any,
        config: TrainingConfig,
        store: MutableMapping[str, Tensors],
        accelerator: Accelerator,
        start: SunAdapter | None = None,
    ):
        """Put a new adapter, or a copy of `start`, on the MODEL's U-Net; latents and encoded texts go to `store`.

        `vae` may be None: then there are no pictures, only latents.
        Raises SunError if no adapter can be trained on this MODEL, or if `start` does not fit it.
        """
        check_teacher(model)
        self.model = with_weights_that_stay(model)
        self.vae, self.config, self.store, self.accelerator = vae, config, store, accelerator
        base = self.model.model
        self._load_unet()  # before its weights are copied: another clone of this MODEL may have its LoRAs in them
        unet = base.diffusion_model
        if start is None:
            adapter = SunAdapter.for_unet(unet, config.extra_positive)
        else:
            check_fit(start, cross_attention_layers(unet))
            adapter = start.copy(torch.float32)
        self.distillation = Distillation(EpsUNet(base), adapter, alphas_of(self.model), config.recipe)
        self.sampler = Sampler(self.distillation)
        self.prompts = Prompts(TextEncoder(clip, base, (config.height // 8, config.width // 8)), store)

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """Keep the U-Net on its device, whole, with weights that can take part in autograd."""
        self.load()
        unet, config = self.distillation.unet, self.config
        with ExitStack() as ways:
            ways.enter_context(usable_for_autograd(unet))
            if config.channels_last and self.model.load_device.type == "cuda":
                ways.enter_context(channels_last(unet))
                ways.enter_context(fused_group_norms(unet))
            yield

    def load(self) -> None:
        """Bring the U-Net (back) to its device, whole; another model may have taken its place there.

        All other models leave the device, as they do for core's Train LoRA: activations need the memory.
        """
        self._load_unet()
        device = self.model.load_device
        self.distillation.adapter.to(device)
        self.distillation.target.to(device)
        self.distillation.alphas = self.distillation.alphas.to(device)

    def _load_unet(self) -> None:
        comfy.model_management.load_models_gpu([self.model], memory_required=1e20, force_full_load=True)

    def encode(self, data: Path, bad: BadData) -> list[Example]:
        """Encode the captioned pictures at `data` (see pictures.py); each process encodes a share."""
        encoder = PictureEncoder(self.vae, self.model.model, self.config.width, self.config.height, self.store)
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        if processes > 1:
            share = islice(read_pictures(data, BadData(bad.stops)), process, None, processes)
            encoder.encode_all(share, BadData(bad.stops))
            self.accelerator.wait_for_everyone()
        return encoder.encode_all(read_pictures(data, bad), bad)

    def draw(self, captions: Sequence[str], pictures: int = 0) -> list[Example]:
        """Draw a picture for each caption, and go round until there are so many; each process draws a share."""
        several = list(islice(cycle(captions), max(len(captions), pictures)))
        config, accelerator = self.config, self.accelerator
        ours = accelerator.process_index, accelerator.num_processes
        self.prompts.encode(["", *captions])
        with self.loaded():
            for share in dict.fromkeys((ours, (0, 1))):  # the second time finds what the other processes have drawn
                examples = draw_latents(
                    several,
                    self.sampler,
                    self.prompts,
                    self._guidance,
                    config.seed,
                    self.store,
                    config.batch_size,
                    share,
                )
                accelerator.wait_for_everyone()
        return examples

    def caption(self, latents: Sequence[Tensor], captions: Sequence[str]) -> list[Example]:
        """Pair latents of the VAE, each (channels, height, width), with their captions, or with the only one.

        Raises SunError if their numbers or sizes do not go together.
        """
        if len(captions) == 1:
            captions = [*captions] * len(latents)
        if len(captions) != len(latents):
            raise SunError(
                "The pictures ({pictures}) and the prompts ({prompts}) are not equally many; write one line for each "
                "picture, in their order, or one line for all.",
                pictures=len(latents),
                prompts=len(captions),
            )
        for latent in latents:
            self._check_size(latent)
        base = self.model.model
        for i, latent in enumerate(latents):
            self.store[f"picture {i}"] = {"latent": base.process_latent_in(latent.unsqueeze(0)).squeeze(0).cpu()}
        return [Example(f"picture {i}", caption) for i, caption in enumerate(captions)]

    def _check_size(self, latent: Tensor) -> None:
        channels = self.model.model.latent_format.latent_channels
        if latent.ndim != 3 or len(latent) != channels:
            raise SunError(
                "A latent has the shape {shape}, and this MODEL's have {channels} channels, height and width; encode "
                "the images with the VAE of this checkpoint, or connect images.",
                shape="x".join(map(str, latent.shape)),
                channels=channels,
            )
        height, width = (8 * size for size in latent.shape[1:])
        if (height, width) != (self.config.height, self.config.width):
            raise SunError(
                "A latent is {found} pixels, and width and height say {asked}; set them to the latents' size, or "
                "connect images.",
                found=f"{width}x{height}",
                asked=f"{self.config.width}x{self.config.height}",
            )

    def trainer(self, examples: Sequence[Example]) -> Trainer:
        """Make the trainer on these examples, whose texts are encoded now; each process encodes a share."""
        data = TrainingData(examples, self.store, self.prompts, self.config)
        texts = list(data.pairs.texts())
        self.prompts.encode(texts[self.accelerator.process_index :: self.accelerator.num_processes])
        self.accelerator.wait_for_everyone()
        self.prompts.encode(texts)
        self.load()
        return Trainer(self.distillation, data, self.config, self.accelerator)

    def evaluation(self, examples: Sequence[Example]) -> Evaluation | None:
        """Make the comparison of teacher and student on a few prompts; None without a VAE, or in a helper process."""
        if self.vae is None or not self.accelerator.is_main_process:
            return None
        texts = self.config.sample_prompts or tuple(dict.fromkeys(e.caption for e in examples))[:SAMPLE_PROMPTS]
        negative = self.config.negative_prompts[0] if self.config.negative_prompts else ""
        pairs = [(text, negative) for text in texts]
        evaluation = Evaluation(self.sampler, self.prompts, pairs, self._guidance, self.decode)
        self.load()
        return evaluation

    @property
    def _guidance(self) -> float:
        """Take the middle of the guidance's range."""
        return sum(self.config.guidance) / 2

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents to pictures, as VAE Decode does it; the U-Net is back on its device afterwards."""
        pictures = self.vae.decode(self.model.model.process_latent_out(latents))
        self.load()
        return pictures
