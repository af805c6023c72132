"""Training in several processes: each stage of the mini family and each run of the evidence resumes from a checkpoint.

On small CPUs one single-threaded process per core is faster than one process with several threads, so a stage runs in
two processes, which average their gradients over gloo.
"""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from sun_core.training.config import TrainingConfig
from sun_core.training.processes import new_accelerator
from sun_core.training.training_loop import TrainingLoop

# glibc gives large blocks back to the system at once; keeping them makes convolutions on a CPU several times faster
FAST_ON_A_CPU = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
"""The environment variables of each process."""


def schedule(**settings: Any) -> TrainingConfig:
    """Describe how long and how fast a stage learns; each process adds one batch to an optimizer step."""
    return TrainingConfig(accumulation=1, optimizer="adamw", **settings)


def launch(stage: Callable[..., None], *arguments: object, processes: int) -> None:
    """Run `stage(*arguments)` in processes that form one gloo group."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    os.environ.update(FAST_ON_A_CPU, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(processes))
    mp.start_processes(_work, (processes, stage, arguments), nprocs=processes, start_method="spawn")


def _work(rank: int, processes: int, stage: Callable[..., None], arguments: tuple[object, ...]) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))  # accelerate reads them
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=processes)
    stage(*arguments)
    dist.destroy_process_group()


def save_atomically(state: object, path: Path) -> None:
    """Write beside the target and rename, so that no moment leaves a half-written file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def averaged(checkpoint: Path, prefix: str = "") -> dict[str, Tensor]:
    """Read the averaged weights of a checkpoint whose names begin with `prefix`, without it."""
    weights = torch.load(checkpoint, weights_only=True)["ema"]
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}


def optimize(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    config: TrainingConfig,
    checkpoint: Path,
    after_step: Callable[[], None] = lambda: None,
    after_resume: Callable[[], None] = lambda: None,
) -> None:
    """Minimise `loss(step)` over the trainable parameters of `model`; resume from `checkpoint` if it exists.

    `loss` must draw its data from a generator seeded by `stage_seed`, so that a resumed run sees the same data.
    The checkpoint holds the averaged parameters by name under "ema".
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    loop = TrainingLoop(parameters, config, new_accelerator(config, on_cpu=True))
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"], strict=False)
        loop.load_state_dict(saved)
        after_resume()
    for parameter in parameters.values():
        dist.broadcast(parameter.data, 0)
    first, started, running = loop.done, time.monotonic(), None
    for step in loop.steps(lambda number, _: loss(number), after_step):
        running = step.loss if running is None else 0.98 * running + 0.02 * step.loss
        if dist.get_rank() == 0 and (step.number % config.save_every == 0 or step.number == config.steps):
            trained = {name: parameter.detach() for name, parameter in parameters.items()}
            save_atomically(loop.state_dict() | {"model": trained}, checkpoint)
            rate = (step.number - first) / (time.monotonic() - started)
            progress = f"step {step.number}/{config.steps}  loss {running:.5f}  {rate:.2f} steps/s"
            print(f"{checkpoint.stem}: {progress}", flush=True)


def stage_seed(step: int, salt: int) -> int:
    """Derive a random seed that differs by step, stage and process."""
    return (step * 1_000_003 + salt * 7919 + dist.get_rank() * 104_729) % (2**31)
