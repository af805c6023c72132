"""Packs that load the U-Net in a way of their own."""

import tempfile
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

from .packs import module_of
from .rows import ACTS, LAYERS, SAME, Check, Row
from .small_model import (
    NEGATIVE,
    SPEED_UP,
    Way,
    difference,
    draw,
    findings,
    model,
    patcher,
    prompt,
    reports,
    unet_config,
)

PACK = "ComfyUI-GGUF"
BLOCK = 32
"""Numbers that a quantised block holds: rows of other lengths stay in fp32."""


@cache
def _quantised() -> dict[str, Any]:
    """Write the U-Net's weights into a GGUF file, matrices as Q8_0, and load it as the pack does."""
    import gguf

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "unet.gguf"
        writer = gguf.GGUFWriter(file, "sd1")
        for key, weight in model().model.diffusion_model.state_dict().items():
            if weight.ndim == 2 and weight.shape[1] % BLOCK == 0:
                kind = gguf.GGMLQuantizationType.Q8_0
                writer.add_tensor(key, gguf.quants.quantize(weight.numpy(), kind), raw_dtype=kind)
            else:
                writer.add_tensor(key, weight.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return {key: tensor.clone() for key, tensor in module_of(PACK, "loader").gguf_sd_loader(str(file)).items()}


@cache
def _loaded() -> ModelPatcher:
    """Return a MODEL of the pack's own layers and patcher, as its loader makes it of a family that ComfyUI knows."""
    operations = module_of(PACK, "ops").GGMLOps()
    made = patcher(unet_config(), _quantised(), operations=operations)
    return module_of(PACK, "nodes").GGUFModelPatcher.clone(made)


@cache
def _of_same_weights() -> ModelPatcher:
    """Return a MODEL of ComfyUI's own layers with the weights that the file has, quantised and back."""
    dequantise = module_of(PACK, "ops").dequantize_tensor
    shapes = {key: weight.shape for key, weight in model().model.diffusion_model.state_dict().items()}
    weights = {key: torch.Tensor(dequantise(tensor, torch.float32)) for key, tensor in _quantised().items()}
    return patcher(unet_config(), {key: weight.reshape(shapes[key]) for key, weight in weights.items()})


def _as_unquantised(way: Way) -> Iterator[Check]:
    prompts = prompt("pos0"), prompt("neg0")
    drawn = draw(way.on(_loaded().clone()), *prompts)
    yield Check("findings", len(findings()), most=0)
    yield Check("layers", reports[-1].acted, LAYERS, LAYERS)
    yield Check("SUN", difference(draw(way.off(_loaded().clone()), *prompts), drawn), least=ACTS)
    other = draw(way.on(_loaded().clone()), prompt("pos0"), prompt("neg1"))
    yield Check("negatives", difference(other, drawn), least=ACTS)
    same = draw(way.on(_of_same_weights().clone()), *prompts)
    yield Check("from the same weights in fp32", difference(drawn, same), most=SAME)


ROWS = {
    PACK: [
        Row("Unet Loader (GGUF), Q8_0", "before SUN", partial(_as_unquantised, SPEED_UP)),
        Row("Unet Loader (GGUF), Q8_0", "before SUN", partial(_as_unquantised, NEGATIVE), "", "negative"),
    ]
}
