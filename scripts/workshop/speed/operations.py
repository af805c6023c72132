"""Count the operations that a forward dispatches: on a GPU their number costs more than their arithmetic."""

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

_VIEWS = ("aten::_unsafe_view", "aten::_reshape_alias")
"""Views that torch does not mark as such."""


class Operations(TorchDispatchMode):
    """Counts what is dispatched, by name, apart from views, which do nothing on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if not function.is_view and function._schema.name not in _VIEWS:
            self.counts[function._schema.name.removeprefix("aten::")] += 1
        return result
