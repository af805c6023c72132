"""What the commands read, and how they end if they cannot."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class InputError(Exception):
    """What is wrong with an argument or a file, in one sentence for the user."""


def fail(error: Exception) -> int:
    """Print why a command ends; return its exit status."""
    print(error, file=sys.stderr)
    return 1


def check_files(files: Iterable[Path | None]) -> None:
    """Raise InputError for the first file that was named and is missing."""
    for file in files:
        if file and not file.is_file():
            raise InputError(f"There is no file {file}; check the path that you gave.")


def read_prompts(file: Path) -> list[str]:
    """Read one prompt a line. Raises InputError if the file is not text or is empty."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not a text in UTF-8 ({error}); save it as one.") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise InputError(f"{file} holds no prompts; write one on each line.")
    return prompts


def load_models(checkpoint: Path, unet: Path | None = None, dtype: Any = None) -> tuple[Any, Any, Any]:
    """Load MODEL (in `dtype`), CLIP and VAE with the ComfyUI that runs; the MODEL from `unet` if that is given.

    Raises InputError if a file holds something else.
    """
    import comfy.sd

    file, options = checkpoint, {"dtype": dtype} if dtype else {}
    try:
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(file), model_options=options)
        if unet:
            file = unet
            model = comfy.sd.load_diffusion_model(str(file), model_options=options)
    except Exception as error:  # ComfyUI raises what its readers of files raise
        reason = " ".join(str(error).split())
        raise InputError(f"ComfyUI cannot load {file} ({reason}); choose a model file.") from error
    for part, name in ((model, "U-Net"), (clip, "CLIP"), (vae, "VAE")):
        if part is None:
            raise InputError(f"{checkpoint} has no {name}; choose a whole checkpoint, with U-Net, CLIP and VAE.")
    return model, clip, vae
