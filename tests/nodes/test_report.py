"""What a run did, in the log and on the node."""

import asyncio

import pytest
from sun_pack.nodes import language
from sun_pack.nodes.apply import SUNSpeedUp

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def told_by(execute, monkeypatch, model):
    """Runs a function with the MODEL of a SUN node, 12, and returns the messages on the queue of ComfyUI's server."""
    from server import PromptServer

    def told_by(use):
        async def run():
            server = PromptServer.__new__(PromptServer)  # the whole server would want a frontend and a port
            server.loop, server.client_id, server.messages = asyncio.get_running_loop(), "page", asyncio.Queue()
            monkeypatch.setattr(PromptServer, "instance", server, raising=False)
            (sun,) = execute(
                SUNSpeedUp,
                node_id="12",
                model=model,
                adapter_name="adapter.safetensors",
                strength=1.0,
                settings="automatic",
            )
            use(sun)
            await asyncio.sleep(0)
            return [server.messages.get_nowait() for _ in range(server.messages.qsize())]

        return asyncio.run(run())

    return told_by


def test_what_a_run_did_is_told_in_the_log_and_on_the_node(told_by, sample, caplog):
    caplog.set_level("INFO")
    ((event, told, page),) = told_by(lambda sun: sample(sun, cfg=7.0, sampler="euler_ancestral"))
    assert (event, told["node"], page) == ("sun.run", "12", "page")
    assert told["changes"] == "CFG 7 -> 1, sampler euler_ancestral -> euler"
    assert told["findings"] == []
    assert told["text"].startswith("4 steps · 4 evaluations · ")
    assert told["text"].endswith(f" · automatic: {told['changes']}")
    assert f"SUN: {told['text']}" in caplog.text


def test_what_a_run_found_reaches_the_page_in_its_language(told_by, sample, monkeypatch):
    from comfy_extras.nodes_apg import APG

    monkeypatch.setattr(language, "page_language", lambda: "zh")
    ((_, told, _),) = told_by(lambda sun: sample(APG.execute(sun, 1.0, 5.0, 0.0).args[0], sampler="lcm"))
    assert told["findings"][0].startswith("APG 在 CFG 1 下不起作用") and "APG has no effect" in told["text"]
    assert told["changes"] == "采样器 lcm -> euler" and "sampler lcm -> euler" in told["text"]


def test_what_a_run_found_is_told_in_every_run_as_a_warning(told_by, sample, caplog):
    from comfy_extras.nodes_apg import APG

    def twice(sun):
        for _ in range(2):
            sample(APG.execute(sun, 1.0, 5.0, 0.0).args[0])

    for _, told, _ in (messages := told_by(twice)):
        (finding,) = told["findings"]
        assert finding.startswith("APG has no effect") and told["text"].endswith(finding)
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(messages) == len([message for message in warnings if message.startswith("SUN: 4 steps")]) == 2
