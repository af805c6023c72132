from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..conversion.findings import FROM_SAMPLER
from ..sun_core.apply import apply_negative
from ..sun_core.nag import NagSettings
from ..sun_core.settings import NegativeSettings
from .report import run_report
from .schema import AUTOMATIC, sun_schema
from .settings import may_capture

DEFAULT = NagSettings()


class SUNNegative(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        def number(name: str, default: float, least: float, most: float, step: float, what: str) -> io.Float.Input:
            return io.Float.Input(name, default=default, min=least, max=most, step=step, tooltip=what)

        return sun_schema(
            node_id="SUNNegative",
            display_name="Negative Prompt at CFG 1",
            description=(
                "Lets the negative prompt count at CFG 1, where ComfyUI ignores it, by normalized attention guidance "
                "(NAG). Put it on the MODEL line before the sampler. It needs no adapter and no second pass, and works "
                "on SD1.x, SD2.x, SDXL, Anima, Cosmos-Predict2, Wan, LTX-Video, PixArt and Hunyuan-DiT models, also "
                "with few-step LoRAs. It does not reduce the steps."
            ),
            search_aliases=["SpeedUpNet", "NAG", "normalized attention guidance", "negative without CFG"],
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,  # else ComfyUI may reuse the MODEL of an equal node, which reports to that other node
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip=(
                        "A model of Stable Diffusion 1.x, 2.x or SDXL, Anima, Cosmos-Predict2, Wan 2.1 or 2.2, "
                        "LTX-Video, PixArt or Hunyuan-DiT, or one based on them. LoRAs can come before or after this "
                        "node."
                    ),
                ),
                number(
                    *("scale", DEFAULT.scale, 1.0, 20.0, 0.1),
                    "How strongly to avoid the negative prompt. 1 turns it off, 3 is a good start.",
                ),
                number(
                    *("tau", DEFAULT.tau, 1.0, 20.0, 0.1),
                    "Limit: how many times its own strength attention may reach. Lower it if the image looks burnt.",
                ),
                number(
                    *("alpha", DEFAULT.alpha, 0.0, 1.0, 0.01),
                    "How much of the guided attention is mixed in: 0 is none, 1 is all. Lower it for a milder effect.",
                ),
                number(
                    *("start_percent", 0.0, 0.0, 1.0, 0.01),
                    "Where in the sampling the negative prompt starts to count: 0 is the beginning, 1 the end.",
                ),
                number(
                    *("end_percent", 1.0, 0.0, 1.0, 0.01),
                    "Where in the sampling the negative prompt stops counting: 0 is the beginning, 1 the end.",
                ),
                io.Combo.Input(
                    "cfg",
                    options=[AUTOMATIC, FROM_SAMPLER],
                    default=AUTOMATIC,
                    tooltip=(
                        "automatic: samples at CFG 1, which takes half the time of a higher CFG, whatever the sampler "
                        "node says. from sampler: uses the CFG of the sampler node; above 1 both guide the image."
                    ),
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="A negative prompt to use instead of the sampler's. Leave it unconnected for that one.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="Connect to the sampler. Its steps, sampler and scheduler stay as they are.")
            ],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        scale: float,
        tau: float,
        alpha: float,
        start_percent: float,
        end_percent: float,
        cfg: str,
        negative: list | None = None,
    ) -> io.NodeOutput:
        settings = NegativeSettings(
            NagSettings(scale, tau, alpha), start_percent, end_percent, automatic=cfg == AUTOMATIC
        )
        report = run_report(cls.hidden.unique_id)
        return io.NodeOutput(apply_negative(model, settings, negative, report, may_capture))
