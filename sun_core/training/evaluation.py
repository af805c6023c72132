"""How close the student comes to its teacher on fixed prompts: the sample grid, and figures for the adapter's file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..adapter import SunAdapter
from .prompts import Prompts
from .sampler import TEACHER_STEPS, Sampler

Decode = Callable[[Tensor], Tensor]
"""Latents (rows, channels, height, width) as the U-Net has them -> pictures (rows, height, width, 3) in 0..1."""

CAPTION_HEIGHT = 22


@dataclass
class Evaluation:
    """Draws fixed prompts from fixed noise; the teacher's pictures are drawn once."""

    sampler: Sampler
    prompts: Prompts
    pairs: Sequence[tuple[str, str]]
    guidance: float
    decode: Decode

    def __post_init__(self) -> None:
        self.prompts.encode(text for pair in self.pairs for text in pair)
        seeds = [f"sample {i}" for i in range(len(self.pairs))]
        self._batch = self.sampler.start(list(self.pairs), self.prompts, self.guidance, seeds)
        self._teacher: dict[int, Tensor] = {}

    def teacher(self, steps: int = TEACHER_STEPS) -> Tensor:
        """Draw the teacher's pictures, with CFG, (rows, height, width, 3)."""
        if steps not in self._teacher:
            self._teacher[steps] = self.decode(self.sampler.teacher(self._batch, steps))
        return self._teacher[steps]

    def student(self, adapter: SunAdapter) -> Tensor:
        """Draw the same with `adapter`, which is brought to the U-Net's device."""
        return self.decode(self.sampler.student(self._batch, adapter.to(self._batch.x0.device)))

    def grid(self, adapter: SunAdapter) -> Image.Image:
        """Draw a column per prompt: the teacher's picture above, the student's below."""
        segments = self.sampler.distillation.recipe.segments
        rows = ((f"teacher, {TEACHER_STEPS} steps", self.teacher()), (f"SUN, {segments}", self.student(adapter)))
        height, width = rows[0][1].shape[1:3]
        sheet = Image.new("RGB", (width * len(self.pairs), len(rows) * (height + CAPTION_HEIGHT)), "white")
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
        for row, (title, pictures) in enumerate(rows):
            top = row * (height + CAPTION_HEIGHT)
            draw.text((4, top + 4), title, fill="black", font=font)
            for column, picture in enumerate(pictures):
                pixels = (picture * 255).round().clamp(0, 255).byte().cpu().numpy()
                sheet.paste(Image.fromarray(pixels), (column * width, top + CAPTION_HEIGHT))
        return sheet

    def figures(self, adapter: SunAdapter) -> dict[str, float]:
        """Compute PSNR in dB to the teacher's 25 steps from the same noise.

        It is computed for the student, and for the teacher in as many steps, which takes twice the evaluations.
        """
        segments = self.sampler.distillation.recipe.segments
        return {
            "prompts": len(self.pairs),
            "psnr_to_teacher_25": round(psnr(self.student(adapter), self.teacher()), 2),
            f"psnr_of_teacher_{segments}": round(psnr(self.teacher(segments), self.teacher()), 2),
        }


def psnr(a: Tensor, b: Tensor) -> float:
    """Compute the peak signal-to-noise ratio in dB of pictures in 0..1, averaged over the pictures."""
    error = (a.float() - b.float()).square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
    return float((-10 * torch.log10(error)).mean())
