"""All settings of a training run, with defaults per model family, as in a run's config.yaml."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

from ..errors import SunError, Text
from .prompt_pairs import NegativeMix
from .recipe import Recipe

PRECISIONS = ("auto", "no", "fp16", "bf16")
OPTIMIZERS = ("auto", "adamw", "adamw8bit")
ON_BAD_DATA = ("stop", "skip")
ONE_OR_MORE, NONE_OR_MORE, ABOVE_0 = Text("1 or more"), Text("0 or more"), Text("above 0")

FAMILY_DEFAULTS: dict[str, dict[str, Any]] = {
    "Stable Diffusion 1.x": {},
    "Stable Diffusion 2.x": {"width": 768, "height": 768, "batch_size": 4, "accumulation": 4},
    "SDXL": {
        "width": 1024, "height": 1024, "batch_size": 4, "accumulation": 4, "extra_positive": False,
        "gradient_checkpointing": True, "guidance": (4.0, 8.0),
    },
}  # fmt: skip
"""What differs from the defaults below, by the family's name in adapter_file.py: starting points, not optima."""


@dataclass(frozen=True)
class TrainingConfig:
    """The settings of a run."""

    steps: int = 10_000
    """Number of optimizer steps."""
    batch_size: int = 8
    """Pictures per batch, in each process."""
    accumulation: int = 2
    """Batches per optimizer step, in each process."""
    learning_rate: float = 1e-4
    warmup: int = 200
    """Steps until the learning rate is reached; then it falls along a cosine to a fiftieth."""
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    """Largest L2 norm of the gradient; a longer one is scaled down to it."""
    ema: float = 0.995
    """Decay of the average of the weights, which is the result; smaller in the first steps."""
    seed: int = 0
    width: int = 512
    """Width of the training pictures in pixels; other pictures are scaled and cropped."""
    height: int = 512
    """Height of the training pictures in pixels."""
    guidance: tuple[float, float] = (5.0, 9.0)
    """Range that the teacher's CFG scale is drawn from; the same number twice fixes it."""
    extra_positive: bool = True
    """Whether the adapter has the extra positive branch; without it the adapter is half as large."""
    recipe: Recipe = field(default_factory=Recipe)
    negatives: NegativeMix = field(default_factory=NegativeMix)
    negative_prompts: tuple[str, ...] = ()
    """The user's own negative prompts, for the share `listed` of the mix."""
    optimizer: str = "auto"
    """auto: 8-bit AdamW on a CUDA device if bitsandbytes is installed, else AdamW."""
    precision: str = "auto"
    """Precision that the U-Net computes in; auto: bf16 or fp16 on a CUDA device, else no (fp32)."""
    gradient_checkpointing: bool = False
    """Computes activations again in the backward pass instead of keeping them."""
    compile: bool = False
    """Compiles the U-Net's transformer blocks with torch.compile; if that fails, they run as without."""
    channels_last: bool = True
    """Keeps the U-Net's convolutions channels-last on a CUDA device, and its GroupNorms too if Triton is there."""
    on_bad_data: str = "stop"
    """stop at the first file that cannot be used, or skip it; either way it is named."""
    save_every: int = 250
    """Steps between checkpoints."""
    sample_every: int = 500
    """Steps between grids of sample prompts; 0 for the last one only."""
    sample_prompts: tuple[str, ...] = ()
    """Prompts that the teacher draws in 25 steps and the student in its few; empty: the first four captions."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "save_every", "width", "height"):
            _require(getattr(self, name) >= 1, name, ONE_OR_MORE, getattr(self, name))
        for name in ("width", "height"):
            _require(getattr(self, name) % 8 == 0, name, Text("a multiple of 8"), getattr(self, name))
        recipe = self.recipe
        not_negative = {"warmup": self.warmup, "weight_decay": self.weight_decay, "sample_every": self.sample_every}
        not_negative |= {"guidance": self.guidance[0], "recipe.cfg_weight": recipe.cfg_weight}
        for name, value in not_negative.items():
            _require(value >= 0, name, NONE_OR_MORE, value)
        _require(self.learning_rate > 0, "learning_rate", ABOVE_0, self.learning_rate)
        _require(self.gradient_clip > 0, "gradient_clip", ABOVE_0, self.gradient_clip)
        _require(recipe.teacher_stride >= 1, "recipe.teacher_stride", ONE_OR_MORE, recipe.teacher_stride)
        _require(0 <= recipe.rollout_share <= 1, "recipe.rollout_share", Text("from 0 to 1"), recipe.rollout_share)
        for name, decay in (("ema", self.ema), ("recipe.target_ema", recipe.target_ema)):
            _require(0 <= decay < 1, name, Text("at least 0 and below 1"), decay)
        _require(
            self.guidance[0] <= self.guidance[1], "guidance", Text("a range from low to high"), list(self.guidance)
        )
        for name, known in (("precision", PRECISIONS), ("optimizer", OPTIMIZERS), ("on_bad_data", ON_BAD_DATA)):
            _require(getattr(self, name) in known, name, _one_of(known), getattr(self, name))

    def to_mapping(self) -> dict[str, Any]:
        """Convert to plain values for YAML and JSON; `with_values` reads them back."""
        return _plain(asdict(self))

    def with_values(self, values: Mapping[str, Any]) -> "TrainingConfig":
        """Change some values; raises SunError for an unknown setting, or a value of the wrong kind."""
        return _with_values(self, values, "")


def defaults_for(family: str) -> TrainingConfig:
    """Look up the default settings for a model family ('' for an unknown one)."""
    return TrainingConfig(**FAMILY_DEFAULTS.get(family, {}))


def _with_values(settings: Any, values: Mapping[str, Any], within: str) -> Any:
    known = {f.name: getattr(settings, f.name) for f in fields(settings)}
    changed = {}
    for name, value in values.items():
        if name not in known:
            raise SunError(
                "{name} is not a training setting; the settings are {known}.",
                name=f"{within}{name}",
                known=", ".join(known),
            )
        changed[name] = _like(known[name], value, f"{within}{name}")
    return replace(settings, **changed)


def _like(example: Any, value: Any, name: str) -> Any:
    """Convert `value` to the kind of `example`, the setting's present value."""
    if is_dataclass(example):
        _require(isinstance(value, Mapping), name, Text("a group of settings"), value)
        return _with_values(example, value, f"{name}.")
    if isinstance(example, bool):
        _require(isinstance(value, bool), name, Text("true or false"), value)
        return value
    if isinstance(example, int):
        _require(isinstance(value, int) and not isinstance(value, bool), name, Text("a whole number"), value)
        return value
    if isinstance(example, float):
        return _number(value, name)
    if isinstance(example, str):
        value = "no" if value is False else value  # as YAML reads it
        _require(isinstance(value, str), name, Text("a word"), value)
        return value
    if name == "guidance":
        pair = value if isinstance(value, (list, tuple)) else (value, value)
        _require(len(pair) == 2, name, Text("a number or two"), value)
        return tuple(_number(v, name) for v in pair)
    _require(
        isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value),
        name,
        Text("a list of texts"),
        value,
    )
    return tuple(value)


def _number(value: Any, name: str) -> float:
    """Read a number; YAML takes 1e-4, which has no point, for text."""
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    _require(not math.isnan(number), name, Text("a number"), value)
    _require(not math.isinf(number), name, Text("a finite number"), value)
    return number


def _require(holds: bool, name: str, expected: Text, found: object) -> None:
    if not holds:
        raise SunError(
            "The training setting {name} is {found!r}, and must be {expected}.",
            name=name,
            found=found,
            expected=expected,
        )


def _one_of(words: Sequence[str]) -> Text:
    return Text("one of {words}", words=", ".join(words))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value
