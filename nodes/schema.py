"""What several schemas share: tooltips, the settings combo, the category."""

from dataclasses import fields
from typing import Any

from comfy_api.latest import io

from ..conversion.findings import FROM_SAMPLER

SunAdapterType = io.Custom("SUN_ADAPTER")

AUTOMATIC = "automatic"

ADAPTER_TOOLTIP = "The SUN adapter file, from models/sun. It must match the family of the model."
MODEL_TOOLTIP = "A Stable Diffusion 1.5 checkpoint or one based on it. LoRAs can come before or after this node."


def settings_input() -> io.Combo.Input:
    return io.Combo.Input(
        "settings",
        options=[AUTOMATIC, FROM_SAMPLER],
        default=AUTOMATIC,
        tooltip=(
            "automatic: runs with CFG 1, a deterministic sampler and trailing sigmas, whatever the sampler node says; "
            "steps, denoise, start and end stay as set. from sampler: uses the settings of the sampler node."
        ),
    )


def advanced(given: io.Input) -> io.Input:
    """Let the page show this input on request only. Older versions of io.Input have no argument for it."""
    given.extra_dict = {**given.extra_dict, "advanced": True}
    return given


def sun_schema(**kwargs: Any) -> io.Schema:
    """Make an io.Schema in the category SUN, without the arguments that an older ComfyUI does not know."""
    known = {field.name for field in fields(io.Schema)}
    return io.Schema(category="SUN", **{name: value for name, value in kwargs.items() if name in known})
