"""A small network that names subject, colour and place of a picture, trained on drawn pictures in all styles."""

import random
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from .autoencoder import Autoencoder
from .dataset import as_pictures
from .drawing import STYLES, render
from .loop import optimize, schedule, stage_seed
from .world import COLOURS, PLACES, SUBJECTS, Scene, complete

BATCH = 16  # per process
SCHEDULE = schedule(steps=400, learning_rate=2e-3, warmup=50, ema=0.98)
NAMES = (SUBJECTS, tuple(COLOURS), tuple(PLACES))


class Judge(nn.Module):
    """Pictures in 0..1 (n, 3, 96, 96) -> logits of subject, colour and place."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n, m in ((3, 24), (24, 32), (32, 48), (48, 64)):
            layers += [nn.Conv2d(n, m, 3, stride=2, padding=1), nn.GroupNorm(8, m), nn.ReLU()]
        self.body = nn.Sequential(
            *layers, nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 36, 128), nn.ReLU()
        )
        self.heads = nn.ModuleList([nn.Linear(128, len(names)) for names in NAMES])

    def forward(self, pictures: Tensor) -> list[Tensor]:
        features = self.body(pictures * 2 - 1)
        return [head(features) for head in self.heads]

    @torch.inference_mode()
    def name(self, pictures: Tensor) -> list[Scene]:
        """Name what each picture shows."""
        best = [logits.argmax(1).tolist() for logits in self(pictures)]
        return [Scene(*(names[i] for names, i in zip(NAMES, row, strict=True))) for row in zip(*best, strict=True)]


def labels(scenes: list[Scene]) -> list[Tensor]:
    """Look up the numbers of subject, colour and place of scenes, each (n,)."""
    rows = [(NAMES[0].index(s.subject), NAMES[1].index(s.colour), NAMES[2].index(s.place)) for s in scenes]
    return list(torch.tensor(rows).unbind(1))


def train(autoencoder: Autoencoder, checkpoint: Path) -> None:
    """Train on pictures of which half passed through the autoencoder, all with some noise: as the model draws them."""
    torch.manual_seed(0)
    judge = Judge()

    def loss(step: int) -> Tensor:
        seed = stage_seed(step, salt=2)
        torch.manual_seed(seed)
        rng = random.Random(seed)
        scenes = [complete(Scene(None, None, None), rng) for _ in range(BATCH)]
        pictures = as_pictures([render(s, STYLES[rng.choice(list(STYLES))], rng) for s in scenes])
        with torch.inference_mode():
            half = autoencoder.taesd_encoder(pictures[: BATCH // 2])
            seen = autoencoder.taesd_decoder(half + 0.15 * torch.rand(1) * torch.randn_like(half)).clamp(0, 1)
        pictures = torch.cat([seen, pictures[BATCH // 2 :]]) + 0.05 * torch.rand(1) * torch.randn_like(pictures)
        errors = [F.cross_entropy(a, b) for a, b in zip(judge(pictures), labels(scenes), strict=True)]
        return torch.stack(errors).sum()

    optimize(judge, loss, SCHEDULE, checkpoint)


def load(weights: Path) -> Judge:
    """Load the shipped judge, a safetensors file."""
    judge = Judge()
    judge.load_state_dict({key: value.float() for key, value in load_file(weights).items()})
    return judge.eval()
