"""The text's keys and values, which a U-Net makes anew in every step of a run although they stay the same.

The first evaluation of a batch keeps what the layers' `to_k` and `to_v` made of its context; later ones are given that.
A fast GPU waits for the host to start these 32 layers, and on a CPU they are 1 % of a small picture's time.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .layers import CrossAttentionLayer

MOST_BYTES = 2**27
"""What one run keeps: ComfyUI does not count it, and for larger batches a GPU does not wait."""


class KeptText:
    """What the layers of a U-Net made of one context."""

    def __init__(self, layers: Sequence[CrossAttentionLayer]):
        self._attentions = {layer.number: layer.attention for layer in layers}
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(self, number: int, k: Tensor, v: Tensor) -> None:
        """Keep K and V of a layer, unless it has some or gradients go through them; nothing may change them later."""
        if not (k.requires_grad or v.requires_grad):
            self._kept.setdefault(number, (k, v))

    @contextmanager
    def given_for(self, context: Tensor | None) -> Iterator[None]:
        """Within, the layers give what was kept if they are called with `context` itself.

        Called with another one, as other packs may do, they work as always. An attribute of the instance hides the
        module of that name, so that nothing but such a call sees a difference.
        """
        hidden = []
        try:
            for number, (k, v) in self._kept.items():
                attention = self._attentions[number]
                own, to_k, to_v = vars(attention), attention.to_k, attention.to_v
                if "to_k" in own or "to_v" in own or _is_changed(to_k) or _is_changed(to_v):
                    continue
                hidden.append(own)
                own["to_k"], own["to_v"] = _given(context, k, to_k), _given(context, v, to_v)
            yield
        finally:
            for own in hidden:
                del own["to_k"], own["to_v"]


def _is_changed(linear: nn.Module) -> bool:
    """Say whether another pack watches or changes what `linear` does."""
    return bool(linear._forward_hooks or linear._forward_pre_hooks or "forward" in vars(linear))


def _given(context: Tensor | None, kept: Tensor, linear: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: kept if x is context else linear(x)


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
                context = entry.get("model_conds", {}).get("c_crossattn")
                if self._contexts.setdefault(entry.get("uuid"), context) is not context:
                    self.are_same = False
        return executor(model, conds, *args, **kwargs)
