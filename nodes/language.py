"""Say the sentences of sun_core, which are English, in the language of the page."""

from ..conversion.words import say, speaking
from ..sun_core.errors import SunError, Text
from .settings import page_language


def register_language() -> None:
    """Let every error that an artist sees be in the language of the page."""
    SunError.translate = staticmethod(in_page_language)


def translated(text: str) -> str:
    """Translate a Text, and the texts among its values, to the language that is spoken (conversion/words.py)."""
    if not isinstance(text, Text):
        return text
    values = {name: translated(value) if isinstance(value, str) else value for name, value in text.values.items()}
    return say(text.english, **values)


def in_page_language(text: str) -> str:
    """Translate a text that reaches the page without a request that names a language."""
    with speaking(page_language()):
        return translated(text)
