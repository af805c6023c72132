"""Say messages in the user's language.

English stands in the code. locales/<language>/messages.json has the translation of each text under the English one. A
text without a translation stays English.
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
    """Speak this language in the `with` block. Texts that it lacks are English."""
    token = _language.set(language if isinstance(language, str) else "en")
    try:
        yield
    finally:
        _language.reset(token)


def say(english: str, **values: object) -> str:
    """Translate a text and fill in its {name} from `values`."""
    return term(english).format(**values)


def term(english: str) -> str:
    """Translate a name, such as that of a model family. Names without a translation stay as they are."""
    return _languages().get(_language.get(), {}).get(english, english)


@lru_cache(maxsize=1)
def _languages() -> dict[str, dict[str, Any]]:
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in LOCALES.glob("*/messages.json")}
