"""The text's keys and values, which a U-Net makes anew in every step of a run although they stay the same.

An evaluation of a batch keeps what the layers' `to_k` and `to_v` make of its context; later ones are given that. It
saves a CPU the arithmetic, and a fast GPU the time in which the host starts these layers.

What another pack writes into a layer's weights in place, or puts into the class of a layer, is not noticed between two
steps of a run.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .layers import CrossAttentionLayer

MOST_BYTES = 2**27
"""The most that one run keeps, because ComfyUI does not count it."""


class KeptText:
    """What the layers of a U-Net make of one context."""

    def __init__(self, layers: Sequence[CrossAttentionLayer], size: int):
        """`size`: what will be kept, in bytes."""
        self.size = size
        self._attentions = {layer.number: layer.attention for layer in layers}
        self._kept: dict[nn.Module, tuple[Tensor | None, Tensor]] = {}
        """The weight of a linear layer, and what that made."""

    @contextmanager
    def given_for(self, context: Tensor | None) -> Iterator[None]:
        """Within, each layer makes its K and V of `context` itself only if they are not kept yet.

        An attribute of the instance hides the `forward` of a linear layer: it stays the module that other code looks
        at, and works as always when called with anything else.
        """
        hidden = []
        try:
            for attention in self._attentions.values():
                for linear in (attention.to_k, attention.to_v):
                    if not _is_changed(linear):
                        forward = self._kept_or_made(linear, context)
                        hidden.append((vars(linear), forward))
                        vars(linear)["forward"] = forward
            yield
        finally:
            for own, forward in hidden:
                if own.get("forward") is forward:
                    del own["forward"]

    def has(self, number: int, k: Tensor, v: Tensor) -> bool:
        """Say whether layer `number` itself made these K and V of the context."""
        attention = self._attentions[number]
        made_k, made_v = (self._kept.get(linear, (None, None))[1] for linear in (attention.to_k, attention.to_v))
        return made_k is k and made_v is v

    def _kept_or_made(self, linear: nn.Module, context: Tensor | None) -> Callable[..., Tensor]:
        forward, kept = linear.forward, self._kept

        def kept_or_made(*args: Any, **kwargs: Any) -> Tensor:
            if kwargs or len(args) != 1 or args[0] is not context:
                return forward(*args, **kwargs)
            weight = linear._parameters["weight"]
            if linear in kept and kept[linear][0] is weight:
                return kept[linear][1]
            made = forward(context)
            if not made.requires_grad:
                kept[linear] = weight, made
            return made

        return kept_or_made


def _is_changed(linear: Any) -> bool:
    """Say whether other packs watch or change what a linear layer does, or its weights are patched as it is called."""
    return bool(
        not isinstance(linear, nn.Module)
        or "weight" not in linear._parameters
        or linear._forward_hooks
        or linear._forward_pre_hooks
        or "forward" in vars(linear)
        or getattr(linear, "weight_function", None)
        or getattr(linear, "bias_function", None)
        or not type(linear).__module__.startswith(("comfy.", "torch.nn."))
    )


class Texts:
    """Says whether the conditioning entries of a run have had the same context in all evaluations so far."""

    def __init__(self) -> None:
        self.are_same = True
        self._contexts: dict[Hashable, Any] = {}

    def __deepcopy__(self, memo: dict) -> "Texts":
        """Stay the same in copies of a run's options."""
        return self

    def calc_cond_batch(
        self, executor: Any, model: Any, conds: list[list[dict] | None], *args: Any, **kwargs: Any
    ) -> list[Tensor]:
        """Look at what ComfyUI is to evaluate: it makes a batch of these contexts, in their order."""
        for cond in conds:
            for entry in cond or ():
                context = getattr(entry.get("model_conds", {}).get("c_crossattn"), "cond", None)
                if self._contexts.setdefault(entry.get("uuid"), context) is not context:
                    self.are_same = False
        return executor(model, conds, *args, **kwargs)
