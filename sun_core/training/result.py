"""The adapter that a run gives, and what its file says about it."""

import json

from ..adapter import SunAdapter
from .config import TrainingConfig
from .evaluation import Evaluation
from .teacher import key_shapes_hash
from .trainer import Trainer


def trained_adapter(trainer: Trainer, evaluation: Evaluation | None) -> SunAdapter:
    """Make the averaged adapter with its metadata: family, steps, recipe, data, teacher, evaluation."""
    config = trainer.config
    adapter = trainer.averaged_adapter()
    figures = evaluation.figures(adapter) if evaluation else {}
    adapter.to("cpu")
    adapter.metadata = {
        "family": adapter.layout.family or f"{len(adapter.layout.layers)} layers of width {adapter.layout.context_dim}",
        "steps": str(config.recipe.segments),
        "recipe": json.dumps(recipe_of(config) | {"steps_done": trainer.done}),
        "data": json.dumps(trainer.data.describe()),
        "teacher_key_shapes": key_shapes_hash(trainer.data.prompts.encoder.base.diffusion_model),
        "evaluation": json.dumps(figures),
    }
    if trainer.done < config.steps:
        adapter.metadata["unfinished"] = f"{trainer.done} of {config.steps} training steps"
    return adapter


def recipe_of(config: TrainingConfig) -> dict[str, object]:
    """List the settings that shape the result, without the user's own prompts."""
    private = ("negative_prompts", "sample_prompts")
    shapeless = ("save_every", "sample_every", "on_bad_data", "compile", "channels_last")
    return {name: value for name, value in config.to_mapping().items() if name not in (*private, *shapeless)}
