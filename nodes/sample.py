from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..sun_core.sampling import SAMPLER_NAMES, model_sigmas, sample_sun
from .schema import sun_schema


def steps_input() -> io.Int.Input:
    return io.Int.Input(
        "steps", default=4, min=1, max=100, tooltip="Adapters are made for 4 steps. More are slower, and rarely better."
    )


def denoise_input() -> io.Float.Input:
    return io.Float.Input(
        "denoise",
        default=1.0,
        min=0.01,
        max=1.0,
        step=0.01,
        tooltip="1 makes a new picture; less keeps more of the one in the latent image. The steps stay as many.",
    )


class SUNSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sun_schema(
            node_id="SUNSampler",
            display_name="KSampler (SUN 4-Step)",
            description="A KSampler with only what SUN leaves open (no CFG, no scheduler), for a MODEL with SUN.",
            search_aliases=["SpeedUpNet", "sampler", "4 steps", "DDIM"],
            inputs=[
                io.Model.Input("model", tooltip="From SUN 4-Step Speed-Up or Apply SUN Adapter."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="The number that the noise is made from: the same seed gives the same picture.",
                ),
                steps_input(),
                io.Combo.Input(
                    "sampler_name",
                    options=list(SAMPLER_NAMES),
                    default=SAMPLER_NAMES[0],
                    tooltip="ddim is what adapters are made for; dpmpp_2m works as well.",
                ),
                io.Conditioning.Input("positive", tooltip="What the picture should show."),
                io.Conditioning.Input("negative", tooltip="What it should not show."),
                io.Latent.Input(
                    "latent_image", tooltip="An empty latent, or a picture to start from with less denoise."
                ),
                denoise_input(),
            ],
            outputs=[io.Latent.Output(tooltip="The sampled latent, for VAE Decode.")],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        seed: int,
        steps: int,
        sampler_name: str,
        positive: list,
        negative: list,
        latent_image: dict[str, Any],
        denoise: float,
    ) -> io.NodeOutput:
        return io.NodeOutput(sample_sun(model, seed, steps, sampler_name, positive, negative, latent_image, denoise))


class SUNScheduler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sun_schema(
            node_id="SUNScheduler",
            display_name="SUN Scheduler",
            description="The trailing sigmas that SUN is made for, for SamplerCustom and SamplerCustomAdvanced.",
            search_aliases=["SpeedUpNet", "trailing", "sigmas"],
            inputs=[
                io.Model.Input("model", tooltip="The MODEL that is sampled: its noise levels are used."),
                steps_input(),
                denoise_input(),
            ],
            outputs=[io.Sigmas.Output(tooltip="Falling noise levels, one more than there are steps.")],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, steps: int, denoise: float) -> io.NodeOutput:
        return io.NodeOutput(model_sigmas(model, steps, denoise))
