"""What a row of docs/compatibility.md is, and what most of them measure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

from .small_model import NEGATIVE, SPEED_UP, Conditioning, Way, difference, draw, findings, model, prompt, reports

SAME, ACTS = 1e-5, 0.02
"""At most that for two drawings that must be the same; at least that for what must act."""
LAYERS = 16
"""Of the small U-Net in which SUN can act."""


@dataclass(frozen=True)
class Check:
    """A figure of a row, and where it must lie."""

    what: str
    figure: float
    least: float = 0.0
    most: float = float("inf")

    @property
    def ok(self) -> bool:
        return self.least <= self.figure <= self.most

    @property
    def expected(self) -> str:
        if self.least == self.most:
            return f"(= {self.least:g})"
        if self.most < float("inf"):
            return f"(< {self.most:g})"
        return f"(> {self.least:g})" if self.least > 0.0 else ""


@dataclass(frozen=True)
class Row:
    """Something that SUN was tried beside. `measure` yields its figures."""

    name: str
    order: str
    measure: Callable[[], Iterator[Check]]
    test: str = ""
    section: str = "works"


Placed = tuple[ModelPatcher, Conditioning, Conditioning]
Node = Callable[[ModelPatcher, Conditioning, Conditioning], Placed]
"""What a neighbour does to MODEL, positive and negative."""


def on_model(place: Callable[[ModelPatcher], ModelPatcher]) -> Node:
    """Make a Node of what changes the MODEL alone."""
    return lambda model, positive, negative: (place(model), positive, negative)


def both_orders(
    way: Way, node: Node, base: Callable[[], ModelPatcher] = model, layers: int = LAYERS, **options: Any
) -> Iterator[Check]:
    """Measure a neighbour before SUN and after it, and that both act."""
    ours_first = draw(*node(way.on(base()), prompt("pos0"), prompt("neg0")), **options)
    yield Check("orders", difference(ours_first, _neighbour_first(way.on, node, base, "neg0", options)), most=SAME)
    yield from acting(way, node, base, layers, **options)


def acting(
    way: Way, node: Node, base: Callable[[], ModelPatcher] = model, layers: int = LAYERS, **options: Any
) -> Iterator[Check]:
    """Measure that SUN, the neighbour and the negative prompt act, with the neighbour first on the line."""
    both = _neighbour_first(way.on, node, base, "neg0", options)
    yield Check("findings", len(findings()), most=0)
    yield Check("layers", reports[-1].acted, layers, layers)
    yield Check("SUN", difference(_neighbour_first(way.off, node, base, "neg0", options), both), least=ACTS)
    alone = draw(way.on(base()), *_without_model(node, base()), **options)
    yield Check("neighbour", difference(alone, both), least=ACTS)
    yield Check("negatives", difference(_neighbour_first(way.on, node, base, "neg1", options), both), least=ACTS)


def _without_model(node: Node, onto: ModelPatcher) -> tuple[Conditioning, Conditioning]:
    """Return the prompts that a neighbour leaves if it acts on the MODEL, which is left away; else the plain ones."""
    placed, positive, against = node(onto, prompt("pos0"), prompt("neg0"))
    return (prompt("pos0"), prompt("neg0")) if placed is onto else (positive, against)


def _neighbour_first(
    ours: Callable[[ModelPatcher], ModelPatcher],
    node: Node,
    base: Callable[[], ModelPatcher],
    negative: str,
    options: dict[str, Any],
) -> torch.Tensor:
    placed, positive, against = node(base(), prompt("pos0"), prompt(negative))
    return draw(ours(placed), positive, against, **options)


def in_both_nodes(name: str, node: Node, test: str = "", **options: Any) -> list[Row]:
    """Return rows of both orders, beside SUN 4-Step Speed-Up and beside Negative Prompt at CFG 1."""
    return [
        Row(name, "both", lambda: both_orders(SPEED_UP, node, **options), test),
        Row(name, "both", lambda: both_orders(NEGATIVE, node, **options), test, "negative"),
    ]


def in_each_order(way: Way, node: Node) -> Iterator[Placed]:
    """Yield the neighbour behind SUN, then before it."""
    yield node(way.on(model()), prompt("pos0"), prompt("neg0"))
    placed, positive, negative = node(model(), prompt("pos0"), prompt("neg0"))
    yield way.on(placed), positive, negative


def no_effect(way: Way, node: Node, named: str, **options: Any) -> Iterator[Check]:
    """Measure that a neighbour changes nothing beside SUN, in either order, and that the run says so."""
    drawn = []
    for placed in in_each_order(way, node):
        drawn.append(draw(*placed, **options))
        yield Check("named", sum(named in finding for finding in findings()), 1, 1)
    alone = draw(way.on(model()), prompt("pos0"), prompt("neg0"))
    yield Check("from SUN alone", max(difference(one, alone) for one in drawn), most=SAME)
