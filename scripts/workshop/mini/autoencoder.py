"""The autoencoder, in TAESD's layout, trained on pictures of free styles and colours.

Narrower than TAESD's 64 channels (widths below); the mini family's pack adds zero channels when ComfyUI loads it.
"""

import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .drawing import free_style, render
from .loop import averaged, optimize, schedule, stage_seed
from .world import Scene, complete

WIDTHS = (16, 32, 48, 64)  # channels at 1, 1/2, 1/4 and 1/8 of the picture's size
CROP, BATCH = 64, 4  # pixels; crops per process and step
SCHEDULE = schedule(steps=2300, learning_rate=2e-3, warmup=100, ema=0.99)
SHARPEN_SCHEDULE = schedule(steps=900, learning_rate=1e-3, warmup=50, ema=0.98)
HINT_STEPS = 500
LATENT_MEAN, LATENT_STD = 0.58, 0.78  # of storybook pictures' latents; the U-Net sees (latents - mean) / std
LATENT_NOISE = 0.06  # added to latents while training, so that a denoiser's small errors stay invisible


class Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class Block(nn.Module):
    """TAESD's residual block."""

    def __init__(self, width: int):
        super().__init__()
        convs = [nn.Conv2d(width, width, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2])
        self.fuse = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(self.conv(x) + x)


class Autoencoder(nn.Module):
    """Encoder: pictures in 0..1 (n, 3, h, w) -> latents (n, 4, h/8, w/8); decoder: the way back."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = WIDTHS

        def down(n: int, m: int) -> list[nn.Module]:
            return [nn.Conv2d(n, m, 3, stride=2, padding=1, bias=False), *(Block(m) for _ in range(3))]

        def up(n: int, m: int, blocks: int) -> list[nn.Module]:
            return [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(n, m, 3, padding=1, bias=False),
                *(Block(m) for _ in range(blocks)),
            ]

        self.taesd_encoder = nn.Sequential(
            nn.Conv2d(3, a, 3, padding=1),
            Block(a),
            *down(a, b),
            *down(b, c),
            *down(c, d),
            nn.Conv2d(d, 4, 3, padding=1),
        )
        self.taesd_decoder = nn.Sequential(
            Clamp(), nn.Conv2d(4, d, 3, padding=1), nn.ReLU(), Block(d), Block(d), Block(d),
            *up(d, c, 3), *up(c, b, 3), *up(b, a, 1), nn.Conv2d(a, 3, 3, padding=1),
        )  # fmt: skip
        self.apply(self._initialise)

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        """Use He initialisation, and blocks that start as the identity: without it colour fades on the way through."""
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, Block):
            last = module.conv[4]
            assert isinstance(last, nn.Conv2d)
            nn.init.zeros_(last.weight)


def free_pictures(rng: random.Random, count: int) -> Tensor:
    """Draw crops (count, 3, CROP, CROP) in 0..1 of pictures in free styles, half with the subject in a free colour."""
    crops = []
    for _ in range(count):
        scene = complete(Scene(None, None, None), rng)
        is_free = rng.random() < 0.5
        colour = tuple(rng.randrange(256) for _ in range(3)) if is_free else None
        picture = render(scene, free_style(rng), rng, colour)
        y, x = rng.randrange(picture.shape[0] - CROP + 1), rng.randrange(picture.shape[1] - CROP + 1)
        crops.append(picture[y : y + CROP, x : x + CROP])
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255


def reconstruction_loss(model: Autoencoder, pictures: Tensor, step: int) -> Tensor:
    """Add L1 on pixels, on their differences (outlines) and on 8x8 means (colour), and a pull on the latents' moments.

    In the first steps three latent channels learn to be the picture's own small version: without that hint the network
    takes long to find colour at all.
    """
    latents = model.taesd_encoder(pictures)
    out = model.taesd_decoder(latents + LATENT_NOISE * torch.randn_like(latents))
    error = out - pictures
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    colour = F.avg_pool2d(error, 8).abs().mean()
    moments = latents.mean((0, 2, 3)).square().mean() + (latents.std((0, 2, 3)) - 1).square().mean()
    hint = (latents[:, :3] - 3.5 * (F.avg_pool2d(pictures, 8) - 0.5)).square().mean()
    fading = max(0.0, 1 - step / HINT_STEPS)
    return error.abs().mean() + 0.5 * edges + 2 * colour + 0.02 * moments + 0.5 * fading * hint


def channels_last(model: Autoencoder) -> Autoencoder:
    """Bring weights to the memory layout in which convolutions on a CPU are fastest."""
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in its types


def train(checkpoint: Path) -> None:
    """Train encoder and decoder."""
    torch.manual_seed(0)
    model = channels_last(Autoencoder())
    optimize(model, lambda step: reconstruction_loss(model, crops(step), step), SCHEDULE, checkpoint)


def sharpen(start: Path, checkpoint: Path) -> None:
    """Train the decoder further, alone: latents stay as they are, so a U-Net that was trained on them stays valid."""
    model = channels_last(load(start).train())
    model.taesd_encoder.requires_grad_(False)
    salt = SCHEDULE.steps  # pictures that the first stage did not see
    optimize(
        model, lambda step: reconstruction_loss(model, crops(salt + step), salt + step), SHARPEN_SCHEDULE, checkpoint
    )


def crops(step: int) -> Tensor:
    """Draw the training pictures of a step."""
    seed = stage_seed(step, salt=1)
    torch.manual_seed(seed)
    return free_pictures(random.Random(seed), BATCH).contiguous(memory_format=torch.channels_last)


def load(checkpoint: Path, decoder: Path | None = None) -> Autoencoder:
    """Load the averaged weights of a stage, with the decoder of a later one if it exists."""
    model = Autoencoder()
    model.load_state_dict(averaged(checkpoint))
    if decoder and decoder.exists():
        model.load_state_dict(averaged(decoder), strict=False)
    return model.eval()
