"""From what ComfyUI loaded (MODEL, CLIP, VAE) and captioned latents to a trainer that is ready to run."""

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from accelerate import Accelerator
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..adapter import SunAdapter, check_fit
from ..layers import cross_attention_layers
from .config import TrainingConfig
from .data import TrainingData
from .distillation import Distillation
from .evaluation import Evaluation
from .latents import Example
from .sampling import Sampler
from .teacher import EpsUNet, alphas_of, check_teacher, usable_for_autograd, with_weights_that_stay
from .tensor_folder import Tensors
from .text import Prompts, TextEncoder
from .trainer import Trainer

SAMPLE_PROMPTS = 4


@dataclass(frozen=True)
class Teacher:
    """A MODEL with its CLIP, and a new adapter on it: what data is made with, and what trains."""

    model: ModelPatcher
    distillation: Distillation
    prompts: Prompts
    sampler: Sampler

    @classmethod
    def of(
        cls,
        model: ModelPatcher,
        clip: Any,
        config: TrainingConfig,
        store: MutableMapping[str, Tensors],
        start: SunAdapter | None = None,
    ) -> "Teacher":
        """`start` is an adapter to train on, whose weights are copied; encoded prompts are kept in `store`.

        Raises SunError where no adapter can be trained on this MODEL.
        """
        check_teacher(model)
        model = with_weights_that_stay(model)
        unet = model.model.diffusion_model
        adapter = SunAdapter.for_unet(unet, config.extra_positive)
        if start is not None:
            check_fit(start, cross_attention_layers(unet))
            adapter = SunAdapter(start.layout)
            adapter.load_state_dict({key: weight.float() for key, weight in start.state_dict().items()})
        distillation = Distillation(EpsUNet(model.model), adapter, alphas_of(model), config.recipe)
        encoder = TextEncoder(clip, model.model, (config.height // 8, config.width // 8))
        return cls(model, distillation, Prompts(encoder, store), Sampler(distillation))

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """Within, the U-Net is on its device, whole, and its weights can take part in autograd."""
        self.load()
        with usable_for_autograd(self.distillation.unet):
            yield

    def load(self) -> None:
        """Brings the U-Net (back) to its device, whole; another model may have taken its place there.

        All others leave the device, as for core's Train LoRA: activations need the memory.
        """
        comfy.model_management.load_models_gpu([self.model], memory_required=1e20, force_full_load=True)
        device = self.model.load_device
        self.distillation.adapter.to(device)
        self.distillation.target.to(device)
        self.distillation.alphas = self.distillation.alphas.to(device)

    def decoder(self, vae: Any) -> Callable[[Tensor], Tensor]:
        """Latents to pictures, as VAE Decode does it; the U-Net is back on its device afterwards."""

        @torch.no_grad()
        def decode(latents: Tensor) -> Tensor:
            pictures = vae.decode(self.model.model.process_latent_out(latents))
            self.load()
            return pictures

        return decode


def new_trainer(
    teacher: Teacher,
    examples: Sequence[Example],
    store: MutableMapping[str, Tensors],
    config: TrainingConfig,
    accelerator: Accelerator,
) -> Trainer:
    """The trainer on these examples, whose texts are encoded now, by each process a share."""
    data = TrainingData(examples, store, teacher.prompts, config)
    texts = list(data.pairs.texts())
    teacher.prompts.encode(texts[accelerator.process_index :: accelerator.num_processes])
    accelerator.wait_for_everyone()
    teacher.prompts.encode(texts)
    teacher.load()
    return Trainer(teacher.distillation, data, config, accelerator)


def new_evaluation(teacher: Teacher, examples: Sequence[Example], vae: Any, config: TrainingConfig) -> Evaluation:
    """The fixed prompts that grid and figures are made of, at the middle of the guidance's range."""
    texts = config.sample_prompts or tuple(dict.fromkeys(example.caption for example in examples))[:SAMPLE_PROMPTS]
    negative = config.negative_prompts[0] if config.negative_prompts else ""
    pairs = [(text, negative) for text in texts]
    evaluation = Evaluation(teacher.sampler, teacher.prompts, pairs, sum(config.guidance) / 2, teacher.decoder(vae))
    teacher.load()
    return evaluation
