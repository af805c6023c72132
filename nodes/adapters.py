from collections.abc import Mapping

from comfy_api.latest import io, ui

from ..sun_core.adapter import SunAdapter
from ..sun_core.adapter_file import family_of
from ..sun_core.errors import Text
from .adapter_folder import adapter_named, adapter_names, fingerprint, validated
from .language import in_page_language
from .schema import ADAPTER_TOOLTIP, SunAdapterType, sun_schema

LONGEST_METADATA = 4096
"""Characters that are shown of a file's metadata, in all."""


class SUNLoadAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sun_schema(
            node_id="SUNLoadAdapter",
            display_name="Load SUN Adapter",
            description="Loads a SUN adapter file for Apply SUN Adapter and SUN Adapter Info.",
            search_aliases=["SpeedUpNet", "distilled"],
            inputs=[io.Combo.Input("adapter_name", options=adapter_names(), tooltip=ADAPTER_TOOLTIP)],
            outputs=[SunAdapterType.Output(display_name="SUN_ADAPTER", tooltip="For Apply SUN Adapter.")],
        )

    @classmethod
    def validate_inputs(cls, adapter_name: str | None = None) -> bool | str:
        return validated(adapter_name)

    @classmethod
    def fingerprint_inputs(cls, adapter_name: str | None = None) -> str:
        return fingerprint(adapter_name)

    @classmethod
    def execute(cls, adapter_name: str) -> io.NodeOutput:
        return io.NodeOutput(adapter_named(adapter_name))


class SUNAdapterInfo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sun_schema(
            node_id="SUNAdapterInfo",
            display_name="SUN Adapter Info",
            description="Shows which models a SUN adapter is for, and the metadata in its file.",
            search_aliases=["SpeedUpNet", "metadata"],
            is_output_node=True,
            inputs=[SunAdapterType.Input("sun_adapter", tooltip="From Load SUN Adapter.")],
            outputs=[io.String.Output(display_name="info", tooltip="The text that the node shows.")],
        )

    @classmethod
    def execute(cls, sun_adapter: SunAdapter) -> io.NodeOutput:
        lines = describe(sun_adapter)
        shown = "\n".join(map(in_page_language, lines))
        return io.NodeOutput("\n".join(lines), ui=ui.PreviewText(shown))


def describe(adapter: SunAdapter) -> list[str]:
    """Describe an adapter in lines; those that are ours are Texts, the others are from its file."""
    layout = adapter.layout
    family = family_of(layout, adapter.metadata)
    parameters = sum(parameter.numel() for parameter in adapter.parameters())
    lines: list[str] = [
        Text("Family: {family}", family=family) if family else Text("Family: unknown"),
        Text("Cross-attention layers: {count}, text width {width}", count=len(layout.layers), width=layout.context_dim),
        Text("Extra positive branch: yes") if layout.extra_positive else Text("Extra positive branch: no"),
        Text("Parameters: {count:,} ({dtype})", count=parameters, dtype=str(adapter.dtype).removeprefix("torch.")),
    ]
    other = {key: value for key, value in adapter.metadata.items() if key != "family"}
    shown = _shown(other)
    lines += [f"{key}: {value}" for key, value in shown.items()]
    if len(shown) < len(other):
        lines.append(Text("{count:,} more entries are in the file.", count=len(other) - len(shown)))
    return lines


def _shown(metadata: Mapping[str, str]) -> dict[str, str]:
    """Shorten an adapter's metadata for showing: a file may hold anything."""
    shown, left = {}, LONGEST_METADATA
    for key, value in metadata.items():
        name, text = key[:100], value[:500]
        left -= len(name) + len(text)
        if left < 0:
            break
        shown[name] = text
    return shown
