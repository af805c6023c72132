"""What to do about data that cannot be used."""

import logging
from dataclasses import dataclass, field

from ..errors import SunError


@dataclass
class BadData:
    """Stops at the first data that cannot be used, or collects what was skipped; both name it."""

    stops: bool
    found: list[str] = field(default_factory=list)

    def report(self, sentence: str) -> None:
        """Note what cannot be used; raises SunError if the run must stop at it."""
        if self.stops:
            raise SunError(
                "{sentence}; put it right, or set on_bad_data to skip to train without it.", sentence=sentence
            )
        self.found.append(sentence)
        logging.warning(f"Skipped: {sentence}.")
