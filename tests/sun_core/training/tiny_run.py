"""A training run of seconds, for tests and their processes: the mini family at a few pixels, with its own CLIP.

Imported in a fresh process, it loads ComfyUI and the pack by itself (see `server`).
"""

import importlib
import multiprocessing
import multiprocessing.forkserver
import os
import sys
from dataclasses import replace
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).parents[2]
if "sun_pack" not in sys.modules:
    sys.modules["sun_tests"] = package = ModuleType("sun_tests")
    package.__path__ = [str(TESTS)]
    importlib.import_module("sun_tests.conftest").load()

import comfy.sd  # noqa: E402
import mini_family  # noqa: E402, F401  (registers the family)
import torch  # noqa: E402
from sun_pack.sun_core.training.config import TrainingConfig  # noqa: E402
from sun_pack.sun_core.training.example import Example  # noqa: E402
from sun_pack.sun_core.training.processes import new_accelerator  # noqa: E402
from sun_pack.sun_core.training.prompt_pairs import PromptPairs  # noqa: E402
from sun_pack.sun_core.training.prompts import Prompts, TextEncoder  # noqa: E402
from sun_pack.sun_core.training.run_folder import RunFolder  # noqa: E402
from sun_pack.sun_core.training.session import Session  # noqa: E402
from sun_pack.sun_core.training.trainer import Trainer  # noqa: E402

CHECKPOINT = TESTS.parent / "demo" / "mini_family" / "weights" / "mini-storybook.safetensors"
CAPTIONS = ("a red cat, night", "a blue boat, snow", "a pink mushroom, sunset", "a green fish, desert")
SIZE = 16  # pixels
CONFIG = TrainingConfig(
    steps=6, batch_size=2, accumulation=1, learning_rate=1e-3, warmup=2, width=SIZE, height=SIZE, guidance=(2.0, 4.0),
    negative_prompts=("purple",), save_every=1, sample_every=0,
)  # fmt: skip


@cache
def mini():
    """Load (MODEL, CLIP, VAE), and make the store with random latents."""
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT))
    generator = torch.Generator().manual_seed(0)
    store = {f"latent {i}": {"latent": torch.randn(4, SIZE // 8, SIZE // 8, generator=generator)} for i in range(4)}
    return model, clip, vae, store


def tiny_session(config: TrainingConfig = CONFIG, **accelerator) -> Session:
    model, clip, _, store = mini()
    return Session(model, clip, None, config, store, new_accelerator(config, on_cpu=True, **accelerator))


def tiny_trainer(config: TrainingConfig = CONFIG, **accelerator) -> Trainer:
    examples = [Example(f"latent {i}", caption) for i, caption in enumerate(CAPTIONS)]
    return tiny_session(config, **accelerator).trainer(examples)


def prepare() -> None:
    """Encode the texts of a run; accelerate is left alone, since it looks once at how its process was launched."""
    torch.set_num_threads(1)  # a forked process cannot use its parent's threads
    model, clip, _, store = mini()
    encoder = TextEncoder(clip, model.model, (SIZE // 8, SIZE // 8))
    Prompts(encoder, store).encode(PromptPairs(CAPTIONS, CONFIG.negatives, CONFIG.negative_prompts).texts())


def train_to_the_end(folder: Path) -> None:
    """Train as tools/train.py does; in a process of its own, which may be killed."""
    torch.set_num_threads(1)
    run = RunFolder(folder, "adapter")
    run.claim(CONFIG)
    run.train(tiny_trainer(project_dir=str(folder), log_with="tensorboard"), None)


def train_as_one_of_two(rank: int, port: int, folder: Path) -> None:
    """Train as tools/train.py does, in one of two data-parallel processes."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    trainer = tiny_trainer(replace(CONFIG, steps=3))
    assert trainer.accelerator.num_processes == 2
    RunFolder(folder, "adapter").train(trainer, None)


def server() -> ForkServerContext:
    """Start processes by forking one that has imported this module and loaded the models."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tiny_run_preload"])
    paths = os.environ.get("PYTHONPATH")
    ours = (TESTS / "sun_core" / "training", TESTS.parent / "tools", TESTS.parent / "demo")  # as in pyproject.toml
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (*map(str, ours), paths)))
    try:
        multiprocessing.forkserver.ensure_running()  # it does not inherit our sys.path, and looks for the module there
    finally:
        os.environ.pop("PYTHONPATH") if paths is None else os.environ.update(PYTHONPATH=paths)
    return context
