"""Parses JSON that others wrote into values that every browser can read."""

import json
import math
from typing import Any


def parse(text: str | bytes) -> Any:
    """Parse JSON. NaN and infinity become null, because no browser can read them; ComfyUI's page does the same.

    Raises ValueError if it is malformed or nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_finite, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object. Without a function in Python, no other thread could run until all is parsed."""
    return dict(pairs)


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None
