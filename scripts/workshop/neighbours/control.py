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
from .packs import call, module_of
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


@cache
def _fooocus_patch() -> tuple[torch.nn.Module, dict[str, Any]]:
    """Make Fooocus' inpainting for the small U-Net: a first layer beside its own, and weights in 8 bits."""
    pack = module_of("comfyui-inpaint-nodes", "nodes")
    generator = torch.Generator().manual_seed(0)
    weights = model().model.state_dict()
    channels = len(weights["diffusion_model.input_blocks.0.0.weight"])
    head = pack.InpaintHead()
    head.head = torch.nn.Parameter(0.3 * torch.randn(channels, 5, 3, 3, generator=generator), requires_grad=False)
    bounds = torch.tensor([-0.2]), torch.tensor([0.2])
    return head, {
        key: (torch.randint(0, 256, weight.shape, generator=generator, dtype=torch.uint8), *bounds)
        for key, weight in weights.items()
        if key.endswith(("attn2.to_k.weight", "attn2.to_v.weight", "in_layers.2.weight"))
    }


def _fooocus(onto: ModelPatcher) -> ModelPatcher:
    latent = {
        "samples": torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1)),
        "noise_mask": MASK[None],
    }
    return call("INPAINT_ApplyFooocusInpaint", model=onto, patch=_fooocus_patch(), latent=latent)[0]


def _inpaint_conditioning(onto: ModelPatcher, positive: Conditioning, negative: Conditioning) -> Any:
    inputs = {"positive": positive, "negative": negative, "vae": vae(), "pixels": PICTURE, "mask": MASK}
    return onto, *call("INPAINT_VAEEncodeInpaintConditioning", **inputs)[:2]


@cache
def _lllite_file() -> str:
    """Write the file of an LLLite for the small U-Net: random weights, beside the layers that make queries."""
    pack = module_of("ControlNet-LLLite-ComfyUI", "node_control_net_lllite")
    made: dict[str, torch.Tensor] = {}
    for key, weight in model().model.diffusion_model.state_dict().items():
        block, number = key.split("_")[0], int(key.split(".")[1])
        if key.endswith(("attn1.to_q.weight", "attn2.to_q.weight")) and block != "middle":
            name = f"lllite_unet_{key.removesuffix('.weight').replace('.', '_')}"
            depth = 1 + number // 3 if block == "input" else 4 - number // 3  # how small the layer's picture is
            module = pack.LLLiteModule(name, False, weight.shape[1], depth, 8, 16, 1.0, 0, 0, 0)
            made |= {f"{name}.{key}": value for key, value in random_weights(module).items()}
    file = Path(folder_paths.base_path) / "lllite.safetensors"
    save_file(made, file)
    return str(file)


def _lllite(onto: ModelPatcher) -> ModelPatcher:
    return call("LLLiteLoader", onto, _lllite_file(), PICTURE, 1.0, 0, 0.0, 0.0)[0]


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
    "comfyui-inpaint-nodes": [
        *in_both_nodes("Apply Fooocus Inpaint", on_model(_fooocus)),
        *_row(
            "VAE Encode & Inpaint Conditioning",
            lambda way: acting(way, _inpaint_conditioning, lambda: inpaint_model().clone()),
            ON_PROMPT, "test_core_nodes.py",
        ),
    ],
    "ControlNet-LLLite-ComfyUI": in_both_nodes("Load LLLite", on_model(_lllite)),
    "ComfyUI-TiledDiffusion": [
        row
        for method in ("MultiDiffusion", "Mixture of Diffusers")
        for row in in_both_nodes(f"Tiled Diffusion, {method}", on_model(_tiled(method)), "test_neighbours.py")
    ],
}  # fmt: skip
