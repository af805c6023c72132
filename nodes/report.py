"""Report what a run did: in the log, on the node and in the metadata of pictures."""

import logging
from collections.abc import Callable

from server import PromptServer

from ..sun_core.run import RunReport
from .language import in_page_language
from .record import record, shown_as

RUN_EVENT = "sun.run"
"""The event for the page: {"node": id, "text": what the run did, "changes": what the automatic settings overrode and
"findings": a list of sentences, each what makes the picture another one than asked for and its remedy, both in the
page's language, "steps", "evaluations", "seconds", "idle": whether the node did nothing because the MODEL has an
adapter}."""


def run_report(node_id: str | None) -> Callable[[RunReport], None]:
    """Make the function that reports sampling runs of the node `node_id`: in the log, on its face, in pictures."""

    def report(run: RunReport) -> None:
        logging.log(logging.WARNING if run.findings else logging.INFO, f"SUN: {run}")
        if run.way:
            logging.info(f"SUN: {run.way}")
        shown = shown_as(node_id) if node_id is not None else None
        record(shown, run)
        server = getattr(PromptServer, "instance", None)
        if server is not None and shown is not None:
            counts = {"steps": run.steps, "evaluations": run.evaluations, "seconds": run.seconds}
            counts["idle"] = run.note is not None
            changes, findings = (list(map(in_page_language, texts)) for texts in (run.changes, run.findings))
            told = {"node": shown, "text": str(run), "changes": ", ".join(changes), "findings": findings, **counts}
            server.send_sync(RUN_EVENT, told, server.client_id)

    return report


def node_report(node_id: str | None) -> Callable[[str], None]:
    """Make the function that shows a text in the log and below the widgets of the node `node_id`."""

    def report(text: str) -> None:
        logging.info(text)
        server = getattr(PromptServer, "instance", None)
        if server is not None and node_id is not None:
            server.send_progress_text(in_page_language(text), node_id, server.client_id)

    return report
