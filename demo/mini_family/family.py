"""The mini family in ComfyUI's terms: how its checkpoints are recognised, and its text encoder.

A mini checkpoint has Stable Diffusion's layout throughout: an LDM U-Net under `model.diffusion_model.`, a CLIP text
model under `cond_stage_model.`, an autoencoder in TAESD's layout under `first_stage_model.`; eps prediction on SD's
noise schedule. The file's autoencoder is narrower than TAESD: the channels that would be zero are added on loading.
"""

import re
from typing import ClassVar

import comfy.clip_model
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH = 64  # of the text encoder = the U-Net's context_dim

UNET_CONFIG = {
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "channel_mult": [1, 2],
    "num_res_blocks": [1, 1],
    "transformer_depth": [1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1],
    "context_dim": WIDTH,
    "num_heads": 4,
    "num_head_channels": -1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "legacy": False,
    "image_size": 32,
}

START, END, UNKNOWN = 0, 1, 2
WORDS = """
<start> <end> <unknown> , a an the of in at on and with picture
house boat fish rocket mushroom tree cat
red orange yellow green blue purple pink
meadow night sunset snow desert
""".split()


class Vocabulary:
    """A tokenizer of whole words, in the shape of a transformers tokenizer; words it does not know share one token."""

    def __init__(self) -> None:
        self.ids = {word: i for i, word in enumerate(WORDS)}

    @classmethod
    def from_pretrained(cls, path: str, **kwargs: object) -> "Vocabulary":
        """Make a vocabulary as SDTokenizer asks for it; there is nothing to load."""
        return cls()

    def get_vocab(self) -> dict[str, int]:
        return self.ids

    def __call__(self, text: str) -> dict[str, list[int]]:
        words = re.findall(r"[^\W_]+|,", text.lower())
        return {"input_ids": [START, *(self.ids.get(word, UNKNOWN) for word in words), END]}


class MiniSDTokenizer(comfy.sd1_clip.SDTokenizer):
    def __init__(self, embedding_directory: str | None = None, tokenizer_data: dict = {}):  # noqa: B006 core's signature
        super().__init__(
            embedding_directory=embedding_directory,
            embedding_size=WIDTH,
            tokenizer_class=Vocabulary,
            tokenizer_data=tokenizer_data,
        )


class MiniTokenizer(comfy.sd1_clip.SD1Tokenizer):
    def __init__(self, embedding_directory: str | None = None, tokenizer_data: dict = {}):  # noqa: B006 core's signature
        super().__init__(embedding_directory, tokenizer_data, tokenizer=MiniSDTokenizer)


TEXT_CONFIG = {
    "num_hidden_layers": 2,
    "hidden_size": WIDTH,
    "num_attention_heads": 4,
    "intermediate_size": 4 * WIDTH,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "eos_token_id": END,
}


class MiniTextModel(comfy.clip_model.CLIPTextModel):
    """CLIP's text model with an embedding table as small as the vocabulary."""

    def __init__(self, config_dict: dict, dtype: torch.dtype | None, device: torch.device | None, operations: type):
        super().__init__(config_dict, dtype, device, operations)
        self.text_model.embeddings = comfy.clip_model.CLIPEmbeddings(
            WIDTH, vocab_size=len(WORDS), dtype=dtype, device=device, operations=operations
        )


class MiniSDClipModel(comfy.sd1_clip.SDClipModel):
    def __init__(self, device: str = "cpu", dtype: torch.dtype | None = None, model_options: dict = {}):  # noqa: B006
        super().__init__(
            device=device,
            dtype=dtype,
            textmodel_json_config=dict(TEXT_CONFIG),
            model_class=MiniTextModel,
            special_tokens={"start": START, "end": END, "pad": END},
            return_projected_pooled=False,
            model_options=model_options,
        )


class MiniClipModel(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, device: str = "cpu", dtype: torch.dtype | None = None, model_options: dict = {}):  # noqa: B006
        super().__init__(device=device, dtype=dtype, model_options=model_options, clip_model=MiniSDClipModel)


TAESD_WIDTH = 64
PICTURE_AND_LATENT_CHANNELS = (3, 4)


def widened(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pad a narrow autoencoder with zero channels to TAESD's width: they read nothing, write nothing and stay 0."""
    out = {}
    for name, value in state_dict.items():
        padding: list[int] = []  # from the last dimension to the first
        for dimension in reversed(range(value.ndim)):
            channels = value.shape[dimension]
            grows = dimension < 2 and channels not in PICTURE_AND_LATENT_CHANNELS
            padding += [0, TAESD_WIDTH - channels if grows else 0]
        out[name] = F.pad(value, padding) if padding else value
    return out


class MiniSD(comfy.supported_models.SD15):
    """Recognised by its context and channel widths, as core recognises SD1.5."""

    unet_config: ClassVar[dict] = {
        "context_dim": WIDTH,
        "model_channels": UNET_CONFIG["model_channels"],
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
    }
    unet_extra_config: ClassVar[dict] = {"num_heads": UNET_CONFIG["num_heads"], "num_head_channels": -1}

    def process_vae_state_dict(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Fit the autoencoder's weights to the network that core builds."""
        return widened(state_dict)

    def clip_target(self, state_dict: dict = {}) -> comfy.supported_models_base.ClipTarget:  # noqa: B006
        return comfy.supported_models_base.ClipTarget(MiniTokenizer, MiniClipModel)
