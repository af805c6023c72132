"""Packs that encode prompts: with words that count negatively, for some of the steps, or for each step anew."""

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher

from .packs import call, module_of
from .rows import ACTS, LAYERS, SAME, Check, Row
from .small_model import (
    CPU,
    NEGATIVE,
    SPEED_UP,
    Conditioning,
    Way,
    difference,
    draw,
    findings,
    model,
    prompt,
    random_weights,
    reports,
    small_clip,
)

SMZ, ELLA = "ComfyUI_smZNodes", "ComfyUI-ELLA"
WORDS = 64
"""Width of the words that the small ELLA reads."""


def _encoded(clip: Any, text: str) -> Conditioning:
    return call("CLIPTextEncode", clip, text)[0]


def _negpip(way: Way) -> Iterator[Check]:
    """Some words of the positive count negatively."""
    clip = small_clip()

    def drawn(
        positive: str, negative: str = "blurry", on: Any = way.on, sun_first: bool = False, with_negpip: bool = True
    ) -> torch.Tensor:
        placed, encoder = on(model()) if sun_first else model(), clip
        if with_negpip:
            placed, encoder = call("CLIPNegPip", placed, clip)
        placed = placed if sun_first else on(placed)
        return draw(placed, _encoded(encoder, positive), _encoded(encoder, negative))

    text = "a red house, (trees:-1.5)"
    yield Check("orders", difference(drawn(text, sun_first=True), drawn(text)), most=SAME)
    both = drawn(text)
    yield Check("findings", len(findings()), most=0)
    yield Check("layers", reports[-1].acted, LAYERS, LAYERS)
    yield Check("SUN", difference(drawn(text, on=way.off), both), least=ACTS)
    yield Check("neighbour", difference(drawn("a red house, trees", with_negpip=False), both), least=ACTS)
    yield Check("negatives", difference(drawn(text, "a blue car at night"), both), least=ACTS)
    plain = drawn("a (red:1.5) house", with_negpip=False)
    yield Check("from none on positive words", difference(drawn("a (red:1.5) house"), plain), most=SAME)


def _smz_encoded(text: str) -> Conditioning:
    """Encode as stable-diffusion-webui does; the encoder's weights are random, so their mean is not kept."""
    sizes = {"ascore": 6.0, "crop_w": 0, "crop_h": 0} | dict.fromkeys(
        ("width", "height", "target_width", "target_height"), 128
    )
    switches = {"multi_conditioning": True, "mean_normalization": False, "use_old_emphasis_implementation": False}
    return call(
        "smZ CLIPTextEncode", clip=_smz_clip(), text=text, parser="A1111", **switches, **sizes, with_SDXL=False,
        text_g="", text_l="", smZ_steps=4,
    )[0]  # fmt: skip


@cache
def _smz_clip() -> Any:
    return small_clip()


def _edited(way: Way) -> Iterator[Check]:
    """Both prompts change after half of the steps."""

    def drawn(positive: str, negative: str, on: Any = way.on) -> torch.Tensor:
        return draw(on(model()), _smz_encoded(positive), _smz_encoded(negative))

    prompts = "a [red house:blue car:0.5]", "[blurry:ugly trees:0.5]"
    edited = drawn(*prompts)
    yield Check("findings", len(findings()), most=0)
    yield Check("layers", reports[-1].acted, LAYERS, LAYERS)
    yield Check("rows", reports[-1].rows, 4, 4)
    yield Check("SUN", difference(drawn(*prompts, way.off), edited), least=ACTS)
    yield Check("negatives", difference(drawn(prompts[0], "[ugly trees:blurry:0.5]"), edited), least=ACTS)
    ranged = draw(way.on(model()), _ranged("a red house", "a blue car"), _ranged("blurry", "ugly trees"))
    yield Check("from ComfyUI's ranges", difference(edited, ranged), most=SAME)


def _ranged(first: str, second: str) -> Conditioning:
    """Return two prompts, each of which counts in one half of the sampling, by ComfyUI's own values."""
    of_first, of_second = _smz_encoded(first)[0][0], _smz_encoded(second)[0][0]
    early, late = {"start_percent": 0.0, "end_percent": 0.5}, {"start_percent": 0.5, "end_percent": 1.0}
    return [[of_first, early], [of_second, late]]


def _settings(onto: ModelPatcher) -> ModelPatcher:
    import nodes

    inputs = nodes.NODE_CLASS_MAPPINGS["smZ Settings"].INPUT_TYPES()["optional"]
    defaults = {name: options[0].get("default", "") for name, (_, *options) in inputs.items()}
    return call("smZ Settings", **{"*": onto, **defaults})[0]


def _settings_stay(way: Way) -> Iterator[Check]:
    """The node puts a function of its own before each sampler, with what it sets for ancestral ones and the like."""
    alone = draw(way.on(model()), prompt("pos0"), prompt("neg0"))
    for name, placed in (("SUN first", _settings(way.on(model()))), ("SUN last", way.on(_settings(model())))):
        drawn = draw(placed, prompt("pos0"), prompt("neg0"))
        yield Check(f"from SUN alone ({name})", difference(drawn, alone), most=SAME)


@cache
def _ella() -> Any:
    """Make an ELLA of the pack's own layers for the small U-Net, with random weights and no file."""
    layers = module_of(ELLA, "model")
    width = prompt("pos0")[0][0].shape[-1]
    sizes = {"time_channel": 32, "time_embed_dim": width, "width": width, "layers": 2, "heads": 4, "input_dim": WORDS}
    made = layers.ELLAModel(**sizes)
    made.load_state_dict(random_weights(made))
    ella = layers.ELLA.__new__(layers.ELLA)
    devices = dict.fromkeys(("load_device", "offload_device", "output_device"), CPU)
    vars(ella).update(devices, dtype=torch.float32, model=made.eval().requires_grad_(False))
    ella.patcher = ModelPatcher(made, CPU, CPU)
    return ella


def _words(seed: int) -> dict[str, torch.Tensor]:
    return {"ella_t5_embeds": torch.randn(1, 20, WORDS, generator=torch.Generator().manual_seed(seed))}


def _ella_applied(onto: ModelPatcher, negative: int) -> tuple[ModelPatcher, Conditioning, Conditioning]:
    sigmas = comfy.samplers.calculate_sigmas(onto.get_model_object("model_sampling"), "simple", 4)
    return call("EllaApply", onto, {"model": _ella()}, _words(0), _words(negative), sigmas=sigmas)


def _each_step_anew(way: Way) -> Iterator[Check]:
    def drawn(negative: int = 1, on: Any = way.on) -> torch.Tensor:
        placed, *prompts = _ella_applied(model(), negative)
        return draw(on(placed), *prompts)

    each = drawn()
    yield Check("findings", len(findings()), most=0)
    yield Check("layers", reports[-1].acted, LAYERS, LAYERS)
    yield Check("rows", reports[-1].rows, 4, 4)
    first = draw(*_ella_applied(way.on(model()), 1))
    yield Check("orders", difference(first, each), most=SAME)
    yield Check("SUN", difference(drawn(on=way.off), each), least=ACTS)
    yield Check("negatives", difference(drawn(2), each), least=ACTS)
    _, positive, negative = _ella_applied(model(), 1)
    of_first_step = draw(way.on(model()), [[positive[0][0], {}]], [[negative[0][0], {}]])
    yield Check("from the first step's words", difference(of_first_step, each), least=ACTS)


def _rows(name: str, order: str, measure: Any, test: str = "") -> list[Row]:
    return [
        Row(name, order, partial(measure, SPEED_UP), test),
        Row(name, order, partial(measure, NEGATIVE), test, "negative"),
    ]


ROWS = {
    "ComfyUI-ppm": _rows("CLIP NegPip", "both", _negpip, "test_prompt_packs.py"),
    ELLA: _rows("Apply ELLA with sigmas", "both", _each_step_anew, "test_negative.py"),
    SMZ: [
        *_rows("CLIP Text Encode++, [this:that:0.5]", "on the prompts", _edited, "test_prompt_packs.py"),
        *_rows("Settings (smZ)", "both", _settings_stay),
    ],
}
