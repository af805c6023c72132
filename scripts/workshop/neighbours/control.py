"""What guides a drawing by a picture: ControlNet, inpainting, tiles, noise masks."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import comfy.cldm.cldm
import comfy.controlnet
import comfy.ops
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from safetensors.torch import save_file

from .pack_list import CORE
from .packs import call
from .rows import ACTS, LAYERS, SAME, Check, Row, acting, in_both_nodes, on_model
from .small_model import (
    CPU,
    NEGATIVE,
    SPEED_UP,
    Conditioning,
    Way,
    difference,
    draw,
    findings,
    inpaint_model,
    model,
    prompt,
    random_weights,
    reports,
    unet_config,
    vae,
)

PICTURE = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(0))
MASK = torch.zeros(1, 128, 128)
MASK[..., 64:] = 1.0


@cache
def control_net() -> comfy.controlnet.ControlNet:
    """Return a ControlNet of the small U-Net's shape, with random weights."""
    left_out = ("out_channels", "transformer_depth_output", "use_temporal_attention", "use_temporal_resblock")
    config = {key: value for key, value in unet_config().items() if key not in left_out}
    made = comfy.cldm.cldm.ControlNet(
        **config, hint_channels=3, dtype=torch.float32, device=CPU, operations=comfy.ops.disable_weight_init
    )
    made.load_state_dict(random_weights(made, 0.5))
    return comfy.controlnet.ControlNet(made.eval().requires_grad_(False), load_device=CPU, manual_cast_dtype=None)


def _control_net(node_id: str, strength: float = 1.0) -> Callable[..., Any]:
    def place(onto: ModelPatcher, positive: Conditioning, negative: Conditioning) -> Any:
        net, picture = control_net().copy(), PICTURE
        return onto, *call(
            node_id, positive=positive, negative=negative, control_net=net, image=picture,
            strength=strength, start_percent=0.0, end_percent=1.0,
        )[:2]  # fmt: skip

    return place


def _tiled(method: str) -> Callable[[ModelPatcher], ModelPatcher]:
    return lambda onto: call("TiledDiffusion", onto, method, 96, 96, 32, 4)[0]


@cache
def _ic_light_file() -> str:
    """Write the file of an IC-Light for the small U-Net: random weights that its first layer gets beside its own."""
    folder = Path(folder_paths.models_dir) / "unet"
    folder.mkdir(parents=True, exist_ok=True)
    weight = model().model.diffusion_model.state_dict()["input_blocks.0.0.weight"]
    more = torch.randn(len(weight), 8, *weight.shape[2:], generator=torch.Generator().manual_seed(0))
    save_file({"input_blocks.0.0.weight": more * weight.std() / 2}, folder / "ic_light.safetensors")
    return "ic_light.safetensors"


def _ic_light(onto: ModelPatcher, positive: Conditioning, negative: Conditioning) -> Any:
    foreground = {"samples": torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))}
    prompts = call("ICLightConditioning", positive, negative, vae(), foreground, 0.18215)[:2]
    return call("LoadAndApplyICLightUnet", onto, _ic_light_file())[0], *prompts


def _inpaint(onto: ModelPatcher, positive: Conditioning, negative: Conditioning) -> Any:
    positive, negative, _ = call(
        "InpaintModelConditioning", positive, negative, PICTURE, vae(), MASK, noise_mask=False
    )  # fmt: skip
    return onto, positive, negative


def _noise_mask(way: Way) -> Iterator[Check]:
    start = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, 16, 16)
    mask[..., 8:] = 1.0
    latent = {"samples": start, "noise_mask": mask}
    drawn = draw(way.on(model()), prompt("pos0"), prompt("neg0"), latent=dict(latent))
    yield Check("findings", len(findings()), most=0)
    yield Check("layers", reports[-1].acted, LAYERS, LAYERS)
    yield Check("outside of the mask", difference(drawn[..., :8], start[..., :8]), most=SAME)
    for name, other in (
        ("SUN", draw(way.off(model()), prompt("pos0"), prompt("neg0"), latent=dict(latent))),
        ("negatives", draw(way.on(model()), prompt("pos0"), prompt("neg1"), latent=dict(latent))),
    ):
        yield Check(name, difference(other[..., 8:], drawn[..., 8:]), least=ACTS)


def _row(name: str, measure: Callable[[Way], Iterator[Check]], order: str, test: str) -> list[Row]:
    return [
        Row(name, order, lambda: measure(SPEED_UP), test),
        Row(name, order, lambda: measure(NEGATIVE), test, "negative"),
    ]


def _advanced(way: Way) -> Iterator[Check]:
    node = _control_net("ACN_AdvancedControlNetApply_v2")
    yield from acting(way, node)
    ours, core = (
        draw(way.on(model()), *_control_net(name)(model(), prompt("pos0"), prompt("neg0"))[1:])
        for name in ("ACN_AdvancedControlNetApply_v2", "ControlNetApplyAdvanced")
    )
    yield Check("from ComfyUI's ControlNet", difference(ours, core), most=SAME)


ON_PROMPT = "on the prompt"
ROWS = {
    CORE: [
        *_row(
            "ControlNet", lambda way: acting(way, _control_net("ControlNetApplyAdvanced")),
            ON_PROMPT, "test_core_nodes.py",
        ),
        *_row(
            "Inpainting with 9 channels", lambda way: acting(way, _inpaint, lambda: inpaint_model().clone()),
            ON_PROMPT, "test_core_nodes.py",
        ),
        *_row("Noise mask", _noise_mask, "", "test_core_nodes.py"),
    ],
    "ComfyUI-Advanced-ControlNet": _row("Advanced ControlNet", _advanced, ON_PROMPT, "test_core_nodes.py"),
    "ComfyUI-IC-Light": in_both_nodes("IC-Light", _ic_light, "test_core_nodes.py"),
    "ComfyUI-TiledDiffusion": [
        row
        for method in ("MultiDiffusion", "Mixture of Diffusers")
        for row in in_both_nodes(f"Tiled Diffusion, {method}", on_model(_tiled(method)), "test_neighbours.py")
    ],
}  # fmt: skip
