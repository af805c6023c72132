"""Tells an artist what a run did: in the log and on the node."""

import logging
from collections.abc import Callable

from server import PromptServer

RUN_EVENT = "sun.run"
"""Sent to the page with {"node": id, "text": what the run did}."""


def node_report(node_id: str | None) -> Callable[[str], None]:
    """What tells one text in the log and on the node `node_id`."""

    def report(text: str) -> None:
        logging.info(text)
        server = getattr(PromptServer, "instance", None)
        if server is None or node_id is None:
            return
        server.send_sync(RUN_EVENT, {"node": node_id, "text": text}, server.client_id)
        server.send_progress_text(text, node_id, server.client_id)

    return report
