"""The whole body of a request to /prompt: what is in it is converted, and the rest stays."""

from typing import Any

import pytest
from sun_pack.conversion.graph import ConversionError
from sun_pack.conversion.plan import convert, make_plan

from .test_corpus import load
from .test_pack_samplers import case

CASE = "J3_request_body"


def test_graph_in_a_request_is_converted_and_restored() -> None:
    """Its values are placeholders that a program fills in."""
    converted, plan = convert("speed_up", case(CASE))
    inputs = converted["prompt"]["3"]["inputs"]
    assert plan.summary == "KSampler (#3) now needs 4 steps and no CFG pass"
    assert (inputs["steps"], inputs["cfg"], inputs["seed"]) == (4, 1.0, "%seed%")
    assert converted["client_id"] == "someone"
    assert convert("restore", converted)[0] == case(CASE)


def test_workflow_that_a_request_embeds_in_pictures_is_converted_too() -> None:
    request: dict[str, Any] = {"prompt": load("api_text_to_image")}
    request["extra_data"] = {"extra_pnginfo": {"workflow": load("text_to_image"), "other": 1}, "more": 2}
    converted, _ = convert("speed_up", request)
    expected = {"workflow": load("text_to_image.expected"), "other": 1}
    assert converted["prompt"] == load("api_text_to_image.expected")
    assert converted["extra_data"] == {"extra_pnginfo": expected, "more": 2}


@pytest.mark.parametrize("extra", [3, {"extra_pnginfo": 3}, {"extra_pnginfo": {"workflow": 3}}])
def test_malformed_workflow_in_a_request_stays(extra: Any) -> None:
    converted, _ = convert("speed_up", {"prompt": load("api_text_to_image"), "extra_data": extra})
    assert converted["prompt"] == load("api_text_to_image.expected") and converted["extra_data"] == extra


@pytest.mark.parametrize("prompt", [None, 3, "a cat", {}, {"1": 3}])
def test_request_without_a_graph_is_refused(prompt: Any) -> None:
    with pytest.raises(ConversionError, match="not a ComfyUI workflow"):
        make_plan("speed_up", {"prompt": prompt})
