"""The pairs of positive and negative prompts that a run trains on. Imports neither ComfyUI nor torch."""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

from ..errors import SunError

EMPTY = ""
ATTRIBUTES = 2
"""Attributes of a caption that become negatives; each costs two more texts to encode."""
SMALL_WORDS = frozenset("a an and at by for from in of on or the to with".split())


@dataclass(frozen=True)
class NegativeMix:
    """Where negatives come from; the share of a source that has nothing to give goes to the others."""

    empty: float = 0.4
    listed: float = 0.2
    """The user's own list."""
    captions: float = 0.2
    """The captions of other pictures."""
    attributes: float = 0.2
    """A part of the picture's own caption, which the positive then leaves out: only the negative mentions it."""

    def __post_init__(self) -> None:
        if min(astuple(self)) < 0 or sum(astuple(self)) <= 0:
            raise SunError(
                "The shares of negatives are {shares}; each must be 0 or more, and at least one above 0.",
                shares=astuple(self),
            )


class PromptPairs:
    """Draws prompts for captioned pictures."""

    def __init__(self, captions: Sequence[str], mix: NegativeMix, listed: Sequence[str]):
        self.captions, self.mix, self.listed = list(dict.fromkeys(captions)), mix, list(listed)

    def draw(self, caption: str, rng: random.Random) -> tuple[str, str]:
        """Draw (positive, negative) for a picture with this caption."""
        parts = attributes(caption) if self.mix.attributes else []
        others = len(self.captions) > 1
        sources = {
            "empty": self.mix.empty,
            "listed": self.mix.listed if self.listed else 0,
            "captions": self.mix.captions if others else 0,
            "attributes": self.mix.attributes if parts else 0,
        }
        if not any(sources.values()):
            return caption, EMPTY
        source = rng.choices(list(sources), weights=list(sources.values()))[0]
        if source == "listed":
            return caption, rng.choice(self.listed)
        if source == "captions":
            return caption, self._another(caption, rng)
        if source == "attributes":
            return rng.choice(parts)
        return caption, EMPTY

    def _another(self, caption: str, rng: random.Random) -> str:
        other = rng.choice(self.captions)
        while other == caption:
            other = rng.choice(self.captions)
        return other

    def texts(self) -> Iterator[str]:
        """List all texts that `draw` can give, each once."""
        found = dict.fromkeys([EMPTY, *self.listed, *self.captions])
        if self.mix.attributes:
            for caption in self.captions:
                for pair in attributes(caption):
                    found |= dict.fromkeys(pair)
        return iter(found)


def attributes(caption: str) -> list[tuple[str, str]]:
    """Choose some attributes of a caption, the same ones each time: (what remains, the attribute).

    Attributes are the parts between commas, except the first, which says what the picture shows. In a caption without
    commas they are its words.
    """
    parts, glue = [part.strip() for part in re.split(r"[,;\n]", caption) if part.strip()], ", "
    if len(parts) == 1:
        parts, glue = caption.split(), " "
        candidates = [i for i, word in enumerate(parts) if word.lower() not in SMALL_WORDS] if len(parts) > 1 else []
    else:
        candidates = list(range(1, len(parts)))
    chosen = random.Random(caption).sample(candidates, min(ATTRIBUTES, len(candidates)))
    return [(glue.join(parts[:i] + parts[i + 1 :]), parts[i]) for i in chosen]
