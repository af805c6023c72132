"""See how good a SUN adapter is on a checkpoint: 25 steps with CFG, a few steps plain, and as few with SUN.

    python3 scripts/evaluate.py --checkpoint FILE --adapter FILE --prompts FILE [--output FOLDER] [--cfg 7] [--size 512]

Draws every prompt three times from the same noise and writes comparison.png and figures.json: likeness to the 25 steps
(PSNR, SSIM), the time of sampling, and, where their models are on this machine, CLIP score and FID. Nothing is
downloaded but the environment of the first run (environment.py). Without a checkpoint the mini family is evaluated.

A line of the prompts' file is a positive prompt, or a positive and a negative one with | between them.
"""

import argparse
import os
import sys
from pathlib import Path

import environment


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="with CLIP and VAE, as ComfyUI loads it")
    parser.add_argument("--adapter", type=Path, metavar="FILE", help="the SUN adapter for that checkpoint")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="one a line: positive, or positive | negative")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", default=environment.REPOSITORY / "output" / "evaluation"
    )
    parser.add_argument("--cfg", type=float, help="guidance scale of the 25 steps (default: 7; mini family: its own)")
    parser.add_argument("--size", type=int, help="width and height in pixels (default: 512; mini family: its own)")
    parser.add_argument("--seed", type=int, default=0, help="of the first prompt; each next one has the next seed")
    parser.add_argument("--clip", metavar="FOLDER", help="a CLIP model of transformers, for the CLIP score")
    parser.add_argument("--inception", type=Path, metavar="FILE", help="FID's Inception weights, for the FID")
    chosen = parser.parse_args()
    if not (chosen.checkpoint and chosen.adapter and chosen.prompts) and (chosen.checkpoint or chosen.adapter):
        parser.error("--checkpoint, --adapter and --prompts belong together; without any, the mini family is evaluated")
    return chosen


def main() -> int:
    environment.exit_on_termination()
    chosen = arguments()
    for file in filter(None, (chosen.checkpoint, chosen.adapter, chosen.prompts, chosen.inception)):
        if not file.is_file():
            return failed(f"There is no file {file}: check the path that you gave.")
    try:
        if not os.environ.get(environment.INSIDE):
            made = environment.prepare()
            environment.enter(made, environment.packages(made.python, "metrics", environment.METRICS))
        import bench

        bench.start_comfyui()
        # From here on we run beside ComfyUI's own packages, which these modules need.
        import evaluation
    except environment.SetupError as error:
        return failed(str(error))
    except KeyboardInterrupt:
        return 130
    from sun_core.errors import SunError

    try:
        evaluation.run(chosen)
    except (evaluation.EvaluationError, SunError) as error:
        return failed(str(error))
    except KeyboardInterrupt:
        return 130
    return 0


def failed(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
