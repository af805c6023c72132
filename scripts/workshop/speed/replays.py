"""Find out why CUDA graphs replay wrongly with the cudaMallocAsync allocator, on an NVIDIA GPU.

    python -m scripts.workshop.speed.replays                all ways, each in a process of its own
    python -m scripts.workshop.speed.replays --way WAY      one of them
    python -m scripts.workshop.speed.replays --full-size    SD1.5 in fp16 instead of a small U-Net

Run it from the root of the repository, with ComfyUI's Python, its folder as COMFYUI_PATH, and PYTHONPATH=tools:demo.
Two forwards of different batch sizes are captured and replayed at other steps, then the first graph is freed. Each line
says how far a replay is from the eager forward; 0 means the same bits. docs/capture.md says what each way would show.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from ..comfyui import start_comfyui
from .memory_management import prepare_memory_management, start_dynamic_vram


@dataclass(frozen=True)
class Way:
    """How graphs are captured."""

    allocator: str
    triton: bool = False
    """Whether SUN's fused kernels run, in the eager forward and in the graph."""
    warm_up: bool = True
    """Whether the forward runs once on the stream that captures, before it does, if memory is cudaMallocAsync's."""


WAYS = {
    "native": Way("native", triton=True),
    "native-no-triton": Way("native"),
    "async": Way("cudaMallocAsync", triton=True),
    "async-no-triton": Way("cudaMallocAsync"),
    "async-cold": Way("cudaMallocAsync", triton=True, warm_up=False),
    "async-cold-no-triton": Way("cudaMallocAsync", warm_up=False),
}


def main() -> int:
    """Try one way, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--full-size", action="store_true")
    options = parser.parse_args()
    if options.way:
        return try_way(WAYS[options.way], options.full_size)
    for way in WAYS:
        print(f"== {way}", flush=True)
        command = [sys.executable, "-m", "scripts.workshop.speed.replays", "--way", way]
        subprocess.run(command + ["--full-size"] * options.full_size, check=False)
    return 0


def try_way(way: Way, full_size: bool) -> int:
    """Capture and replay in one way; print how far each replay is from the eager forward."""
    os.environ["PYTORCH_CUDA_ALLOC_CONF"] = f"backend:{way.allocator}"
    prepare_memory_management()
    start_comfyui()
    import torch

    from sun_core import forward
    from sun_core.adapter import SunAdapter
    from sun_core.apply import SunSettings, apply_sun
    from sun_core.capture import Replays

    from .random_models import TINY_UNET, Sampler, full_size_model, random_weights, tiny_model

    if not torch.cuda.is_available():
        print("This needs an NVIDIA GPU.")
        return 1
    weights = random_weights() if full_size else {}
    tiny = tiny_model()
    dynamic_vram = start_dynamic_vram()
    plain = full_size_model(weights) if full_size else tiny
    print(f"torch {torch.__version__}, {torch.cuda.get_allocator_backend()}, dynamic VRAM {dynamic_vram}")
    if not way.triton:
        vars(forward)["can_fuse"] = lambda *_: False
    with torch.inference_mode():
        sun = apply_sun(plain, SunAdapter.for_unet(plain.model.diffusion_model).requires_grad_(False), SunSettings())
        context_dim = 768 if full_size else TINY_UNET["context_dim"]
        trial = Trial(way)
        with patch.object(Replays, "__call__", lambda replays, evaluation: trial.evaluate(replays, evaluation)):
            for batch in (1, 2, 1, 2):
                Sampler(16, batch, context_dim)(sun, 4, 1.0)
            trial.free_first()
            Sampler(16, 2, context_dim)(sun, 4, 1.0)
    return 0


class Trial:
    """Captures each forward of a new batch size in its second step, and replays it in all later ones."""

    def __init__(self, way: Way):
        self.way = way
        self.graphs: dict[Any, Any] = {}
        self.steps: dict[int, int] = {}

    def evaluate(self, replays: Any, evaluation: Any) -> Any:
        """Evaluate eagerly, and compare."""
        from sun_core.resident_weights import pinned, resident_weights

        self.graphs = replays.captures.kept
        eager = evaluation.eager()
        batch = len(eager)
        self.steps[batch] = self.steps.get(batch, 0) + 1
        weights = resident_weights(replays.model.model.diffusion_model, eager.device)
        with pinned(weights.block) as signature:
            if signature is None:
                print("weights are still being loaded")
            elif self.steps[batch] == 2:
                self.capture(replays.captures, evaluation, weights, signature, eager)
            if batch in self.graphs:
                for turn in ("first", "second"):
                    self.compare(f"batch {batch}, step {self.steps[batch]}, {turn}", evaluation, eager)
        return eager

    def capture(self, captures: Any, evaluation: Any, weights: Any, signature: bytes, eager: Any) -> None:
        """Capture an evaluation in the way that is tried."""
        from sun_core.graphs import CapturedForward

        place = captures.place(eager.device)
        place.is_async &= self.way.warm_up
        captures.keep(len(eager), CapturedForward(evaluation, weights, signature, eager, place))

    def compare(self, name: str, evaluation: Any, eager: Any) -> None:
        """Print how far a replay is from the eager forward."""
        captured = self.graphs[len(eager)]
        replayed = captured.replay(evaluation.inputs, evaluation.sun)
        difference = float((replayed.float() - eager.float()).norm() / eager.float().norm())
        print(f"{name}: {difference:.3g}{'' if replayed.isfinite().all() else ', not finite'}", flush=True)

    def free_first(self) -> None:
        """Free the graph of the first batch size."""
        self.graphs.pop(1).free()
        print("the graph of batch 1 is freed")


if __name__ == "__main__":
    sys.exit(main())
