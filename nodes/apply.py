from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..sun_core.adapter import SunAdapter
from ..sun_core.apply import apply_sun
from ..sun_core.settings import SunSettings
from .adapter_folder import adapter_named, adapter_names, fingerprint, validated
from .report import run_report
from .schema import ADAPTER_TOOLTIP, AUTOMATIC, MODEL_TOOLTIP, SunAdapterType, settings_input, sun_schema
from .settings import may_capture

ALIASES = [
    *("SUN", "SpeedUpNet", "speed up", "accelerate", "fast", "faster", "4 steps", "few steps", "no CFG", "CFG 1"),
    *("LCM", "Lightning", "Hyper", "turbo", "DMD", "PCM"),
]
"""What artists search for who want fewer steps. No other node has these words, so that this one comes first."""
MODEL_OUT_TOOLTIP = "Connect to the sampler and set that to 4 steps; the rest is set for you."


class SUNSpeedUp(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sun_schema(
            node_id="SUNSpeedUp",
            display_name="SUN 4-Step Speed-Up",
            description=(
                "Put it on the MODEL line before a KSampler and set the KSampler to 4 steps. The model is evaluated 4 "
                "times instead of 50, and the negative prompt still works. Nothing else needs rewiring."
            ),
            search_aliases=ALIASES,
            essentials_category="Image Generation",
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,  # else ComfyUI may reuse the MODEL of an equal node, which reports to that other node
            inputs=[
                io.Model.Input("model", tooltip=MODEL_TOOLTIP),
                io.Combo.Input("adapter_name", options=adapter_names(), tooltip=ADAPTER_TOOLTIP),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Strength of the adapter: 1 is as trained, 0 turns it off.",
                ),
                settings_input(),
            ],
            outputs=[io.Model.Output(tooltip=MODEL_OUT_TOOLTIP)],
        )

    @classmethod
    def validate_inputs(cls, adapter_name: str | None = None) -> bool | str:
        return validated(adapter_name)

    @classmethod
    def fingerprint_inputs(cls, adapter_name: str | None = None, **_: object) -> str:
        return fingerprint(adapter_name)

    @classmethod
    def execute(cls, model: ModelPatcher, adapter_name: str, strength: float, settings: str) -> io.NodeOutput:
        sun_settings = SunSettings(strength, strength, automatic=settings == AUTOMATIC)
        report = run_report(cls.hidden.unique_id)
        return io.NodeOutput(apply_sun(model, adapter_named(adapter_name), sun_settings, None, report, may_capture))


class SUNApply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        def strength(name: str, what: str) -> io.Float.Input:
            return io.Float.Input(name, default=1.0, min=0.0, max=2.0, step=0.05, tooltip=what)

        def percent(name: str, default: float, what: str) -> io.Float.Input:
            return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, tooltip=what)

        return sun_schema(
            node_id="SUNApply",
            display_name="Apply SUN Adapter",
            description="SUN 4-Step Speed-Up with every setting: two strengths, a range, its own negative prompt.",
            search_aliases=["SpeedUpNet", "negative strength"],
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,  # else ComfyUI may reuse the MODEL of an equal node, which reports to that other node
            inputs=[
                io.Model.Input("model", tooltip=MODEL_TOOLTIP),
                SunAdapterType.Input("sun_adapter", tooltip="From Load SUN Adapter."),
                strength("negative_strength", "How strongly to avoid the negative prompt; 1 is as trained."),
                strength("positive_strength", "How strongly to reinforce the positive prompt; 1 is as trained."),
                percent(
                    "start_percent", 0.0, "Where in the sampling the adapter starts: 0 is the beginning, 1 the end."
                ),
                percent("end_percent", 1.0, "Where in the sampling the adapter stops: 0 is the beginning, 1 the end."),
                settings_input(),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="A negative prompt to use instead of the sampler's. Leave it unconnected for that one.",
                ),
            ],
            outputs=[io.Model.Output(tooltip=MODEL_OUT_TOOLTIP)],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        sun_adapter: SunAdapter,
        negative_strength: float,
        positive_strength: float,
        start_percent: float,
        end_percent: float,
        settings: str,
        negative: list | None = None,
    ) -> io.NodeOutput:
        sun_settings = SunSettings(
            negative_strength, positive_strength, start_percent, end_percent, automatic=settings == AUTOMATIC
        )
        report = run_report(cls.hidden.unique_id)
        return io.NodeOutput(apply_sun(model, sun_adapter, sun_settings, negative, report, may_capture))
