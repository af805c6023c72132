"""What a caption or a prompt can be."""

LONGEST_CAPTION = 10_000
"""Characters: encoding a whole book takes minutes."""


def problem_of(caption: str) -> str:
    """Say why a text cannot be meant as a caption; '' if it can."""
    if len(caption) > LONGEST_CAPTION:
        return f"has {len(caption):,} characters, and {LONGEST_CAPTION:,} are the most"
    if any("\ud800" <= letter <= "\udfff" for letter in caption):
        return "holds half of a character (a lone surrogate), which is no text"
    return ""
