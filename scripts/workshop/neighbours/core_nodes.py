"""ComfyUI's own nodes on the MODEL line, and its samplers."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.cli_args import args
from comfy.model_patcher import ModelPatcher

from sun_core.schedule import trailing_sigmas

from .pack_list import CORE
from .packs import call
from .rows import ACTS, LAYERS, SAME, Check, Node, Row, both_orders, in_both_nodes, in_each_order, no_effect, on_model
from .small_model import (
    SPEED_UP,
    Conditioning,
    difference,
    draw,
    findings,
    model,
    other_model,
    prompt,
    reports,
    small_clip,
    sped_up,
    start,
)


def _node(node_id: str, *inputs: Any) -> Node:
    return on_model(lambda onto: call(node_id, onto, *inputs)[0])


def _merge(onto: ModelPatcher) -> ModelPatcher:
    return call("ModelMergeSimple", onto, other_model(), 0.5)[0]


def _cfg_override(onto: ModelPatcher) -> ModelPatcher:
    return call("CFGOverride", model=onto, cfg=7.0, start_percent=0.0, end_percent=1.0)[0]


def _cfg_is_one() -> Iterator[Check]:
    alone = draw(sped_up(model()), prompt("pos0"), prompt("neg0"))
    for name, placed in (
        ("SUN first", _cfg_override(sped_up(model()))),
        ("SUN last", sped_up(_cfg_override(model()))),
    ):
        drawn = draw(placed, prompt("pos0"), prompt("neg0"), cfg=7.0)
        yield Check(f"from SUN alone ({name})", difference(drawn, alone), most=SAME)
        yield Check(f"rows ({name})", reports[-1].rows, 4, 4)


def _guided(node: Node, evaluations: int, rows: int) -> Iterator[Check]:
    """Nodes that ask for more predictions get them, in either order."""
    drawn, counted = [], set()
    for placed in in_each_order(SPEED_UP, node):
        drawn.append(draw(*placed, cfg=7.0))
        yield Check("findings", len(findings()), most=0)
        yield Check("layers", reports[-1].acted, LAYERS, LAYERS)
        counted.add((reports[-1].evaluations, reports[-1].rows))
    ((evaluations_made, rows_made),) = counted
    yield Check("evaluations", evaluations_made, evaluations, evaluations)
    yield Check("rows", rows_made, rows, rows)
    yield Check("orders", difference(*drawn), most=SAME)
    alone = draw(sped_up(model()), prompt("pos0"), prompt("neg0"))
    yield Check("from SUN alone", difference(alone, drawn[0]), least=ACTS)


def _dual_cfg() -> Iterator[Check]:
    onto = sped_up(model())
    (guider,) = call("DualCFGGuider", onto, prompt("pos0"), prompt("pos1"), prompt("neg0"), 5.0, 3.0, "regular")
    sigmas = trailing_sigmas(onto.get_model_object("model_sampling").sigmas, 4)
    noise = comfy.sample.prepare_noise(torch.zeros(1, 4, 16, 16), 0)
    start()
    drawn = guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, seed=0)
    yield Check("named", sum('"middle" has no effect' in finding for finding in findings()), 1, 1)
    alone = draw(sped_up(model()), prompt("pos0"), prompt("neg0"))
    yield Check("from SUN alone", difference(drawn, alone), most=SAME)


def _cached(node_id: str, *inputs: Any) -> Iterator[Check]:
    drawn, counted = [], set()
    for placed in in_each_order(SPEED_UP, _node(node_id, *inputs)):
        drawn.append(draw(*placed))
        skipped = 4 - reports[-1].evaluations
        counted.add(skipped)
        yield Check("named", sum("A cache on the MODEL" in finding for finding in findings()), int(skipped > 0), 1)
    (skipped,) = counted
    yield Check("steps skipped", skipped)
    yield Check("orders", difference(*drawn), most=SAME)
    yield Check("from SUN alone", difference(drawn[0], draw(sped_up(model()), prompt("pos0"), prompt("neg0"))))


def _previews() -> Iterator[Check]:
    """A preview of each step is made of the latents, and changes nothing."""
    plain = draw(sped_up(model()), prompt("pos0"), prompt("neg0"))
    shown = []

    def show(value: int, total: int, preview: Any, **_: Any) -> None:
        shown.append(preview)

    former, args.preview_method = args.preview_method, latent_preview.LatentPreviewMethod.Latent2RGB
    comfy.utils.set_progress_bar_global_hook(show)
    try:
        drawn = draw(sped_up(model()), prompt("pos0"), prompt("neg0"))
    finally:
        args.preview_method = former
        comfy.utils.set_progress_bar_global_hook(None)
    yield Check("previews", sum(preview is not None for preview in shown), 4, 4)
    yield Check("from none", difference(drawn, plain), most=0.0)


def _clip_skip() -> Iterator[Check]:
    """CLIP skip gives SUN another context; both prompts count as without it."""
    clip = small_clip()

    def encoded(text: str, layer: int) -> Conditioning:
        return call("CLIPTextEncode", call("CLIPSetLastLayer", clip, layer)[0], text)[0]

    def drawn(negative: str, layer: int, strength: float = 1.0) -> torch.Tensor:
        return draw(sped_up(model(), strength), encoded("a red house", layer), encoded(negative, layer))

    skipped = drawn("blurry", -2)
    yield Check("findings", len(findings()), most=0)
    yield Check("layers", reports[-1].acted, LAYERS, LAYERS)
    yield Check("SUN", difference(drawn("blurry", -2, 1e-9), skipped), least=ACTS)
    yield Check("CLIP skip", difference(drawn("blurry", -1), skipped), least=ACTS)
    yield Check("negatives", difference(drawn("a blue car at night", -2), skipped), least=ACTS)


ROWS = {
    CORE: [
        *in_both_nodes("FreeU_V2", _node("FreeU_V2", 1.3, 1.4, 0.9, 0.2), "test_core_nodes.py"),
        *in_both_nodes("HyperTile", _node("HyperTile", 32, 2, 0, False), "test_core_nodes.py"),
        *in_both_nodes("TomePatchModel", _node("TomePatchModel", 0.3), "test_core_nodes.py"),
        *in_both_nodes(
            "PatchModelAddDownscale",
            _node("PatchModelAddDownscale", 3, 2.0, 0.0, 0.35, True, "bicubic", "bicubic"),
            "test_core_nodes.py",
        ),
        *in_both_nodes("Epsilon Scaling", _node("Epsilon Scaling", 1.05)),
        *in_both_nodes("UNetCrossAttentionMultiply", _node("UNetCrossAttentionMultiply", 1.1, 1.0, 1.2, 1.0)),
        *in_both_nodes("ModelSamplingDiscrete, v_prediction", _node("ModelSamplingDiscrete", "v_prediction", False)),
        *in_both_nodes("ModelMergeSimple with SUN on model1", on_model(_merge), "test_core_nodes.py"),
        Row(
            "Self-Attention Guidance", "both",
            lambda: _guided(_node("SelfAttentionGuidance", 0.5, 2.0), 8, 12), "test_guidance.py",
        ),
        Row(
            "Perturbed-Attention Guidance", "both",
            lambda: _guided(_node("PerturbedAttentionGuidance", 3.0), 8, 8), "test_guidance.py",
        ),
        Row("CLIP skip", "on the prompts", _clip_skip, "test_core_nodes.py"),
        Row("Latent previews", "", _previews, "test_core_nodes.py"),
        *(
            Row(
                name, "both", partial(no_effect, SPEED_UP, node, named, cfg=7.0),
                "test_guidance.py", "no effect",
            )
            for name, named, node in (
                ("APG", "APG has no effect", _node("APG", 1.0, 5.0, 0.0)),
                ("RescaleCFG", "RescaleCFG has no effect", _node("RescaleCFG", 0.7)),
                ("Mahiro", "Mahiro has no effect", _node("Mahiro")),
                ("TCFG", "TCFG has no effect", _node("TCFG")),
                ("FreSca", "FreSca has no effect", _node("FreSca", 1.0, 1.25, 20)),
                ("CFGNorm", "CFGNorm has no effect", _node("CFGNorm", 1.0)),
                ("PerpNeg", "PerpNeg has no effect at CFG 1, wasting 4 of 8", _node("PerpNeg", prompt("neg1"), 1.0)),
            )
        ),
        Row("the second prompt of DualCFGGuider", "", _dual_cfg, "test_findings.py", "no effect"),
        *(
            Row(
                f"{name} at {where}", "both",
                partial(_cached, node_id, *inputs), "test_findings.py", "changed",
            )
            for name, node_id, where, inputs in (
                ("EasyCache", "EasyCache", "its defaults", (0.2, 0.15, 0.95, False)),
                ("EasyCache", "EasyCache", "threshold 3", (3.0, 0.0, 1.0, False)),
                ("LazyCache", "LazyCache", "its defaults", (0.2, 0.15, 0.95, False)),
            )
        ),
        Row("CFGOverride", "both", _cfg_is_one, "test_guidance.py"),
        Row("NAGuidance", "both", lambda: both_orders(SPEED_UP, _node("NAGuidance", 5.0, 0.5, 1.5), cfg=7.0)),
    ]
}  # fmt: skip
