"""What a run trains on, one picture at a time."""

from typing import NamedTuple


class Example(NamedTuple):
    """A latent (its name in the store) with its caption."""

    latent: str
    caption: str
