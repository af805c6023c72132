"""SUN for ComfyUI: Stable Diffusion 1.5 in 4 steps, without CFG, with a negative prompt that works."""

from comfy_api.latest import ComfyExtension, io

from .nodes.adapters import SUNAdapterInfo, SUNLoadAdapter
from .nodes.apply import SUNApply, SUNSpeedUp
from .nodes.language import register_language
from .nodes.negative import SUNNegative
from .nodes.record import register_records
from .nodes.routes import register_routes
from .nodes.sample import SUNSampler, SUNScheduler
from .nodes.templates import register_templates
from .nodes.train import SUNSaveAdapter, SUNTrain

WEB_DIRECTORY = "./web"


class SunExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            SUNSpeedUp,
            SUNLoadAdapter,
            SUNApply,
            SUNSampler,
            SUNScheduler,
            SUNAdapterInfo,
            SUNTrain,
            SUNSaveAdapter,
            SUNNegative,
        ]


async def comfy_entrypoint() -> SunExtension:
    register_templates()
    register_routes()
    register_records()
    register_language()
    return SunExtension()
