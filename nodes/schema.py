"""What the schemas of several nodes share."""

from dataclasses import fields
from typing import Any

from comfy_api.latest import io

SunAdapterType = io.Custom("SUN_ADAPTER")

AUTOMATIC, FROM_SAMPLER = "automatic", "from sampler"

ADAPTER_TOOLTIP = "The SUN adapter file, from models/sun. It must be made for the family of the MODEL."
MODEL_TOOLTIP = "A Stable Diffusion 1.5 checkpoint or one derived from it. LoRAs may be on it already, or come after."


def settings_input() -> io.Combo.Input:
    return io.Combo.Input(
        "settings",
        options=[AUTOMATIC, FROM_SAMPLER],
        default=AUTOMATIC,
        tooltip=(
            "automatic: the sampler runs with CFG 1, a deterministic sampler and trailing sigmas, whatever it says; "
            "its steps, denoise, start and end stay. from sampler: everything as set on the sampler."
        ),
    )


def sun_schema(**kwargs: Any) -> io.Schema:
    """An io.Schema in the category SUN; search_aliases are left out on a ComfyUI that does not know them yet."""
    known = {field.name for field in fields(io.Schema)}
    return io.Schema(category="SUN", **{name: value for name, value in kwargs.items() if name in known})
