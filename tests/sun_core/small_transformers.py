"""Small random diffusion transformers, as ComfyUI makes or loads them: one MODEL of each family.

A family that this ComfyUI does not have is None.
"""

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models
import torch

CPU = torch.device("cpu")
WAN = {"image_model": "wan2.1", "dim": 128, "num_heads": 1, "ffn_dim": 64, "num_layers": 2, "in_dim": 16, "out_dim": 16}
COSMOS = {
    "max_img_h": 32,
    "max_img_w": 32,
    "max_frames": 4,
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "model_channels": 48,
    "num_blocks": 2,
    "num_heads": 2,
    "concat_padding_mask": True,
    "crossattn_emb_channels": 32,
    "pos_emb_cls": "rope3d",
    "use_adaln_lora": True,
    "adaln_lora_dim": 8,
}
PIXART = {
    "image_model": "pixart_sigma",
    "depth": 2,
    "hidden_size": 32,
    "num_heads": 2,
    "caption_channels": 32,
    "pe_interpolation": 1,
    "micro_condition": False,
}
HYDIT = {
    "image_model": "hydit",
    "depth": 2,
    "hidden_size": 32,
    "num_heads": 2,
    "text_states_dim": 32,
    "text_states_dim_t5": 32,
    "text_len": 12,
    "text_len_t5": 10,
}
LTXV = {"num_attention_heads": 2, "attention_head_dim": 24, "cross_attention_dim": 48, "caption_channels": 32}


@dataclass(frozen=True)
class Family:
    """How to make a MODEL of a family, and what it takes."""

    make: Callable[[], Any]
    """Makes a MODEL with random weights."""
    blocks: tuple[str, ...] = ("blocks",)
    attention: str = "cross_attn"
    projection: str = "o"
    """What a layer's result passes last."""
    text_inputs: tuple[str, ...] = ("k", "v")
    """What makes a layer's keys and values of the text."""
    latent: tuple[int, ...] = (16, 1, 8, 8)
    """A latent without its batch."""
    width: int = 32
    """Width of the text."""
    tokens: int = 12
    """The tokens of a text."""
    beside: Callable[[int], dict[str, Any]] = lambda seed: {}
    """Makes what the text encoder gives beside a text, by a seed."""
    returns_tuple: bool = False
    """Whether a layer gives its result as a tuple."""

    def layers(self, model) -> list[tuple[str, Any]]:
        """List the cross-attention layers of a MODEL with their paths."""
        return [
            (f"diffusion_model.{name}.{i}.{self.attention}", getattr(block, self.attention))
            for name in self.blocks
            for i, block in enumerate(getattr(model.model.diffusion_model, name))
        ]


def randomise(module) -> None:
    """Give every weight values of a size that carries signals on."""
    torch.manual_seed(0)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn_like(parameter) * parameter[0].numel() ** -0.5
        else:
            parameter.data.fill_(0.0 if name.endswith("bias") else 1.0)


def made(supported: str, config: dict, change: Callable = lambda transformer: None):
    """Make a MODEL of ComfyUI's class for a family; None if there is none."""
    if not hasattr(comfy.supported_models, supported):
        return None
    settings = getattr(comfy.supported_models, supported)({**config, "dtype": torch.float32})
    base = settings.get_model({}, "", device=CPU).eval().requires_grad_(False)
    change(base.diffusion_model)
    randomise(base.diffusion_model)
    return comfy.model_patcher.ModelPatcher(base, CPU, CPU)


def loaded(transformer: str, config: dict, metadata: dict | None = None):
    """Load random weights of a transformer as ComfyUI's loader does a file, which finds the family by them."""
    module, _, name = transformer.rpartition(".")
    made = getattr(importlib.import_module(module), name)
    empty = made(**config, device=CPU, dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    randomise(empty)
    options = {"dtype": torch.float32}
    return comfy.sd.load_diffusion_model_state_dict(empty.state_dict(), model_options=options, metadata=metadata)


def small_text_adapter(transformer) -> None:
    """Put a narrow text adapter into Anima, whose own has 130 million weights in any case."""
    adapter = importlib.import_module("comfy.ldm.anima.model").LLMAdapter
    transformer.llm_adapter = adapter(
        source_dim=32,
        target_dim=32,
        model_dim=32,
        num_layers=1,
        num_heads=2,
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )


def wan(config: dict, name: str = "WanModel"):
    """Load a small Wan."""
    own = {key: value for key, value in WAN.items() if key != "image_model"}
    return loaded(f"comfy.ldm.wan.model.{name}", own | config)


def ltx_video():
    """Load a small LTX-Video, whose file says how many heads it has."""
    metadata = {"config": json.dumps({"transformer": LTXV})}
    return loaded("comfy.ldm.lightricks.model.LTXVModel", LTXV | {"num_layers": 2}, metadata)


def padding(seed: int) -> dict[str, Any]:
    """Mask the last tokens of a text, as padding."""
    return {"attention_mask": (torch.arange(12) < 12 - seed).long()[None]}


def start_image(seed: int) -> dict[str, Any]:
    """Give a video the CLIP features of the image that it starts with, the same for every seed."""
    features = torch.randn(1, 5, 1280, generator=torch.Generator().manual_seed(0))
    return {"clip_vision_output": SimpleNamespace(penultimate_hidden_states=features)}


def start_and_camera(seed: int) -> dict[str, Any]:
    """Give a video a start image and a camera motion, equal for every seed."""
    rays = torch.randn(1, 24, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    return start_image(seed) | {"camera_conditions": rays}


def t5_tokens(seed: int) -> dict[str, Any]:
    """Give a text the T5 tokens that Anima's text adapter reads it by."""
    ids = torch.randint(0, 32128, (8,), generator=torch.Generator().manual_seed(seed))
    return {"t5xxl_ids": ids, "t5xxl_weights": torch.ones(8)}


def second_encoder(seed: int) -> dict[str, Any]:
    """Give a text what T5 makes of it, and the masks of both encoders."""
    return {
        "attention_mask": (torch.arange(12) < 12 - seed).long()[None],
        "conditioning_mt5xl": torch.randn(1, 10, 32, generator=torch.Generator().manual_seed(seed)),
        "attention_mask_mt5xl": (torch.arange(10) < 5 + seed).long()[None],
    }


COSMOS_LAYERS = {"projection": "output_proj", "text_inputs": ("k_proj", "v_proj")}
FAMILIES = {
    "Wan 2.1 text to video": Family(lambda: wan({"model_type": "t2v"}), width=4096),
    "Wan 2.1 image to video": Family(lambda: wan({"model_type": "i2v", "in_dim": 36}), width=4096, beside=start_image),
    "Wan VACE": Family(
        lambda: wan({"model_type": "vace", "vace_layers": 1, "vace_in_dim": 96}, "VaceWanModel"),
        blocks=("blocks", "vace_blocks"),
        width=4096,
    ),
    "Wan Camera": Family(
        lambda: wan({"model_type": "camera", "in_dim": 32}, "CameraWanModel"), width=4096, beside=start_and_camera
    ),
    "Wan 2.2": Family(lambda: wan({"in_dim": 48, "out_dim": 48}), latent=(48, 2, 4, 4), width=4096),
    "Cosmos-Predict2": Family(
        lambda: made("CosmosT2IPredict2", COSMOS | {"image_model": "cosmos_predict2"}), **COSMOS_LAYERS
    ),
    "Anima": Family(
        lambda: made("Anima", COSMOS | {"image_model": "anima"}, small_text_adapter), beside=t5_tokens, **COSMOS_LAYERS
    ),
    "LTX-Video": Family(
        ltx_video,
        *(("transformer_blocks",), "attn2", "to_out", ("to_k", "to_v")),
        latent=(128, 2, 4, 4),
        beside=padding,
    ),
    "PixArt": Family(
        lambda: made("PixArtSigma", PIXART),
        projection="proj",
        text_inputs=("kv_linear",),
        latent=(4, 48, 48),
    ),
    "Hunyuan-DiT": Family(
        lambda: made("HunyuanDiT", HYDIT),
        attention="attn2",
        projection="out_proj",
        text_inputs=("kv_proj",),
        latent=(4, 8, 8),
        beside=second_encoder,
        returns_tuple=True,
    ),
}
