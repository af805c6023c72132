"""The adapter that comes out, and what its file says about it."""

import json

from ..adapter import SunAdapter
from .config import TrainingConfig
from .teacher import key_shapes_hash
from .trainer import Trainer


def described(trainer: Trainer, evaluation: dict[str, float]) -> SunAdapter:
    """The averaged adapter with its metadata: family, steps, recipe, data, teacher, evaluation."""
    config = trainer.config
    adapter = trainer.averaged_adapter()
    adapter.metadata = {
        "family": adapter.layout.family or f"{len(adapter.layout.layers)} layers of width {adapter.layout.context_dim}",
        "steps": str(config.recipe.segments),
        "recipe": json.dumps(recipe_of(config) | {"steps_done": trainer.done}),
        "data": json.dumps(trainer.data.describe()),
        "teacher_key_shapes": key_shapes_hash(trainer.data.prompts.encoder.base.diffusion_model),
        "evaluation": json.dumps(evaluation),
    }
    if trainer.done < config.steps:
        adapter.metadata["unfinished"] = f"{trainer.done} of {config.steps} training steps"
    return adapter


def recipe_of(config: TrainingConfig) -> dict[str, object]:
    """What shaped the result; prompts of the user's are left out."""
    values = config.to_mapping()
    for private in ("negative_prompts", "sample_prompts", "save_every", "sample_every", "on_bad_data"):
        del values[private]
    return values
