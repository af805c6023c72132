from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..sun_core.adapter import SunAdapter
from ..sun_core.apply import SunSettings, apply_sun
from .adapter_folder import adapter_named, adapter_names, file_state, is_there
from .report import run_report
from .schema import ADAPTER_TOOLTIP, AUTOMATIC, MODEL_TOOLTIP, SunAdapterType, settings_input, sun_schema

ALIASES = ["SpeedUpNet", "speed up", "4 steps", "few steps", "fast", "CFG 1", "LCM", "Lightning", "Hyper", "turbo"]
MODEL_OUT_TOOLTIP = "For the sampler. Give that 4 steps; the rest is set for it."


class SUNSpeedUp(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sun_schema(
            node_id="SUNSpeedUp",
            display_name="SUN 4-Step Speed-Up",
            description=(
                "Put it on the MODEL line before a KSampler and set the KSampler to 4 steps. The model is evaluated 4 "
                "times in place of 50, and the negative prompt still works. Nothing else is to be rewired."
            ),
            search_aliases=ALIASES,
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,  # else ComfyUI may give the cached MODEL of a like node, whose runs it tells
            inputs=[
                io.Model.Input("model", tooltip=MODEL_TOOLTIP),
                io.Combo.Input("adapter_name", options=adapter_names(), tooltip=ADAPTER_TOOLTIP),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How strongly the adapter works: 1 as it was made, 0 not at all.",
                ),
                settings_input(),
            ],
            outputs=[io.Model.Output(tooltip=MODEL_OUT_TOOLTIP)],
        )

    @classmethod
    def validate_inputs(cls, adapter_name: str | None = None) -> bool | str:
        return is_there(adapter_name)

    @classmethod
    def fingerprint_inputs(cls, adapter_name: str | None = None, **_: object) -> tuple:
        return file_state(adapter_name)

    @classmethod
    def execute(cls, model: ModelPatcher, adapter_name: str, strength: float, settings: str) -> io.NodeOutput:
        sun_settings = SunSettings(strength, strength, automatic=settings == AUTOMATIC)
        report = run_report(cls.hidden.unique_id)
        return io.NodeOutput(apply_sun(model, adapter_named(adapter_name), sun_settings, report=report))


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
            description="SUN 4-Step Speed-Up with every setting: separate strengths, a range, a negative of its own.",
            search_aliases=ALIASES,
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,  # else ComfyUI may give the cached MODEL of a like node, whose runs it tells
            inputs=[
                io.Model.Input("model", tooltip=MODEL_TOOLTIP),
                SunAdapterType.Input("sun_adapter", tooltip="From Load SUN Adapter."),
                strength("negative_strength", "How strongly the picture avoids the negative prompt; 1 as made."),
                strength("positive_strength", "How strongly the adapter adds to the positive prompt; 1 as made."),
                percent("start_percent", 0.0, "Where in the sampling the adapter begins to work."),
                percent("end_percent", 1.0, "Where in the sampling the adapter ceases to work."),
                settings_input(),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="A negative prompt in place of the sampler's own. Left open, the sampler's is used.",
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
        return io.NodeOutput(apply_sun(model, sun_adapter, sun_settings, negative, report))
