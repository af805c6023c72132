"""What a caption or a prompt can be."""

from ..errors import Text

LONGEST_CAPTION = 10_000
"""Characters: encoding a whole book takes minutes."""


def problem_of(caption: str) -> Text | None:
    """Say why a text cannot be meant as a caption; None if it can."""
    if len(caption) > LONGEST_CAPTION:
        return Text("has {count:,} characters, and {most:,} are the most", count=len(caption), most=LONGEST_CAPTION)
    if any("\ud800" <= letter <= "\udfff" for letter in caption):
        return Text("holds half of a character (a lone surrogate), which is no text")
    return None
