"""The words of messages in the user's language.

English stands in the code. locales/<language>/messages.json gives each text in another language, under the English one;
what it lacks stays English.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

LOCALES = Path(__file__).resolve().parent.parent / "locales"

_language = ContextVar("language", default="en")


@contextmanager
def speaking(language: object) -> Iterator[None]:
    """Texts in this language; English for one that there is none of, and for what is no language."""
    token = _language.set(language if isinstance(language, str) else "en")
    try:
        yield
    finally:
        _language.reset(token)


def say(english: str, **values: object) -> str:
    """A text with {name} filled in from `values`."""
    return term(english).format(**values)


def term(english: str) -> str:
    """A name, such as that of a model family, which may also be one that no language has a word for."""
    return _languages().get(_language.get(), {}).get(english, english)


@lru_cache(maxsize=1)
def _languages() -> dict[str, dict[str, Any]]:
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in LOCALES.glob("*/messages.json")}
