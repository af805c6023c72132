"""Distil a SUN adapter for any Stable Diffusion checkpoint: on a CPU, on one GPU, or on several.

    python tools/train.py --checkpoint FILE --data FOLDER --out FOLDER [--config FILE] [--set NAME=VALUE ...]
    python tools/train.py --checkpoint FILE --prompts FILE --out FOLDER  # without pictures
    python tools/train.py ... --dry-run  # memory and time, without training

Run it with the Python that runs ComfyUI. COMFYUI_PATH names another ComfyUI than the one that this pack lies in.
Started again with the same arguments, a run goes on where it was. docs/training.md says what data looks like, which
settings there are, and how to train on several machines.
"""

import argparse
import importlib.util
import logging
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

# ComfyUI's portable Python does not put a command's own folder on the path as other Pythons do.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from comfyui import ComfyUIError, find_comfyui, has_accelerator, start_comfyui
from inputs import InputError, check_files, fail, load_models, read_prompts

if TYPE_CHECKING:  # these need ComfyUI, which starts later
    from sun_core.training.bad_data import BadData
    from sun_core.training.example import Example
    from sun_core.training.session import Session

PREPARATION_LIMIT = timedelta(hours=24)  # how long processes wait for the one that encodes the most


def main() -> int:
    """Train as the command line says; returns the exit status."""
    options = parse()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        check_files((options.checkpoint, options.unet, options.prompts, options.config))
        given = settings(options)
        prompts = read_prompts(options.prompts) if options.prompts else []
        processes = processes_to_launch(options)
        if processes > 1:
            return launch(processes)
        cpu = ("--cpu",) if options.cpu else ()
        start_comfyui(find_comfyui(), ("--use-pytorch-cross-attention", *cpu))
        require_accelerate()
    except (ComfyUIError, InputError) as error:
        return fail(error)
    except KeyboardInterrupt:
        return 130
    from sun_core.errors import SunError

    try:
        train(options, given, prompts)
    except (InputError, SunError) as error:
        return fail(error)
    except KeyboardInterrupt:
        print(f"\nStopped; start again with the same arguments to go on from the last checkpoint in {options.out}.")
        return 130
    return 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="the teacher, with CLIP and VAE")
    parser.add_argument(
        "--unet", type=Path, metavar="FILE", help="a diffusion model to be the teacher instead of the checkpoint's own"
    )
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="captioned pictures, or WebDataset shards (.tar)")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="prompts, one a line, for the teacher to draw")
    parser.add_argument("--pictures", type=int, default=2000, help="how many to draw from --prompts (default 2000)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the folder of the run")
    parser.add_argument("--name", default="sun_adapter", help="name of the adapter's file (default sun_adapter)")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings (YAML or JSON), such as a run's config.yaml"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="one setting; may be repeated")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="for latents and texts (default: in --out)")
    parser.add_argument("--processes", type=int, help="processes on this machine (default: one per GPU)")
    parser.add_argument("--cpu", action="store_true", help="train on the CPU even if there is a GPU")
    parser.add_argument("--dry-run", action="store_true", help="print the memory and time that a run takes, and end")
    options = parser.parse_args()
    if (options.data is None) == (options.prompts is None) and not options.dry_run:
        parser.error("name either --data or --prompts")
    return options


def processes_to_launch(options: argparse.Namespace) -> int:
    """Count the processes to start on this machine: 1 if a launcher (torchrun, accelerate) has started this one."""
    if "RANK" in os.environ:
        return 1
    if options.processes:
        return options.processes
    if options.cpu or importlib.util.find_spec("torch") is None:
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def launch(processes: int) -> int:
    """Run this command in several processes, as torchrun does; returns the exit status."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        torchrun(["--standalone", "--nproc-per-node", str(processes), *sys.argv])
    except ChildFailedError:  # the process has said why
        return 1
    return 0


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Read the settings of --config, changed by those of --set; raises InputError for malformed ones."""
    import yaml

    try:
        values = yaml.safe_load(options.config.read_bytes()) if options.config else {}
    except yaml.YAMLError as error:
        raise InputError(f"{options.config} is neither YAML nor JSON ({' '.join(str(error).split())}).") from error
    if not isinstance(values, dict):
        raise InputError(f"{options.config} holds no settings; it must be a list of names with values.")
    for setting in options.set:
        path, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting} sets nothing; write NAME=VALUE.")
        *groups, name = path.split(".")
        group = values
        for part in groups:
            group = group.setdefault(part, {})
            if not isinstance(group, dict):
                raise InputError(f"--set {setting} is for a group of settings, and {part} was given as {group!r}.")
        try:
            group[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {setting} is not YAML ({' '.join(str(error).split())}).") from error
    return values


def require_accelerate() -> None:
    """Raise ComfyUIError if the one package that training needs is missing."""
    if importlib.util.find_spec("accelerate") is None:
        raise ComfyUIError(
            f"Training needs the Python package accelerate, which is not installed; run '{sys.executable} -m pip "
            "install accelerate' and start again."
        )


def train(options: argparse.Namespace, given: dict[str, Any], prompts: list[str]) -> None:
    """Train with the given settings, or estimate.

    Raises InputError if a file holds no models, and SunError if training has to stop.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import is_tensorboard_available

    from sun_core.training.bad_data import BadData
    from sun_core.training.estimate import estimate
    from sun_core.training.processes import chosen_precision, new_accelerator
    from sun_core.training.run_folder import RunFolder
    from sun_core.training.session import Session, defaults_for_model
    from sun_core.training.tensor_folder import TensorFolder

    on_cpu = options.cpu or not has_accelerator()
    state = PartialState(cpu=on_cpu, timeout=PREPARATION_LIMIT)  # each process takes its own GPU before ComfyUI does
    say = print if state.is_main_process else (lambda *_: None)
    precision = chosen_precision(given.get("precision", "auto"), on_cpu)
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    model, clip, vae = load_models(options.checkpoint, options.unet, dtype)
    config = defaults_for_model(model).with_values(given)
    tracker = {"log_with": "tensorboard"} if is_tensorboard_available() else {}
    accelerator = new_accelerator(config, on_cpu, project_dir=str(options.out), **tracker)
    store = {} if options.dry_run else TensorFolder(options.cache or options.out / "cache")
    folder = RunFolder(options.out, options.name)
    if state.is_main_process and not options.dry_run:
        folder.claim(config)
    state.wait_for_everyone()
    session = Session(model, clip, vae, config, store, accelerator)
    family = session.distillation.adapter.layout.family or "A model"
    say(f"{family} as the teacher, {config.width}x{config.height}, processes: {state.num_processes}")
    if options.dry_run:
        say(estimate(session).describe())
        return
    bad = BadData(stops=config.on_bad_data == "stop")
    examples = make_examples(options, session, prompts, bad, say)
    with session.loaded():
        trainer, evaluation = session.trainer(examples), session.evaluation(examples)
        say(f"Pictures: {len(examples)}, captions: {len(trainer.data.pairs.captions)}")
        adapter = folder.train(trainer, evaluation)
    say(f"The adapter is {adapter}; put it into models/sun.")


def make_examples(
    options: argparse.Namespace, session: "Session", prompts: list[str], bad: "BadData", say: Callable[..., None]
) -> "list[Example]":
    """Encode the pictures of --data, or draw the prompts of --prompts."""
    if options.data:
        examples = session.encode(options.data, bad)
        if bad.found:
            say(f"{len(bad.found)} pictures or captions could not be used and were left out.")
        return examples
    say(f"Drawing {max(options.pictures, len(prompts))} pictures to train on ...")
    return session.draw(prompts, options.pictures)


if __name__ == "__main__":
    sys.exit(main())
