"""Sentences for the artist. What they are said in stands in nodes/language.py."""

from collections.abc import Callable
from typing import ClassVar


class Text(str):
    """An English text that remembers the values in it, so that it can be said in another language.

    `Text("{name} is {what}.", name="a.pt", what=Text("an empty file"))` is "a.pt is an empty file.".
    """

    english: str
    values: dict[str, object]

    def __new__(cls, english: str, /, **values: object) -> "Text":
        text = super().__new__(cls, english.format(**values))
        text.english, text.values = english, values
        return text

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, object]]:
        """Let copies and pickles be made of both parts: the finished text may hold braces, as in a file's name."""
        return (self.english,), self.values


class SunError(ValueError):
    """Something an artist can put right; the message is one sentence that ComfyUI shows on the node."""

    translate: ClassVar[Callable[[Text], str]] = staticmethod(str)
    """Says the sentence in the artist's language. English unless ComfyUI runs the nodes."""

    def __init__(self, sentence: str, /, **values: object) -> None:
        """Take an English sentence as `Text` does, or a Text."""
        super().__init__(sentence if isinstance(sentence, Text) else Text(sentence, **values))

    def __str__(self) -> str:
        return SunError.translate(self.sentence)

    @property
    def sentence(self) -> Text:
        return self.args[0]
