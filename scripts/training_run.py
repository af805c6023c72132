"""What train.py does beside ComfyUI's packages: load the teacher, make the data, train."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import cycle, islice
from typing import Any

import environment

PREPARATION_LIMIT = timedelta(hours=24)  # how long processes wait for the one that encodes the most


def import_comfyui(on_cpu: bool) -> None:
    """ComfyUI first on the path, the repository last: both have a top-level `nodes`."""
    import torch

    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    sys.argv = [sys.argv[0], "--use-pytorch-cross-attention", *(["--cpu"] if on_cpu or not has_gpu else [])]
    sys.path.insert(0, str(environment.comfyui_path()))
    sys.path += [str(environment.REPOSITORY), str(environment.REPOSITORY / "demo")]
    import comfy.options

    comfy.options.enable_args_parsing()
    import mini_family  # noqa: F401  (so that its checkpoint is known)


def main(chosen: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    import_comfyui(chosen.cpu)
    from sun_core.errors import SunError

    try:
        run(chosen)
    except SunError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nStopped; start again with the same arguments to go on from the last checkpoint in {chosen.out}.")
        return 130
    return 0


def run(chosen: argparse.Namespace) -> None:
    import torch
    from accelerate import PartialState
    from accelerate.utils import is_tensorboard_available

    from sun_core.adapter import unet_layout
    from sun_core.layers import cross_attention_layers
    from sun_core.training.config import defaults_for
    from sun_core.training.estimate import estimate
    from sun_core.training.run import claim_folder, train_in_folder
    from sun_core.training.setup import Teacher, new_evaluation, new_trainer
    from sun_core.training.teacher import check_teacher
    from sun_core.training.tensor_folder import TensorFolder
    from sun_core.training.trainer import chosen_precision, new_accelerator

    on_cpu = "--cpu" in sys.argv
    state = PartialState(cpu=on_cpu, timeout=PREPARATION_LIMIT)  # each process takes its own GPU before ComfyUI does
    given = settings(chosen)
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(
        chosen_precision(given.get("precision", "auto"), on_cpu), torch.float32
    )
    model, clip, vae = load(chosen, dtype)
    check_teacher(model)
    family = unet_layout(cross_attention_layers(model.model.diffusion_model)).family
    config = defaults_for(family).with_values(given)
    say = print if state.is_main_process else (lambda *_: None)
    say(f"{family or 'A model'} as the teacher, {config.width}x{config.height}, {state.num_processes} process(es)")

    tracker = {"log_with": "tensorboard"} if is_tensorboard_available() else {}
    accelerator = new_accelerator(config, on_cpu, project_dir=str(chosen.out), **tracker)
    if chosen.dry_run:
        say(estimate(Teacher.of(model, clip, config, {}), config, accelerator).describe())
        return
    if state.is_main_process:
        claim_folder(chosen.out, config)
    state.wait_for_everyone()
    store = TensorFolder(chosen.cache or chosen.out / "cache")
    teacher = Teacher.of(model, clip, config, store)
    examples = make_data(chosen, config, teacher, vae, store, say)
    trainer = new_trainer(teacher, examples, store, config, accelerator)
    say(f"{len(examples)} pictures, {len(trainer.data.pairs.captions)} captions")
    with teacher.loaded():
        evaluation = new_evaluation(teacher, examples, vae, config) if state.is_main_process else None
        out = train_in_folder(trainer, chosen.out, chosen.name, evaluation)
    say(f"The adapter is {out}; put it into models/sun.")


def load(chosen: argparse.Namespace, dtype: Any) -> tuple[Any, Any, Any]:
    """MODEL in `dtype`, CLIP and VAE."""
    import comfy.sd

    from sun_core.errors import SunError

    file, options = chosen.checkpoint, {"dtype": dtype}
    try:
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(file), model_options=options)
        if chosen.unet:
            file = chosen.unet
            model = comfy.sd.load_diffusion_model(str(file), model_options=options)
    except Exception as error:  # ComfyUI raises what its readers of files raise
        raise SunError(f"ComfyUI cannot load {file} ({' '.join(str(error).split())}); choose a model file.") from error
    for part, name in ((model, "U-Net"), (clip, "CLIP"), (vae, "VAE")):
        if part is None:
            raise SunError(f"{chosen.checkpoint} holds no {name}; choose a whole checkpoint, with U-Net, CLIP and VAE.")
    return model, clip, vae


def settings(chosen: argparse.Namespace) -> dict[str, Any]:
    """The settings of --config, with those of --set in their place."""
    import yaml

    from sun_core.errors import SunError

    try:
        values = yaml.safe_load(chosen.config.read_bytes()) if chosen.config else {}
    except yaml.YAMLError as error:
        raise SunError(f"{chosen.config} is neither YAML nor JSON ({' '.join(str(error).split())}).") from error
    if not isinstance(values, dict):
        raise SunError(f"{chosen.config} holds no settings; it must be a list of names with values.")
    for setting in chosen.set:
        path, equals, value = setting.partition("=")
        if not equals:
            raise SunError(f"--set {setting} sets nothing; write NAME=VALUE.")
        *groups, name = path.split(".")
        group = values
        for part in groups:
            group = group.setdefault(part, {})
            if not isinstance(group, dict):
                raise SunError(f"--set {setting} is for a group of settings, and {part} was given as {group!r}.")
        try:
            group[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise SunError(f"--set {setting} is not YAML ({' '.join(str(error).split())}).") from error
    return values


def make_data(
    chosen: argparse.Namespace, config: Any, teacher: Any, vae: Any, store: Any, say: Callable[..., None]
) -> Sequence[Any]:
    """Captioned latents: each process makes its share, then all of them see all."""
    from accelerate import PartialState

    from sun_core.errors import SunError
    from sun_core.training.latents import PictureEncoder, draw_latents, encode_pictures
    from sun_core.training.pictures import BadData, read_pictures

    state = PartialState()
    bad = BadData(stops=config.on_bad_data == "stop")
    if chosen.data:
        encoder = PictureEncoder(vae, teacher.model.model, config.width, config.height)
        if state.num_processes > 1:
            pictures = read_pictures(chosen.data, BadData(bad.stops))
            share = islice(pictures, state.process_index, None, state.num_processes)
            encode_pictures(share, encoder, store, BadData(bad.stops))
            state.wait_for_everyone()
        examples = encode_pictures(read_pictures(chosen.data, bad), encoder, store, bad)
        if bad.found:
            say(f"{len(bad.found)} of the data could not be used and was left out.")
        return examples
    try:
        lines = chosen.prompts.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SunError(f"{chosen.prompts} is not a text in UTF-8 ({error}); save it as one.") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise SunError(f"{chosen.prompts} holds no prompts; write one on each line.")
    captions = list(islice(cycle(prompts), max(chosen.pictures, len(prompts))))
    teacher.prompts.encode(["", *prompts])
    say(f"Drawing {len(captions)} pictures to train on ...")
    guidance = sum(config.guidance) / 2
    with teacher.loaded():
        for share in ((state.process_index, state.num_processes), (0, 1)):
            drawn = draw_latents(
                captions, teacher.sampler, teacher.prompts, guidance, config.seed, store, config.batch_size, share
            )
            state.wait_for_everyone()
    return drawn
