"""What a plan is: edits, and what to say about them."""

from dataclasses import dataclass, field
from typing import Any

from .edits import Edit
from .words import say


@dataclass
class Plan:
    summary: str
    detail: str = ""
    severity: str = "info"
    """success, info or warn, as the page's toasts have it."""
    edits: list[Edit] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {"edits": self.edits, "severity": self.severity, "summary": self.summary, "detail": self.detail}


def sentences(parts: list[str], most: int = 12) -> str:
    """The different parts, one a line; a graph with a hundred samplers is not listed whole."""
    unique = list(dict.fromkeys(part for part in parts if part))
    if len(unique) > most:
        unique = [*unique[:most], say("... and {count} more.", count=len(unique) - most)]
    return "\n".join(unique)
