"""The picture world of the mini family: one thing of one colour in one place, and the words for it."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

SIZE = 96  # pixels; 12 x 12 latents

Colour = tuple[int, ...]
"""Red, green and blue, 0..255."""

SUBJECTS = ("house", "boat", "fish", "rocket", "mushroom", "tree", "cat")
COLOURS: dict[str, Colour] = {
    "red": (214, 40, 44),
    "orange": (245, 132, 31),
    "yellow": (250, 214, 52),
    "green": (56, 164, 76),
    "blue": (42, 104, 214),
    "purple": (124, 58, 176),
    "pink": (250, 142, 188),
}
PLACES = {
    "meadow": "in a meadow",
    "night": "at night",
    "sunset": "at sunset",
    "snow": "in the snow",
    "desert": "in the desert",
}
TEMPLATES = (
    "a {colour} {subject} {place}",
    "{place}, a {colour} {subject}",
    "{colour} {subject}, {place}",
    "a picture of a {colour} {subject} {place}",
    "a {subject}, {colour}, {place}",
)
KEYWORDS = "keywords"  # "red, house, night": how negative prompts are written


@dataclass(frozen=True)
class Scene:
    """What a picture shows. An attribute that is None is left open by the caption and drawn at random."""

    subject: str | None
    colour: str | None
    place: str | None

    @property
    def held_out(self) -> bool:
        """Whether U-Nets never draw the combination in training: one in five, spread over all attributes."""
        assert self.subject and self.colour and self.place, "only whole scenes are drawn"
        triple = SUBJECTS.index(self.subject), list(COLOURS).index(self.colour), list(PLACES).index(self.place)
        return (triple[0] + 2 * triple[1] + 3 * triple[2]) % 5 == 0


def all_scenes() -> Iterator[Scene]:
    return (Scene(s, c, p) for s in SUBJECTS for c in COLOURS for p in PLACES)


def complete(scene: Scene, rng: random.Random) -> Scene:
    """Fill the open attributes at random."""
    return Scene(
        scene.subject or rng.choice(SUBJECTS),
        scene.colour or rng.choice(list(COLOURS)),
        scene.place or rng.choice(list(PLACES)),
    )


def caption(scene: Scene, template: str = TEMPLATES[0]) -> str:
    """Put a scene into words; open attributes are not mentioned."""
    if template == KEYWORDS:
        return ", ".join(word for word in (scene.colour, scene.subject, scene.place) if word)
    text = template.format(
        colour=scene.colour or "", subject=scene.subject or "picture", place=PLACES[scene.place] if scene.place else ""
    )
    return ", ".join(" ".join(part.split()) for part in text.split(",") if part.strip())
