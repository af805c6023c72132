"""Packs whose functions stand around CFG."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from .packs import call
from .rows import SAME, Check, Node, Row, in_both_nodes, in_each_order, no_effect, on_model
from .small_model import NEGATIVE, SPEED_UP, Way, difference, draw, findings, model, prompt


def _node(node_id: str, *inputs: Any) -> Node:
    return on_model(lambda onto: call(node_id, onto, *inputs)[0])


def _in_vain(name: str, named: str, node: Node) -> list[Row]:
    return [
        Row(
            f"{name} (SUNNegative)" if way is NEGATIVE else name, "both",
            partial(no_effect, way, node, f"{named} has no effect", cfg=7.0), "test_guidance.py", "no effect",
        )
        for way in (SPEED_UP, NEGATIVE)
    ]  # fmt: skip


def _first_step_discarded(way: Way, node: Node) -> Iterator[Check]:
    drawn = []
    for placed in in_each_order(way, node):
        drawn.append(draw(*placed))
        told = sum("discards what the model predicts in 1 of 4 steps" in finding for finding in findings())
        yield Check("named", told, 1, 1)
    yield Check("orders", difference(*drawn), most=SAME)
    yield Check("from SUN alone", difference(drawn[0], draw(way.on(model()), prompt("pos0"), prompt("neg0"))))


FULL = (7.0, 0.95, "Half Cosine Up", 3.0, "Half Cosine Up", 3.0, 4.0, "enable", "MEAN", "AD", 1.0)
MEGA = (
    *(0.0, "anisotropic", 0.0, "reinhard", 100.0, 0.0, "subtract", 0.0, 0.0, "gaussian", "add", 0.0, 100, 127, 0.0),
    *("hard_clamp", 5.0, 0.0, "None", "dyncfg-halfcosine-mimic"),
)
RESCALE = (True, 1000, 7.5, True, "hard", 8, 1000, 5)

ROWS = {
    "ComfyUI-KJNodes": [
        *_in_vain(
            "CFGZeroStarAndInit without zero init", "CFGZeroStarAndInit", _node("CFGZeroStarAndInit", False, 0)
        ),
        *(
            Row(
                f"CFGZeroStarAndInit{' (SUNNegative)' if way is NEGATIVE else ''}", "both",
                partial(_first_step_discarded, way, _node("CFGZeroStarAndInit", True, 0)), "test_guidance.py",
                "changed",
            )
            for way in (SPEED_UP, NEGATIVE)
        ),
    ],
    "sd-dynamic-thresholding": [
        *_in_vain(
            "DynamicThresholdingSimple", "DynamicThresholdingSimpleComfyNode",
            _node("DynamicThresholdingSimple", 7.0, 1.0),
        ),
        *_in_vain("DynamicThresholdingFull", "DynamicThresholdingComfyNode", _node("DynamicThresholdingFull", *FULL)),
    ],
    "ComfyUI-AutomaticCFG": [
        *_in_vain("Automatic CFG", "advancedDynamicCFG", _node("Automatic CFG", True, True)),
        *_in_vain("Automatic CFG - Negative", "advancedDynamicCFG", _node("Automatic CFG - Negative", True, 1.0)),
        *_in_vain(
            "Automatic CFG - Warp Drive", "advancedDynamicCFG", _node("Automatic CFG - Warp Drive", 5.5, 1.0, 1.0)
        ),
        *in_both_nodes("Automatic CFG - Post rescale only", _node("Automatic CFG - Post rescale only", *RESCALE)),
    ],
    "Skimmed_CFG": [
        row
        for name, function, inputs in (
            ("Skimmed CFG", "CFG_skimming_single_scale_pre_cfg_node", (7.0, False, False)),
            ("Skimmed CFG - linear interpolation", "SkimmedCFGLinInterpCFGPreCFGNode", (5.0,)),
            ("Skimmed CFG - Difference CFG", "differenceCFGPreCFGNode", (5.0, "absolute_sum", 0.8)),
        )
        for row in _in_vain(name, function, _node(name, *inputs))
    ],
    "pre_cfg_comfy_nodes_for_ComfyUI": [
        *_in_vain("Pre CFG flip flop", "flip_flip_conds_pre_cfg_node", _node("Pre CFG flip flop", True)),
        *in_both_nodes("Pre CFG sharpening", _node("Pre CFG sharpening", "both", 0.75, 15.0, 1.0)),
    ],
    "ComfyUI-Latent-Modifiers": _in_vain(
        "Latent Diffusion Mega Modifier", "ModelSamplerLatentMegaModifier",
        _node("Latent Diffusion Mega Modifier", *MEGA),
    ),
    "FreeU_Advanced": in_both_nodes(
        "Post-CFG SHIFT", _node("WAS_PostCFGShift", 20, "lerp", 1.0, 1.1, True, "Default", 1.0, 1, 0.5, 1.0)
    ),
    "ComfyUI_essentials": _in_vain(
        "Guidance Timestepping", "GuidanceTimestepping", _node("GuidanceTimestepping+", 2.0, 0.2, 0.8)
    ),
}  # fmt: skip
