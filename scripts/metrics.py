"""Figures of pictures, through torchmetrics. Where one needs a model that is not here it is left out, and says why."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.multimodal.clip_score import CLIPScore

CLIP = "openai/clip-vit-base-patch16"
INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
INCEPTION_HASH = "6726825d"  # the file's sha256 begins so: it is a pickle, and no other one is to be opened


def psnr(pictures: Tensor, reference: Tensor) -> float:
    """Mean over pictures (n, 3, height, width) in 0..1 of the peak signal-to-noise ratio, dB."""
    return float(peak_signal_noise_ratio(pictures, reference, data_range=1.0, dim=(1, 2, 3)))


def ssim(pictures: Tensor, reference: Tensor) -> float:
    """Mean structural similarity of pictures (n, 3, height, width) in 0..1."""
    return float(structural_similarity_index_measure(pictures, reference, data_range=1.0))


def clip_scores(
    pictures: Mapping[str, Tensor], texts: Sequence[str], folder: str | None
) -> tuple[dict[str, float], str | None]:
    """Mean CLIP score of each set of pictures with its prompts; none, and why, where there is no CLIP model."""
    from transformers import CLIPModel, CLIPProcessor

    name = folder or CLIP

    def from_disk() -> tuple[CLIPModel, CLIPProcessor]:
        return tuple(kind.from_pretrained(name, local_files_only=True) for kind in (CLIPModel, CLIPProcessor))

    try:
        score = CLIPScore(from_disk)
    except (OSError, ValueError):
        where = f"{folder} holds none" if folder else f"there is no copy of {CLIP} in the Hugging Face cache"
        return {}, (
            f"No CLIP score: it needs a CLIP model, and {where}; name a folder with a CLIPModel and its CLIPProcessor "
            "by --clip."
        )
    found = {}
    with torch.inference_mode():
        for title, images in pictures.items():
            score.reset()
            score.update((images.clamp(0, 1) * 255).round().to(torch.uint8), list(texts))
            found[title] = float(score.compute())
    return found, None


def frechet_inception_distance(pictures: Tensor, reference: Tensor, weights: Path | None) -> tuple[float | None, str]:
    """FID between two sets of pictures in 0..1, and what to think of it; none, and why, where there are no weights."""
    file = weights or Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION
    if not file.is_file():
        return None, f"No FID: it needs the weights {INCEPTION} of torch-fidelity; name that file by --inception."
    if not hashlib.sha256(file.read_bytes()).hexdigest().startswith(INCEPTION_HASH):
        return None, f"No FID: {file} is not torch-fidelity's {INCEPTION}, or was cut short; get it anew."
    if len(pictures) < 2:
        return None, "No FID: it needs two prompts at the least, and means something from some thousands on."
    distance = FrechetInceptionDistance(normalize=True, feature_extractor_weights_path=str(file))
    distance.update(reference.clamp(0, 1), real=True)
    distance.update(pictures.clamp(0, 1), real=False)
    return float(distance.compute()), f"FID of {len(pictures)} pictures; it means something from some thousands on."
