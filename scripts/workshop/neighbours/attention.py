"""Packs that add pictures to the prompt, or guide attention by another prompt."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import comfy.model_patcher
import torch
from torch import Tensor

from .packs import call, module_of
from .rows import SAME, Check, Node, Row, both_orders, no_effect, on_model
from .small_model import NEGATIVE, SPEED_UP, difference, draw, findings, model, prompt, sped_up, start, unet_config

PICTURES, TOKENS = 64, 4
"""Width of a picture's embedding, and tokens made of it."""


def _file() -> dict[str, dict[str, Tensor]]:
    """Make the file of an IP-Adapter for the small U-Net, with random weights."""
    generator = torch.Generator().manual_seed(1)
    context = unet_config()["context_dim"]
    layers = [k for k in model().model.diffusion_model.state_dict() if k.endswith("attn2.to_k.weight")]
    weights = {key: model().model.diffusion_model.state_dict()[key] for key in layers}
    order = sorted(layers, key=lambda key: (["input", "output", "middle"].index(key.split("_")[0]), _number(key)))

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / shape[-1] ** 0.5

    kv = {
        f"{2 * index + 1}.to_{part}_ip.weight": random(len(weights[key]), context)
        for index, key in enumerate(order)
        for part in "kv"
    }
    projection = {"proj.weight": random(TOKENS * context, PICTURES), "proj.bias": torch.zeros(TOKENS * context)}
    norm = {"norm.weight": torch.ones(context), "norm.bias": torch.zeros(context)}
    return {"image_proj": projection | norm, "ip_adapter": kv}


def _number(key: str) -> int:
    return int(key.split(".")[1])


def _embedding(seed: int, images: int = 1) -> Tensor:
    return 4 * torch.randn(images, PICTURES, generator=torch.Generator().manual_seed(seed))


def _ip_adapter(images: int = 1, seed: int = 2, unfold: bool = False, **settings: Any) -> Node:
    def place(onto: comfy.model_patcher.ModelPatcher) -> comfy.model_patcher.ModelPatcher:
        execute = module_of("ComfyUI_IPAdapter_plus", "IPAdapterPlus").ipadapter_execute
        embeds = {"pos_embed": _embedding(seed, images), "neg_embed": torch.zeros(images, PICTURES)}
        return execute(onto.clone(), _file(), None, unfold_batch=unfold, **embeds, **settings)[0]

    return on_model(place)


def _stacked() -> Node:
    first, second = _ip_adapter(seed=2), _ip_adapter(seed=3)
    return lambda *placed: second(*first(*placed))


def _nag(scale: float) -> Node:
    return on_model(
        lambda onto: call("NormalizedAttentionGuidance", model=onto, negative=prompt("neg1"), scale=scale)[0]
    )


def _nag_counts_sun_once() -> Iterator[Check]:
    alone = draw(sped_up(model()), prompt("pos0"), prompt("neg0"))
    for name, placed in (
        ("SUN first", _nag(0.0)(sped_up(model()), prompt("pos0"), prompt("neg0"))),
        ("SUN last", (sped_up(_nag(0.0)(model(), [], [])[0]), prompt("pos0"), prompt("neg0"))),
    ):
        yield Check(f"from SUN alone ({name})", difference(draw(*placed), alone), most=SAME)


def _frequency_guidance() -> Iterator[Check]:
    node = on_model(lambda onto: call("FrequencyDecoupledGuidance", model=onto, strength_high=12.0)[0])
    yield from no_effect(SPEED_UP, node, "has no effect")


def _sampler_with_nag(batch: int) -> Iterator[Check]:
    alone = draw(sped_up(model()), prompt("pos0"), prompt("neg0"), batch=batch)
    start()
    (latent,) = call(
        "KSamplerWithNAG",
        model=sped_up(model()), seed=0, steps=4, cfg=1.0, nag_scale=5.0, nag_tau=2.5, nag_alpha=0.25,
        nag_sigma_end=0.0, sampler_name="euler", scheduler="simple", positive=prompt("pos0"),
        negative=prompt("neg0"), nag_negative=prompt("neg1"), latent_image={"samples": torch.zeros(batch, 4, 16, 16)},
    )  # fmt: skip
    yield Check("named", sum("as KSamplerWithNAG does" in finding for finding in findings()), 1, 1)
    yield Check("from SUN alone", difference(latent["samples"], alone), most=SAME)


left_half = torch.zeros(1, 128, 128)
left_half[..., :64] = 1.0

ROWS = {
    "ComfyUI_IPAdapter_plus": [
        Row(
            name, "both", partial(both_orders, SPEED_UP, node, batch=batch), "test_neighbours.py"
        )
        for name, node, batch in (
            ("IP-Adapter, linear", _ip_adapter(), 1),
            ("IP-Adapter, ease in", _ip_adapter(weight_type="ease in"), 1),
            ("IP-Adapter, strong middle", _ip_adapter(weight_type="strong middle"), 1),
            ("IP-Adapter, style transfer precise", _ip_adapter(weight_type="style transfer precise"), 1),
            ("IP-Adapter, mask", _ip_adapter(attn_mask=left_half), 1),
            ("IP-Adapter, K+V", _ip_adapter(embeds_scaling="K+V"), 1),
            ("IP-Adapter, three pictures unfolded", _ip_adapter(3, unfold=True), 3),
            ("IP-Adapter, two stacked", _stacked(), 1),
        )
    ]
    + [
        Row(name, "both", partial(both_orders, NEGATIVE, node), "test_neighbours.py", "negative")
        for name, node in (("IP-Adapter, linear", _ip_adapter()), ("IP-Adapter, two stacked", _stacked()))
    ],
    "sd-perturbed-attention": [
        Row("Normalized Attention Guidance at scale 0", "both", _nag_counts_sun_once, "test_neighbours.py"),
        Row("Frequency-Decoupled Guidance", "both", _frequency_guidance, "test_guidance.py", "no effect"),
    ],
    "ComfyUI-NAG": [
        Row(
            f"KSamplerWithNAG, batch of {batch}", "", partial(_sampler_with_nag, batch),
            "test_findings.py", "no effect",
        )
        for batch in (1, 2)
    ],
}  # fmt: skip
