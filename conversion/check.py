"""What the SUN nodes of a graph have to say, and how to put right what is wrong."""

from typing import Any

from .graph import Node, Workflow
from .models import Installed
from .result import Plan


def check(workflow: Workflow, installed: Installed) -> list[dict[str, Any]]:
    return []


def fix(workflow: Workflow, targets: list[Node] | None, installed: Installed) -> Plan:
    return Plan("There is nothing to fix")
