"""Teaches ComfyUI the mini family, the miniature Stable Diffusion of the demo and the tests. Adds no nodes."""

import comfy.supported_models

from .family import MiniSD

comfy.supported_models.models.append(MiniSD)

NODE_CLASS_MAPPINGS: dict[str, type] = {}
