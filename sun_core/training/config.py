"""Every setting of a training run, with defaults per model family, as they stand in a run's config.yaml."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

from ..errors import SunError
from .distillation import Recipe
from .prompts import NegativeMix

PRECISIONS = ("auto", "no", "fp16", "bf16")
OPTIMIZERS = ("auto", "adamw", "adamw8bit")
ON_BAD_DATA = ("stop", "skip")

FAMILY_DEFAULTS: dict[str, dict[str, Any]] = {
    "Stable Diffusion 1.x": {},
    "Stable Diffusion 2.x": {"width": 768, "height": 768, "batch_size": 4, "accumulation": 4},
    "SDXL": {
        "width": 1024, "height": 1024, "batch_size": 2, "accumulation": 8, "extra_positive": False,
        "gradient_checkpointing": True, "guidance": (4.0, 8.0),
    },
}  # fmt: skip
"""What differs from the defaults below, by the family's name in adapter_file.py. Starting points, not optima."""


@dataclass(frozen=True)
class TrainingConfig:
    steps: int = 10_000
    """Optimiser steps."""
    batch_size: int = 8
    """Rows per forward, in each process."""
    accumulation: int = 2
    """Forwards per optimiser step, in each process."""
    learning_rate: float = 1e-4
    warmup: int = 200
    """Steps until the learning rate is reached; then it falls along a cosine, to a fiftieth."""
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    """Largest L2 norm of the whole gradient."""
    ema: float = 0.995
    """Of the weights that are the result; shorter in the first steps."""
    seed: int = 0
    width: int = 512
    """Of training pictures, in pixels; others are scaled and cropped to it."""
    height: int = 512
    guidance: tuple[float, float] = (5.0, 9.0)
    """The teacher's CFG scale is drawn from this range; twice the same number fixes it."""
    extra_positive: bool = True
    """Whether the adapter has the extra positive branch; without it, it is half as large."""
    recipe: Recipe = field(default_factory=Recipe)
    negatives: NegativeMix = field(default_factory=NegativeMix)
    negative_prompts: tuple[str, ...] = ()
    """The user's own, for the share `listed` of the mix."""
    optimizer: str = "auto"
    """auto: 8-bit AdamW on a CUDA device where bitsandbytes is installed, else AdamW."""
    precision: str = "auto"
    """Mixed precision of accelerate; auto: bf16 on GPUs that have it, fp16 on others, none on a CPU."""
    gradient_checkpointing: bool = False
    """Computes activations twice in place of keeping them."""
    on_bad_data: str = "stop"
    """stop at the first file that cannot be used, or skip it; both name it."""
    save_every: int = 250
    """Steps between checkpoints."""
    sample_every: int = 500
    """Steps between grids of sample prompts, 0 for none but the last."""
    sample_prompts: tuple[str, ...] = ()
    """Drawn by the teacher in 25 steps and by the student in its few; empty: the first four captions."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "save_every", "width", "height"):
            _require(getattr(self, name) >= 1, name, "1 or more", getattr(self, name))
        for name in ("width", "height"):
            _require(getattr(self, name) % 8 == 0, name, "a multiple of 8", getattr(self, name))
        recipe = self.recipe
        _require(self.learning_rate > 0, "learning_rate", "above 0", self.learning_rate)
        _require(self.gradient_clip > 0, "gradient_clip", "above 0", self.gradient_clip)
        _require(recipe.teacher_stride >= 1, "recipe.teacher_stride", "1 or more", recipe.teacher_stride)
        _require(0 <= recipe.rollout_share <= 1, "recipe.rollout_share", "from 0 to 1", recipe.rollout_share)
        for name, decay in (("ema", self.ema), ("recipe.target_ema", recipe.target_ema)):
            _require(0 <= decay < 1, name, "at least 0 and below 1", decay)
        _require(self.guidance[0] <= self.guidance[1], "guidance", "a range from low to high", list(self.guidance))
        for name, known in (("precision", PRECISIONS), ("optimizer", OPTIMIZERS), ("on_bad_data", ON_BAD_DATA)):
            _require(getattr(self, name) in known, name, " or ".join(known), getattr(self, name))

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, as YAML and JSON hold them; `read_config` reads them back."""
        return _plain(asdict(self))

    def with_values(self, values: Mapping[str, Any]) -> "TrainingConfig":
        """This with other values; SunError for a name that is no setting, or a value of the wrong kind."""
        return _with_values(self, values, "")


def defaults_for(family: str) -> TrainingConfig:
    """Where to start for a model family ('' for one that has no name)."""
    return TrainingConfig(**FAMILY_DEFAULTS.get(family, {}))


def _with_values(settings: Any, values: Mapping[str, Any], within: str) -> Any:
    known = {f.name: getattr(settings, f.name) for f in fields(settings)}
    changed = {}
    for name, value in values.items():
        if name not in known:
            raise SunError(f"{within}{name} is no training setting; the settings are {', '.join(known)}.")
        changed[name] = _like(known[name], value, f"{within}{name}")
    return replace(settings, **changed)


def _like(example: Any, value: Any, name: str) -> Any:
    """`value` in the kind of `example`, the setting's present value."""
    if is_dataclass(example):
        _require(isinstance(value, Mapping), name, "a group of settings", value)
        return _with_values(example, value, f"{name}.")
    if isinstance(example, bool):
        _require(isinstance(value, bool), name, "true or false", value)
        return value
    if isinstance(example, int):
        _require(isinstance(value, int) and not isinstance(value, bool), name, "a whole number", value)
        return value
    if isinstance(example, float):
        return _number(value, name)
    if isinstance(example, str):
        value = "no" if value is False else value  # as YAML reads it
        _require(isinstance(value, str), name, "a word", value)
        return value
    if name == "guidance":
        pair = value if isinstance(value, (list, tuple)) else (value, value)
        _require(len(pair) == 2, name, "a number or two", value)
        return tuple(_number(v, name) for v in pair)
    _require(
        isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value), name, "a list of texts", value
    )
    return tuple(value)


def _number(value: Any, name: str) -> float:
    """YAML reads 1e-4, which has no point, as text."""
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    _require(number == number, name, "a number", value)
    return number


def _require(holds: bool, name: str, expected: str, found: object) -> None:
    if not holds:
        raise SunError(f"The training setting {name} is {found!r}, and must be {expected}.")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value
