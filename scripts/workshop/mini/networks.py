"""The mini family's networks, built from ComfyUI's own classes so that what is trained is what ComfyUI runs."""

from typing import Any

import comfy.clip_model
import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from mini_family.family import END, TEXT_CONFIG, UNET_CONFIG, MiniTextModel, Vocabulary
from torch import Tensor, nn

TOKENS = 77


def _clip_layer_forward(self: Any, x: Tensor, mask: Tensor | None = None, optimized_attention: object = None) -> Tensor:
    """Do what CLIPLayer.forward does, without its in-place additions, which autograd refuses."""
    x = x + self.self_attn(self.layer_norm1(x), mask, optimized_attention)
    return x + self.mlp(self.layer_norm2(x))


comfy.clip_model.CLIPLayer.forward = _clip_layer_forward


def initialise(model: nn.Module) -> None:
    """Give every layer torch's default weights: ComfyUI's layers skip that, because it always loads a file."""
    for module in model.modules():
        for kind in (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm):
            if isinstance(module, kind):
                kind.reset_parameters(module)  # type: ignore[arg-type]  # ComfyUI's own method does nothing
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)


def new_unet() -> UNetModel:
    """Make a U-Net that predicts 0."""
    unet = UNetModel(**UNET_CONFIG, dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    initialise(unet)
    for name, module in unet.named_modules():
        if name.endswith(("out_layers.3", "proj_out")) or name == "out.2":
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return unet


def new_text_encoder() -> MiniTextModel:
    """Make an untrained text encoder."""
    text = MiniTextModel(dict(TEXT_CONFIG), torch.float32, torch.device("cpu"), comfy.ops.disable_weight_init)
    initialise(text)
    nn.init.normal_(text.text_model.embeddings.token_embedding.weight, std=0.5)
    return text


def token_ids(texts: list[str], vocabulary: Vocabulary) -> Tensor:
    """Look up ids (n, 77), padded with the end token as SD's tokenizer does."""
    rows = [vocabulary(text)["input_ids"] for text in texts]
    return torch.tensor([row + [END] * (TOKENS - len(row)) for row in rows])


class MiniModel(nn.Module):
    """Text encoder and U-Net, as they are trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.unet, self.text = new_unet(), new_text_encoder()
        self.vocabulary = Vocabulary()

    def encode(self, texts: list[str]) -> Tensor:
        """Encode prompts as contexts (n, 77, width)."""
        return self.text.text_model(token_ids(texts, self.vocabulary))[0]

    def eps(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """Predict the noise in x_t (n, 4, h, w) at timesteps t (n,)."""
        return self.unet(x, t.float(), context=context)
