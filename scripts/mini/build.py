"""Re-creates every file of the mini family from seeds: `python3 scripts/mini/build.py`.

Stages run in order and resume: each keeps its checkpoint under build/mini/, and one that is finished is not run again
(delete its checkpoint to repeat it). `--stage NAME` runs one alone. README.md here says how long each takes and what
comes out.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = ROOT / "build" / "mini"
WEIGHTS = ROOT / "demo" / "mini_family" / "weights"
BASE, ADAPTER = WEIGHTS / "mini-storybook.safetensors", WEIGHTS / "sun_mini_4step.safetensors"
JUDGE = WEIGHTS / "judge.safetensors"
COMMUNITY = {"comic": "Mini Comic", "pastel": "Mini Pastel"}
LORAS = {"pencil": "Mini Pencil"}
PICTURES_PER_SCENE, STYLE_PICTURES_PER_SCENE = 60, 10
TRAJECTORIES = 2500


def import_comfyui() -> None:
    """ComfyUI first on the path, the repository last: both have a top-level `nodes`."""
    sys.argv = [sys.argv[0], "--cpu", "--use-pytorch-cross-attention"]
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    sys.path.append(str(ROOT))
    import comfy.options

    comfy.options.enable_args_parsing()


def autoencoder_stage() -> None:
    import autoencoder

    autoencoder.train(WORK / "autoencoder.pt")


def sharpen_stage() -> None:
    import autoencoder

    autoencoder.sharpen(WORK / "autoencoder.pt", WORK / "decoder.pt")


def judge_stage() -> None:
    import autoencoder
    import measure

    measure.train(autoencoder.load(WORK / "autoencoder.pt", WORK / "decoder.pt"), WORK / "judge.pt")


def latents_stage(style: str, per_scene: int) -> None:
    import autoencoder
    import dataset

    out = WORK / f"latents-{style}.pt"
    if not out.exists():
        dataset.make_latents(autoencoder.load(WORK / "autoencoder.pt"), style, per_scene, out)


def teacher_stage() -> None:
    import teacher

    teacher.train(WORK / "latents-storybook.pt", WORK / "teacher.pt")


def style_stage(style: str) -> None:
    import teacher

    latents_stage(style, STYLE_PICTURES_PER_SCENE)
    teacher.train(WORK / f"latents-{style}.pt", WORK / f"style-{style}.pt", start=WORK / "teacher.pt")


def lora_stage(style: str) -> None:
    import lora

    latents_stage(style, STYLE_PICTURES_PER_SCENE)
    lora.train(WORK / f"latents-{style}.pt", WORK / "teacher.pt", WORK / f"lora-{style}.pt")


def trajectories_stage() -> None:
    import trajectories

    out = WORK / "trajectories.pt"
    if not out.exists():
        trajectories.make(WORK / "teacher.pt", TRAJECTORIES, out)


def adapter_stage() -> None:
    import adapter

    adapter.train(WORK / "latents-storybook.pt", WORK / "teacher.pt", WORK / "adapter.pt")


def follow_stage() -> None:
    import adapter

    adapter.follow(
        *(WORK / "latents-storybook.pt", WORK / "trajectories.pt", WORK / "teacher.pt"),
        *(WORK / "adapter.pt", WORK / "adapter-follow.pt"),
    )


def export_stage() -> None:
    import adapter
    import autoencoder
    import export
    import lora
    import teacher

    WEIGHTS.mkdir(parents=True, exist_ok=True)
    vae = autoencoder.load(WORK / "autoencoder.pt", WORK / "decoder.pt")
    export.write_checkpoint(teacher.load(WORK / "teacher.pt"), vae, BASE)
    for style, title in COMMUNITY.items():
        export.write_unet(teacher.load(WORK / f"style-{style}.pt"), title, community_unet(style))
    for style, title in LORAS.items():
        lora.export(WORK / "teacher.pt", WORK / f"lora-{style}.pt", title, lora_file(style))
    adapter.export(WORK / "teacher.pt", WORK / "adapter-follow.pt", ADAPTER)
    export.write_judge(WORK / "judge.pt", JUDGE)


def families() -> dict[str, tuple[object, object]]:
    """The shipped files as users load them: by style, the family and its MODEL with the one adapter."""
    import evaluate

    from sun_core.adapter import load_adapter
    from sun_core.apply import SunSettings, apply_sun

    sun, out = load_adapter(ADAPTER), {}
    for style in ("storybook", *COMMUNITY, *LORAS):
        family = evaluate.Family.load(
            BASE, community_unet(style) if style in COMMUNITY else None, lora_file(style) if style in LORAS else None
        )
        out[style] = family, apply_sun(family.model, sun, SunSettings())
    return out


def report_stage() -> None:
    """Print the figures of README.md here, from the shipped files alone."""
    import evaluate
    import measure

    judge = measure.load(JUDGE)
    for style, (family, with_sun) in families().items():
        models, count = {False: family.model, True: with_sun}, 200 if style == "storybook" else 100
        print(f"\n### {style}, {count} prompts\n", flush=True)
        print(evaluate.markdown(evaluate.table(family, models, judge, count)), flush=True)
        if style == "storybook":
            print(f"\n{evaluate.markdown(evaluate.negative_control(family, models, judge))}", flush=True)


def pictures_stage() -> None:
    """Draw the README's picture of the community styles, on prompts of no U-Net's training."""
    import pictures

    prompts = ["a red cat in the snow", "a blue boat at sunset", "a pink mushroom in the snow"]
    pictures.style_sheet(families(), prompts).save(ROOT / "docs" / "images" / "community.png")


def community_unet(style: str) -> Path:
    return WEIGHTS / f"mini-{style}.safetensors"


def lora_file(style: str) -> Path:
    return WEIGHTS / f"mini-{style}-lora.safetensors"


STAGES: dict[str, Callable[[], None]] = {
    "autoencoder": autoencoder_stage,
    "sharpen": sharpen_stage,
    "latents": lambda: latents_stage("storybook", PICTURES_PER_SCENE),
    "judge": judge_stage,
    "teacher": teacher_stage,
    "adapter": adapter_stage,
    "trajectories": trajectories_stage,
    "follow": follow_stage,
    **{f"style-{style}": (lambda style=style: style_stage(style)) for style in COMMUNITY},
    **{f"lora-{style}": (lambda style=style: lora_stage(style)) for style in LORAS},
}


LAST = {"export": export_stage, "report": report_stage, "pictures": pictures_stage}  # in this process


def run_stage(name: str) -> None:
    """What each process of a stage does."""
    import_comfyui()
    STAGES[name]()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", choices=[*STAGES, *LAST], help="run this stage alone")
    parser.add_argument(
        "--processes", type=int, default=2, help="data-parallel processes; each adds 16 rows to a batch (default: 2)"
    )
    options = parser.parse_args()
    import loop

    WORK.mkdir(parents=True, exist_ok=True)
    for name in [options.stage] if options.stage else [*STAGES, *LAST]:
        print(f"== {name}", flush=True)
        if name in LAST:
            import_comfyui()
            LAST[name]()
        else:
            loop.launch(run_stage, name, processes=options.processes)


if __name__ == "__main__":
    sys.path.append(str(ROOT / "scripts"))  # after this folder: both have a module `evaluate`
    import environment

    environment.enter(environment.prepare())
    main()
