"""Motion modules and windows of images, by AnimateDiff-Evolved and by ComfyUI."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import comfy.context_windows
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .pack_list import CORE
from .packs import call, module_of
from .rows import ACTS, LAYERS, SAME, Check, Row
from .small_model import (
    CPU,
    NEGATIVE,
    SPEED_UP,
    Way,
    difference,
    draw,
    findings,
    model,
    negatives,
    prompt,
    random_weights,
    reports,
)

PACK = "ComfyUI-AnimateDiff-Evolved"
CHANNELS = {320: 32, 640: 64, 1280: 64}
"""Of the small U-Net, in place of those that the pack writes into its code."""
IMAGES = 5
"""One for each sigma of a run in 4 steps: ComfyUI 0.3.75 takes no other number in windows of images."""
Node = Callable[[ModelPatcher], ModelPatcher]


@cache
def _motion_model() -> Any:
    """Make a motion module of the pack's own layers, with random weights."""
    layers = module_of(PACK, "animatediff.motion_module_ad")
    utils = module_of(PACK, "animatediff.utils_model")
    injection = module_of(PACK, "animatediff.model_injection")
    known = {
        f"{block}.3.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1.pos_encoder.pe"
        for block in ("down_blocks", "up_blocks")
    }
    info = layers.AnimateDiffInfo(
        utils.ModelTypeSD.SD1_5, layers.AnimateDiffFormat.ANIMATEDIFF, layers.AnimateDiffVersion.V3, "small"
    )
    module, layers.MotionModule = layers.MotionModule, _small(layers.MotionModule)
    try:
        made = layers.AnimateDiffModel({key: torch.zeros(1, 32, 32) for key in known}, info)
    finally:
        layers.MotionModule = module
    weights = made.state_dict()
    random = random_weights(made)
    made.load_state_dict({key: weights[key] if key.endswith("pos_encoder.pe") else random[key] for key in weights})
    return injection.create_MotionModelPatcher(made.eval().requires_grad_(False), CPU, CPU)


def _small(motion_module: Any) -> Callable[..., Any]:
    return lambda channels, **settings: motion_module(CHANNELS[channels], **settings)


def _windows(length: int, overlap: int) -> Any:
    return call("ADE_StandardStaticContextOptions", length, overlap, fuse_method="flat")[0]


def _evolved(motion: bool, windows: tuple[int, int] | None = None) -> Node:
    """Return Use Evolved Sampling with a motion module, in windows of (length, overlap) images."""

    def place(onto: ModelPatcher) -> ModelPatcher:
        models = call("ADE_ApplyAnimateDiffModel", _motion_model())[0] if motion else None
        context = _windows(*windows) if windows else None
        return call("ADE_UseEvolvedSampling", onto, "use existing", models, context)[0]

    return place


def _core_windows(onto: ModelPatcher) -> ModelPatcher:
    windowed = onto.clone()
    windowed.model_options["context_handler"] = comfy.context_windows.IndexListContextHandler(
        context_schedule=comfy.context_windows.get_matching_context_schedule("batched"),
        fuse_method=comfy.context_windows.get_matching_fuse_method("flat"),
        context_length=2,
        dim=0,
    )
    return windowed


def _draw(onto: ModelPatcher, images: int, flipped: bool = False) -> Tensor:
    negative = negatives(images)
    if flipped:
        negative = [[negative[0][0].flip(0), {}]]
    return draw(onto, prompt("pos0"), negative, latent=torch.zeros(images, 4, 8, 8))


def _moving(way: Way, node: Node) -> Iterator[Check]:
    both = _draw(way.on(node(model())), 4)
    yield Check("findings", len(findings()), most=0)
    yield Check("layers", reports[-1].acted, LAYERS, LAYERS)
    yield Check("orders", difference(_draw(node(way.on(model())), 4), both), most=SAME)
    yield Check("SUN", difference(_draw(way.off(node(model())), 4), both), least=ACTS)
    yield Check("neighbour", difference(_draw(way.on(model()), 4), both), least=ACTS)
    yield Check("negatives", difference(_draw(way.on(node(model())), 4, flipped=True), both), least=ACTS)


def _as_without_windows(way: Way, node: Node) -> Iterator[Check]:
    whole = _draw(way.on(model()), IMAGES)
    for name, windowed in (("SUN first", node(way.on(model()))), ("SUN last", way.on(node(model())))):
        drawn = _draw(windowed, IMAGES)
        most = max(difference(drawn[image], whole[image]) for image in range(IMAGES))
        yield Check(f"from no windows ({name})", most, most=1e-4)
    other = _draw(way.on(node(model())), IMAGES, flipped=True)
    yield Check("negatives", difference(other, drawn), least=ACTS)


def _rows(name: str, measure: Callable[[Way, Node], Iterator[Check]], node: Node, test: str) -> list[Row]:
    return [
        Row(name, "both", lambda: measure(SPEED_UP, node), test),
        Row(name, "both", lambda: measure(NEGATIVE, node), test, "negative"),
    ]


ROWS = {
    PACK: [
        *_rows("Motion module", _moving, _evolved(True), "test_motion.py"),
        *_rows("Motion module in windows of 3, overlap 2", _moving, _evolved(True, (3, 2)), "test_motion.py"),
        *_rows("Windows of 2, a negative per image", _as_without_windows, _evolved(False, (2, 0)), "test_windows.py"),
        *_rows("Windows of 1, a negative per image", _as_without_windows, _evolved(False, (1, 0)), "test_windows.py"),
    ],
    CORE: _rows("Context windows of 2, a negative per image", _as_without_windows, _core_windows, "test_windows.py"),
}
