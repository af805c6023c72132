"""The small U-Net of tests/reference as a MODEL, what it samples, and SUN on it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import comfy.model_base
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from comfy.taesd.taesd import TAESD
from safetensors.torch import load_file
from torch import Tensor

from sun_core.adapter import load_adapter
from sun_core.apply import apply_negative, apply_sun
from sun_core.nag import NagSettings
from sun_core.settings import NegativeSettings, SunSettings

from .. import REPOSITORY

REFERENCE = REPOSITORY / "tests" / "reference"
CPU = torch.device("cpu")
Conditioning = list[list[Any]]
reports: list[Any] = []
"""What SUN reported of the last run; `draw` empties it."""


class SD15Reference(comfy.supported_models.SD15):
    """SD1.5 in all but the number of heads; IC-Light knows the family by this name."""

    unet_extra_config = {"num_heads": 4, "num_head_channels": -1}  # noqa: RUF012


@cache
def unet_config() -> dict[str, Any]:
    """Return the U-Net's configuration, as UNetModel takes it."""
    return json.loads((REFERENCE / "reference.json").read_text())["config"]["comfy_unet_config"]


def random_weights(module: torch.nn.Module, scale: float = 1.0) -> dict[str, Tensor]:
    """Make weights for a module that keep activations ordinary numbers; the same in every call."""
    generator = torch.Generator().manual_seed(0)

    def values(key: str, tensor: Tensor) -> Tensor:
        if tensor.ndim < 2:
            return torch.full(tensor.shape, float(key.endswith("weight")))
        return scale * torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5

    return {key: values(key, tensor) for key, tensor in module.state_dict().items()}


def patcher(config: dict[str, Any], weights: dict[str, Tensor], operations: Any = None) -> ModelPatcher:
    """Make a MODEL of a U-Net's configuration and weights; `operations` has other layers than ComfyUI's own."""
    family = SD15Reference({**config, "dtype": torch.float32})
    family.custom_operations = operations
    made = comfy.model_base.BaseModel(family, device=CPU)
    made.diffusion_model.load_state_dict(weights)
    return ModelPatcher(made.eval().requires_grad_(False), CPU, CPU)


@cache
def _weights() -> dict[str, Tensor]:
    return {key: weight.float() for key, weight in load_file(REFERENCE / "unet_ldm_fp16.safetensors").items()}


@cache
def _model() -> ModelPatcher:
    return patcher(unet_config(), _weights())


def model() -> ModelPatcher:
    """Return a MODEL of its own around the reference U-Net."""
    return _model().clone()


@cache
def other_model() -> ModelPatcher:
    """Return another checkpoint of the same family."""
    generator = torch.Generator().manual_seed(0)
    return patcher(
        unet_config(), {k: w * (1 + 0.1 * torch.randn(w.shape, generator=generator)) for k, w in _weights().items()}
    )


@cache
def inpaint_model() -> ModelPatcher:
    """Return the U-Net with five input channels more, for the mask and the masked picture; random weights there."""
    weights = dict(_weights())
    first = weights["input_blocks.0.0.weight"]
    more = torch.randn(len(first), 5, *first.shape[2:], generator=torch.Generator().manual_seed(0))
    weights["input_blocks.0.0.weight"] = torch.cat([first, more * first.std()], dim=1)
    made = patcher(unet_config() | {"in_channels": 9}, weights)
    made.model.set_inpaint()
    return made


@cache
def vae() -> comfy.sd.VAE:
    """Return a TAESD with random weights."""
    scales = {"vae_scale": torch.tensor(0.18215), "vae_shift": torch.tensor(0.0)}
    return comfy.sd.VAE(sd=random_weights(TAESD()) | scales)


@cache
def _tensors() -> dict[str, Tensor]:
    return load_file(REFERENCE / "io_fp32.safetensors")


def small_clip() -> comfy.sd.CLIP:
    """Make Stable Diffusion 1.5's text encoder as wide as the small U-Net's context, with random weights."""
    target = SimpleNamespace(params={}, clip=comfy.sd1_clip.SD1ClipModel, tokenizer=comfy.sd1_clip.SD1Tokenizer)
    width = unet_config()["context_dim"]
    size = {"hidden_size": width, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 2 * width}
    clip = comfy.sd.CLIP(target, model_options={"clip_l_model_config": size})
    clip.cond_stage_model.load_state_dict(random_weights(clip.cond_stage_model))
    return clip


def prompt(name: str, **values: Any) -> Conditioning:
    """Return a reference prompt ("pos0", "neg0", ...) as CONDITIONING."""
    return [[_tensors()[f"in.{name}"], {"pooled_output": None, **values}]]


def negatives(count: int) -> Conditioning:
    """Return a negative for each image of a batch."""
    a, b = _tensors()["in.neg0"], _tensors()["in.neg1"]
    return [[torch.cat([a, b, (a + b) / 2, (3 * b - a) / 2, (3 * a - b) / 2])[:count], {}]]


@cache
def _adapter() -> Any:
    return load_adapter(REFERENCE / "sun_adapter_fp16.safetensors")


@dataclass(frozen=True)
class Way:
    """A node of ours: `on` puts it on a MODEL, `off` does so without effect."""

    on: Callable[[ModelPatcher], ModelPatcher]
    off: Callable[[ModelPatcher], ModelPatcher]


def sped_up(onto: ModelPatcher, strength: float = 1.0, automatic: bool = True) -> ModelPatcher:
    """Put the reference adapter on a MODEL, as SUN 4-Step Speed-Up does."""
    return apply_sun(onto, _adapter(), SunSettings(strength, strength, automatic=automatic), report=reports.append)


def with_negative(onto: ModelPatcher, scale: float = 3.0) -> ModelPatcher:
    """Put Negative Prompt at CFG 1 on a MODEL; scale 1 turns it off."""
    return apply_negative(onto, NegativeSettings(NagSettings(scale)), report=reports.append)


SPEED_UP = Way(sped_up, lambda onto: sped_up(onto, 1e-9))
NEGATIVE = Way(with_negative, lambda onto: with_negative(onto, 1.0))


def draw(model: ModelPatcher, positive: Conditioning, negative: Conditioning, **options: Any) -> Tensor:
    """Sample latents as KSampler does: 4 steps, Euler, CFG 1 unless told otherwise, from seed 0."""
    import nodes

    latent = options.pop("latent", torch.zeros(options.pop("batch", 1), 4, 16, 16))
    steps, cfg, sampler = options.pop("steps", 4), options.pop("cfg", 1.0), options.pop("sampler", "euler")
    samples = latent if isinstance(latent, dict) else {"samples": latent}
    start()
    made = nodes.common_ksampler(model, 0, steps, cfg, sampler, "simple", positive, negative, samples, **options)
    return made[0]["samples"]


def start() -> None:
    """Begin a run that is measured: forget former reports, and let nodes that draw from torch's generator repeat."""
    reports.clear()
    torch.manual_seed(0)


def findings() -> list[str]:
    """Return what the last run told the artist."""
    return [str(finding) for report in reports for finding in report.findings]


def difference(a: Tensor, b: Tensor) -> float:
    """Return |a - b| / |b|."""
    return float((a.float() - b.float()).norm() / b.float().norm())
