"""See how good a SUN adapter is on a checkpoint: 25 steps with CFG, a few steps plain, and as few with SUN.

    python tools/evaluate.py --checkpoint FILE --adapter FILE --prompts FILE [--output FOLDER] [--cfg 7] [--size 512]

Run it with the Python that runs ComfyUI. COMFYUI_PATH names another ComfyUI than the one that this pack lies in.

It draws every prompt three times from the same noise and writes comparison.png and figures.json: likeness to the 25
steps (PSNR), the time of sampling and, if the packages and models for them are installed, SSIM, CLIP score and FID.
It downloads nothing.

A line of the prompts' file is a positive prompt, or a positive and a negative one separated by |.
"""

import argparse
import sys
from pathlib import Path

# ComfyUI's portable Python does not put a command's own folder on the path as other Pythons do.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from comfyui import ComfyUIError, find_comfyui, start_comfyui
from inputs import InputError, check_files, fail, read_prompts


def main() -> int:
    """Evaluate as the command line says; return the exit status."""
    options = parse()
    try:
        check_files((options.checkpoint, options.adapter, options.prompts, options.inception))
        prompts = read_prompts(options.prompts)
        start_comfyui(find_comfyui())
    except (ComfyUIError, InputError) as error:
        return fail(error)
    except KeyboardInterrupt:
        return 130
    import evaluation  # needs ComfyUI

    from sun_core.errors import SunError

    try:
        evaluation.run(options, prompts)
    except (InputError, SunError) as error:
        return fail(error)
    except KeyboardInterrupt:
        return 130
    return 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="with U-Net, CLIP and VAE")
    parser.add_argument("--adapter", type=Path, required=True, metavar="FILE", help="the SUN adapter for it")
    parser.add_argument(
        "--prompts", type=Path, required=True, metavar="FILE", help="one a line: positive, or positive | negative"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        default=Path("evaluation"),
        help="for the results (default: evaluation)",
    )
    parser.add_argument("--cfg", type=float, default=7.0, help="guidance scale of the 25 steps (default: 7)")
    parser.add_argument("--size", type=int, default=512, help="width and height in pixels (default: 512)")
    parser.add_argument("--seed", type=int, default=0, help="of the first prompt; each next one has the next seed")
    parser.add_argument("--clip", metavar="FOLDER", help="a CLIP model of transformers, for the CLIP score")
    parser.add_argument("--inception", type=Path, metavar="FILE", help="FID's Inception weights, for the FID")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
