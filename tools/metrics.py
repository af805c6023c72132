"""Figures of pictures. If one needs a package or a model that is not here, it is left out, and a note says why."""

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sun_core.training.evaluation import psnr

CLIP = "openai/clip-vit-base-patch16"
INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
INCEPTION_HASH = "6726825d"  # the file's sha256 begins so: it is a pickle, and no other one may be opened


class Figures:
    """Compares sets of pictures, (n, 3, height, width) in 0..1, with a reference set of the same prompts."""

    def __init__(self, reference: Tensor, positives: Sequence[str], clip: str | None, inception: Path | None) -> None:
        """Find out what can be measured; `clip` and `inception` say where models lie, if not in their usual place."""
        self.reference, self.positives = reference, list(positives)
        self.notes: list[str] = []
        self._clip_score = self._inception = None
        self._has_torchmetrics = importlib.util.find_spec("torchmetrics") is not None
        if self._has_torchmetrics:
            self._clip_score = self._find_clip(clip)
            self._inception = self._find_inception(inception)
        else:
            self.notes.append(
                "No SSIM, CLIP score or FID: they need the Python packages torchmetrics and torch-fidelity."
            )

    def of(self, pictures: Tensor) -> dict[str, float]:
        """Measure a set; the reference itself has no likeness to measure."""
        found: dict[str, float] = {}
        if pictures is not self.reference:
            found["psnr"] = round(psnr(pictures, self.reference), 2)
            if self._has_torchmetrics:
                found["ssim"] = round(self._ssim(pictures), 4)
            if self._inception:
                found["fid"] = round(self._frechet_inception_distance(pictures, self._inception), 2)
        if self._clip_score:
            found["clip score"] = round(self._clip_similarity(pictures), 2)
        return found

    def _ssim(self, pictures: Tensor) -> float:
        from torchmetrics.functional.image import structural_similarity_index_measure

        similarity = structural_similarity_index_measure(pictures, self.reference, data_range=1.0)
        assert isinstance(similarity, Tensor)
        return float(similarity)

    @torch.inference_mode()
    def _clip_similarity(self, pictures: Tensor) -> float:
        assert self._clip_score is not None
        self._clip_score.reset()
        self._clip_score.update((pictures.clamp(0, 1) * 255).round().to(torch.uint8), self.positives)
        return float(self._clip_score.compute())

    def _frechet_inception_distance(self, pictures: Tensor, weights: Path) -> float:
        from torchmetrics.image.fid import FrechetInceptionDistance

        distance = FrechetInceptionDistance(normalize=True, feature_extractor_weights_path=str(weights))
        distance.update(self.reference.clamp(0, 1), real=True)
        distance.update(pictures.clamp(0, 1), real=False)
        return float(distance.compute())

    def _find_clip(self, folder: str | None) -> Any:
        from torchmetrics.multimodal.clip_score import CLIPScore
        from transformers import CLIPModel, CLIPProcessor

        name = folder or CLIP

        def from_disk() -> tuple[CLIPModel, CLIPProcessor]:
            model = CLIPModel.from_pretrained(name, local_files_only=True)
            return model, CLIPProcessor.from_pretrained(name, local_files_only=True)

        try:
            return CLIPScore(from_disk)
        except (OSError, ValueError):
            where = f"{folder} holds none" if folder else f"there is no copy of {CLIP} in the Hugging Face cache"
            self.notes.append(
                f"No CLIP score: it needs a CLIP model, and {where}; set --clip to a folder with a CLIPModel and its "
                "CLIPProcessor."
            )
            return None

    def _find_inception(self, weights: Path | None) -> Path | None:
        file = weights or Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION
        if not file.is_file():
            self.notes.append(f"No FID: it needs the weights {INCEPTION} of torch-fidelity; set --inception to them.")
        elif not hashlib.sha256(file.read_bytes()).hexdigest().startswith(INCEPTION_HASH):
            self.notes.append(f"No FID: {file} is not torch-fidelity's {INCEPTION}, or was cut short; get it again.")
        elif len(self.reference) < 2:
            self.notes.append("No FID: it needs at least two prompts, and means something from some thousands on.")
        else:
            self.notes.append(f"FID of {len(self.reference)} pictures; it means something from some thousands on.")
            return file
        return None
