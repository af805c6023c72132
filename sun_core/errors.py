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
    """Something an artist can put right; the message is one sentence that ComfyUI shows on the node.

    With values, the sentence is a Text.
    """

    def __init__(self, sentence: str, /, **values: object) -> None:
        super().__init__(Text(sentence, **values) if values else sentence)

    @property
    def sentence(self) -> str:
        return self.args[0]
