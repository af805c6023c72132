"""Packs that stand around the U-Net, and evaluate only a part of it."""

from collections.abc import Iterator
from functools import partial

from comfy.model_patcher import ModelPatcher

from .packs import call
from .rows import LAYERS, SAME, Check, Node, Row, in_each_order, on_model
from .small_model import NEGATIVE, SPEED_UP, Way, difference, draw, findings, model, prompt, reports


def _first_block_cache(threshold: float) -> Node:
    def place(onto: ModelPatcher) -> ModelPatcher:
        return call("ApplyFBCacheOnModel", onto, "diffusion_model", threshold)[0]

    return on_model(place)


def _cut_short(way: Way, node: Node) -> Iterator[Check]:
    drawn = []
    for placed in in_each_order(way, node):
        drawn.append(draw(*placed))
        yield Check("named", sum("answered for a part of the model" in finding for finding in findings()), 1, 1)
        yield Check("layers", reports[-1].acted, LAYERS, LAYERS)
    yield Check("orders", difference(*drawn), most=SAME)
    yield Check("from SUN alone", difference(drawn[0], draw(way.on(model()), prompt("pos0"), prompt("neg0"))))


def _deep_cache(interval: int) -> Node:
    return on_model(lambda onto: call("DeepCache", onto, interval, 3, 0, 1000)[0])


def _left_out(way: Way, node: Node) -> Iterator[Check]:
    drawn = []
    for placed in in_each_order(way, node):
        drawn.append(draw(*placed))
        yield Check("named", sum("SUN had no effect" in finding for finding in findings()), 1, 1)
    alone = draw(*node(model(), prompt("pos0"), prompt("neg0")))
    yield Check("from the node alone", max(difference(one, alone) for one in drawn), most=SAME)


ROWS = {
    "Comfy-WaveSpeed": [
        Row(
            f"Apply First Block Cache at {threshold}{' (SUNNegative)' if way is NEGATIVE else ''}", "both",
            partial(_cut_short, way, _first_block_cache(threshold)), "test_findings.py", "changed",
        )
        for threshold, way in ((0.1, SPEED_UP), (0.3, SPEED_UP), (0.3, NEGATIVE))
    ],
    "ComfyUI-deepcache": [
        Row(
            f"DeepCache, interval {interval}{' (SUNNegative)' if way is NEGATIVE else ''}", "both",
            partial(_left_out, way, _deep_cache(interval)), "test_findings.py", "changed",
        )
        for interval, way in ((2, SPEED_UP), (5, SPEED_UP), (2, NEGATIVE))
    ],
}  # fmt: skip
