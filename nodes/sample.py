from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..sun_core.sampling import SAMPLER_NAMES, model_sigmas, sample_sun
from .schema import sun_schema


def steps_input() -> io.Int.Input:
    return io.Int.Input(
        "steps",
        default=4,
        min=1,
        max=100,
        tooltip="Number of sampling steps. Adapters are made for 4; more are slower and rarely better.",
    )


def denoise_input() -> io.Float.Input:
    return io.Float.Input(
        "denoise",
        default=1.0,
        min=0.01,
        max=1.0,
        step=0.01,
        tooltip="1 makes a new image; less keeps more of the input latent. The number of steps stays the same.",
    )


class SUNSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sun_schema(
            node_id="SUNSampler",
            display_name="KSampler (SUN 4-Step)",
            description=(
                "A KSampler with only the settings that matter with SUN: no CFG, no scheduler. Needs a MODEL with SUN."
            ),
            search_aliases=["SpeedUpNet", "sampler", "DDIM"],
            inputs=[
                io.Model.Input("model", tooltip="From SUN 4-Step Speed-Up or Apply SUN Adapter."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Random seed: the same seed gives the same image.",
                ),
                steps_input(),
                io.Combo.Input(
                    "sampler_name",
                    options=list(SAMPLER_NAMES),
                    default=SAMPLER_NAMES[0],
                    tooltip="Adapters are made for ddim; dpmpp_2m works too.",
                ),
                io.Conditioning.Input("positive", tooltip="What the image should show."),
                io.Conditioning.Input("negative", tooltip="What the image should not show."),
                io.Latent.Input(
                    "latent_image", tooltip="An empty latent, or an image to start from with denoise below 1."
                ),
                denoise_input(),
            ],
            outputs=[io.Latent.Output(tooltip="The sampled latent; connect to VAE Decode.")],
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
            description="Trailing sigmas, as SUN adapters need them, for SamplerCustom and SamplerCustomAdvanced.",
            search_aliases=["SpeedUpNet", "trailing", "sigmas"],
            inputs=[
                io.Model.Input("model", tooltip="The MODEL to sample; its noise levels are used."),
                steps_input(),
                denoise_input(),
            ],
            outputs=[io.Sigmas.Output(tooltip="Noise levels from high to low, one more than the number of steps.")],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, steps: int, denoise: float) -> io.NodeOutput:
        return io.NodeOutput(model_sigmas(model, steps, denoise))
