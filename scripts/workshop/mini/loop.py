"""The optimisation loop that all stages of the mini family share: data-parallel processes, EMA, resumable checkpoints.

On small CPUs one single-threaded process per core is faster than one process with several threads, so a stage runs in
two processes and averages gradients over gloo.
"""

import os
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from sun_core.training.trainer import learning_rate_at

# glibc gives large blocks back to the system at once; keeping them makes convolutions on a CPU several times faster
FAST_ON_A_CPU = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
"""The environment variables of each process."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage learns; warm-up and decay are those of the product's training."""

    steps: int
    learning_rate: float
    warmup: int = 200
    ema: float = 0.995
    weight_decay: float = 0.0
    save_every: int = 250


def launch(stage: Callable[..., None], *args: object, processes: int) -> None:
    """Run `stage(*args)` in so many processes that form one gloo group."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    os.environ.update(FAST_ON_A_CPU, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    mp.start_processes(_worker, (processes, stage, args), nprocs=processes, start_method="spawn")


def _worker(rank: int, processes: int, stage: Callable[..., None], args: tuple[object, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=processes)
    stage(*args)
    dist.destroy_process_group()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """All-reduce every gradient in one flat tensor."""
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for g, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        g.copy_(part.view_as(g))


def save_atomically(state: object, path: Path) -> None:
    """Write beside the target and rename, so that no moment leaves a half-written file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def optimise(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    schedule: Schedule,
    checkpoint: Path,
    after_step: Callable[[int], None] = lambda step: None,
    after_resume: Callable[[], None] = lambda: None,
) -> dict[str, Tensor]:
    """Minimise `loss(step)` over the trainable parameters of `model`; resumes from `checkpoint` where it exists.

    `loss` must draw its data from a generator seeded by the step (and the rank), so that a resumed run sees the same
    data.

    Returns:
        the exponential moving average of the trainable parameters and buffers' names, as a state dict.
    """  # fmt: skip
    params = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(
        params.values(), lr=schedule.learning_rate, betas=(0.9, 0.99), weight_decay=schedule.weight_decay, fused=True
    )
    ema = {n: p.detach().clone() for n, p in params.items()}
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        first, ema = saved["step"], saved["ema"]
        model.load_state_dict(saved["model"], strict=False)
        optimiser.load_state_dict(saved["optimiser"])
        after_resume()
    for p in params.values():
        dist.broadcast(p.data, 0)
    running, since = None, time.monotonic()
    for step in range(first, schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(step, schedule)
        optimiser.zero_grad()
        value = loss(step)
        value.backward()
        average_gradients(params.values())
        nn.utils.clip_grad_norm_(params.values(), 1.0)
        optimiser.step()
        decay = min(schedule.ema, (1 + step) / (10 + step))
        for n, p in params.items():
            ema[n].lerp_(p.detach(), 1 - decay)
        after_step(step)
        running = value.item() if running is None else 0.98 * running + 0.02 * value.item()
        done = step + 1
        if dist.get_rank() == 0 and (done % schedule.save_every == 0 or done == schedule.steps):
            state = {"step": done, "ema": ema, "model": params_of(model), "optimiser": optimiser.state_dict()}
            save_atomically(state, checkpoint)
            rate = (done - first) / (time.monotonic() - since)
            print(
                f"{checkpoint.stem}: step {done}/{schedule.steps}  loss {running:.5f}  {rate:.2f} steps/s", flush=True
            )
    return ema


def params_of(model: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters, detached."""
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}


def stage_seed(step: int, salt: int) -> int:
    """A seed that differs by step, stage and process."""
    return (step * 1_000_003 + salt * 7919 + dist.get_rank() * 104_729) % (2**31)
