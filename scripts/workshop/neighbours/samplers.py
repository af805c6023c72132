"""Samplers of other packs, with SUN put on their MODEL by hand."""

from collections import namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import comfy.sample
import comfy.samplers
import numpy
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from sun_core.schedule import trailing_sigmas

from .control import PICTURE
from .packs import call
from .rows import ACTS, LAYERS, SAME, Check, Row
from .small_model import NEGATIVE, SPEED_UP, difference, draw, findings, model, prompt, reports, sped_up, start, vae

Sampler = Callable[[ModelPatcher, Any], Tensor]
"""From MODEL and negative to what the node gives: latents or a picture."""
COMMON = {"seed": 0, "steps": 4, "cfg": 7.0, "sampler_name": "euler", "scheduler": "simple"}


def _empty() -> dict[str, Tensor]:
    return {"samples": torch.zeros(1, 4, 16, 16)}


def _efficient(onto: ModelPatcher, negative: Any) -> Tensor:
    return call(
        "KSampler (Efficient)", onto, **COMMON, positive=prompt("pos0"), negative=negative, latent_image=_empty(),
        preview_method="none", vae_decode="false", prompt={}, extra_pnginfo={}, my_unique_id="1",
    )["result"][3]["samples"]  # fmt: skip


def _inspire(onto: ModelPatcher, negative: Any) -> Tensor:
    return call(
        "KSampler //Inspire", onto, **COMMON, positive=prompt("pos0"), negative=negative, latent_image=_empty(),
        denoise=1.0, noise_mode="CPU",
    )[0]["samples"]  # fmt: skip


def _ultimate_upscale(onto: ModelPatcher, negative: Any) -> Tensor:
    return call(
        "UltimateSDUpscaleNoUpscale", PICTURE, onto, positive=prompt("pos0"), negative=negative, vae=vae(),
        **COMMON, denoise=1.0, mode_type="Linear", tile_width=64, tile_height=64, mask_blur=0, tile_padding=32,
        seam_fix_mode="None", seam_fix_denoise=1.0, seam_fix_width=64, seam_fix_mask_blur=8, seam_fix_padding=16,
        force_uniform_tiles=True, tiled_decode=False,
    )[0]  # fmt: skip


def _detailer(onto: ModelPatcher, negative: Any) -> Tensor:
    SEG = namedtuple("SEG", "cropped_image cropped_mask confidence crop_region bbox label control_net_wrapper")
    box = (0, 0, 128, 128)
    one = SEG(None, numpy.ones((128, 128), numpy.float32), 1.0, box, box, "face", None)
    return call(
        "DetailerForEach", PICTURE, ((128, 128), [one]), onto, None, vae(), 128, True, 128, **COMMON,
        positive=prompt("pos0"), negative=negative, denoise=1.0, feather=0, noise_mask=False, force_inpaint=True,
        wildcard="", noise_mask_feather=0,
    )[0]  # fmt: skip


def _acting(sampler: Sampler, runs: int = 1, evaluations: int = 4) -> Iterator[Check]:
    """Measure a node that samples `runs` times, each with so many evaluations of one row."""
    start()
    drawn = sampler(sped_up(model()), prompt("neg0"))
    yield Check("findings", len(findings()), most=0)
    yield Check("layers", min((report.acted for report in reports), default=0), LAYERS, LAYERS)
    yield Check("runs", len(reports), runs, runs)
    count = evaluations * runs
    yield Check("evaluations", sum(report.evaluations for report in reports), count, count)
    yield Check("rows", sum(report.rows for report in reports), count, count)
    yield Check("SUN", difference(sampler(SPEED_UP.off(model()), prompt("neg0")), drawn), least=ACTS)
    yield Check("negatives", difference(sampler(sped_up(model()), prompt("neg1")), drawn), least=ACTS)


def _tiled(strategy: str) -> Sampler:
    def sample(onto: ModelPatcher, negative: Any) -> Tensor:
        start()
        return call(
            "BNK_TiledKSampler", onto, **COMMON, tile_width=256, tile_height=256, tiling_strategy=strategy,
            positive=prompt("pos0"), negative=negative, latent_image={"samples": torch.zeros(1, 4, 48, 48)},
            denoise=1.0,
        )[0]["samples"]  # fmt: skip

    return sample


def _tiny(onto: ModelPatcher, negative: Any) -> Tensor:
    start()
    return call(
        "ttN KSampler_v2", onto, prompt("pos0"), negative, _empty(), None, lora_name="None", lora_strength=1.0,
        upscale_method="None", **COMMON, image_output="Disabled", save_prefix="", file_type="png",
        embed_workflow=False, my_unique_id="1",
    )[3]["samples"]  # fmt: skip


def _easy(onto: ModelPatcher, negative: Any) -> Tensor:
    pipe = {"model": onto, "positive": prompt("pos0"), "negative": negative, "vae": vae(), "clip": None}
    pipe |= {"samples": _empty(), "images": None, "seed": 0, "loader_settings": {}}
    start()
    return call(
        "easy fullkSampler", pipe, **COMMON, denoise=1.0, image_output="None", link_id=0, save_prefix="",
        prompt={}, my_unique_id="1",
    )["result"][5]["samples"]  # fmt: skip


def _as_ksampler(sampler: Sampler) -> Iterator[Check]:
    yield from _acting(sampler)
    drawn = sampler(sped_up(model()), prompt("neg0"))
    yield Check("from KSampler", difference(drawn, draw(sped_up(model()), prompt("pos0"), prompt("neg0"))), most=SAME)


def _guided(guider: comfy.samplers.CFGGuider, onto: ModelPatcher) -> Tensor:
    sigmas = trailing_sigmas(onto.get_model_object("model_sampling").sigmas, 4)
    noise = comfy.sample.prepare_noise(torch.zeros(1, 4, 16, 16), 0)
    start()
    return guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, seed=0)


def _scheduled_cfg() -> Iterator[Check]:
    onto = sped_up(model())
    (guider,) = call("ScheduledCFGGuidance", onto, 6.0, prompt("pos0"), prompt("neg0"), 0.0, 1.0)
    drawn = _guided(guider, onto)
    yield Check("rows", reports[-1].rows, 4, 4)
    alone = draw(sped_up(model()), prompt("pos0"), prompt("neg0"))
    yield Check("from SUN alone", difference(drawn, alone), most=SAME)


def _scheduled_guider(node_id: str, most: float, **inputs: Any) -> Iterator[Check]:
    onto = sped_up(model())
    sigmas = trailing_sigmas(onto.get_model_object("model_sampling").sigmas, 4)
    guider, _ = call(
        node_id, model=onto, positive=prompt("pos0"), negative=prompt("neg0"), sigmas=sigmas,
        from_cfg=6.5, to_cfg=1.0, schedule="log", **inputs,
    )  # fmt: skip
    drawn = _guided(guider, onto)
    yield Check("rows", reports[-1].rows, 4, 4)
    alone = draw(sped_up(model()), prompt("pos0"), prompt("neg0"))
    yield Check("from SUN alone", difference(drawn, alone), most=most)


def _clownshark(onto: ModelPatcher, negative: Any) -> Tensor:
    start()
    return call(
        "ClownsharKSampler_Beta", model=onto, positive=prompt("pos0"), negative=negative, latent_image=_empty(),
        eta=0.0, sampler_name="res_2m", scheduler="simple", steps=4, steps_to_run=-1, denoise=1.0, cfg=5.5, seed=0,
        sampler_mode="standard", bongmath=False,
    )[0]["samples"]  # fmt: skip


def _clownshark_acts() -> Iterator[Check]:
    drawn = _clownshark(sped_up(model()), prompt("neg0"))
    (report,) = reports
    yield Check("evaluations", report.evaluations, 4, 4)
    yield Check("rows", report.rows, 4, 4)
    yield Check("sampler told", sum("-> euler" in change for change in report.changes), 1, 1)
    yield Check("negatives", difference(_clownshark(sped_up(model()), prompt("neg1")), drawn), least=ACTS)


def _dpmpp_2m_stays() -> Iterator[Check]:
    draw(sped_up(model()), prompt("pos0"), prompt("neg0"), sampler="dpmpp_2m")
    yield Check("sampler changed", sum("dpmpp_2m ->" in change for change in reports[-1].changes), most=0)
    drawn = draw(sped_up(model()), prompt("pos0"), prompt("neg0"), sampler="dpmpp_2m")
    euler = draw(sped_up(model()), prompt("pos0"), prompt("neg0"))
    yield Check("from euler", difference(drawn, euler), least=ACTS)


def _custom(onto: ModelPatcher, sampler: Any, cfg: float = 7.0, negative: str = "neg0") -> Tensor:
    """Sample as SamplerCustom does."""
    sigmas = trailing_sigmas(onto.get_model_object("model_sampling").sigmas, 4)
    latent = torch.zeros(1, 4, 16, 16)
    noise = comfy.sample.prepare_noise(latent, 0)
    start()
    return comfy.sample.sample_custom(
        onto, noise, cfg, sampler, sigmas, prompt("pos0"), prompt(negative), latent, disable_pbar=True, seed=0
    )


def _told(name: str) -> Check:
    """Check that the last run told that it took euler in place of a sampler."""
    told = f"sampler {name} -> euler"
    return Check("named", sum(told in change for report in reports for change in report.changes), 1, 1)


def _replaced(name: str, node_id: str, **inputs: Any) -> Iterator[Check]:
    drawn = _custom(sped_up(model()), call(node_id, **inputs)[0])
    yield _told(name)
    yield Check("rows", reports[-1].rows, 4, 4)
    euler = _custom(sped_up(model()), comfy.samplers.sampler_object("euler"))
    yield Check("from SUN alone", difference(drawn, euler), most=SAME)


DETAILS = {
    "detail_amount": 5.0, "start": 0.0, "end": 1.0, "bias": 0.5, "exponent": 0.2, "start_offset": 0.0,
    "end_offset": 0.0, "fade": 0.0, "smooth": True, "cfg_scale_override": 2.0,
}  # fmt: skip


def _details() -> dict[str, Any]:
    return {"sampler": comfy.samplers.sampler_object("euler")} | DETAILS


def _kept(on: Callable[[ModelPatcher], ModelPatcher], off: Callable[[ModelPatcher], ModelPatcher]) -> Iterator[Check]:
    """A sampler of another pack is left as it is where SUN's settings are not automatic."""
    (sampler,) = call("DetailDaemonSamplerNode", **_details())
    drawn = _custom(on(model()), sampler, 1.0)
    yield Check("findings", len(findings()), most=0)
    yield Check("layers", reports[-1].acted, LAYERS, LAYERS)
    yield Check("rows", reports[-1].rows, 4, 4)
    yield Check("SUN", difference(_custom(off(model()), sampler, 1.0), drawn), least=ACTS)
    euler = _custom(on(model()), comfy.samplers.sampler_object("euler"), 1.0)
    yield Check("neighbour", difference(euler, drawn), least=ACTS)
    yield Check("negatives", difference(_custom(on(model()), sampler, 1.0, "neg1"), drawn), least=ACTS)


def _from_sampler(onto: ModelPatcher, strength: float = 1.0) -> ModelPatcher:
    return sped_up(onto, strength, automatic=False)


def _restarts(onto: ModelPatcher, negative: Any) -> Tensor:
    start()
    return call(
        "KRestartSampler", onto, **COMMON, positive=prompt("pos0"), negative=negative, latent_image=_empty(),
        denoise=1.0, segments="[3,2,0.06,0.30],[3,1,0.30,0.59]", restart_scheduler="simple",
    )[0]["samples"]  # fmt: skip


def _without_restarts() -> Iterator[Check]:
    drawn = _restarts(sped_up(model()), prompt("neg0"))
    (report,) = reports
    yield _told("sampler_function")
    yield Check("evaluations", report.evaluations, report.steps, report.steps)
    yield Check("rows", report.rows, report.steps, report.steps)
    yield Check("negatives", difference(_restarts(sped_up(model()), prompt("neg1")), drawn), least=ACTS)


ROWS = {
    "efficiency-nodes-comfyui": [Row("KSampler (Efficient)", "", lambda: _as_ksampler(_efficient))],
    "ComfyUI-Inspire-Pack": [
        Row("KSampler (Inspire)", "", lambda: _as_ksampler(_inspire)),
        Row(
            "ScheduledCFGGuider", "", lambda: _scheduled_guider("ScheduledCFGGuider //Inspire", SAME),
            "test_guidance.py",
        ),
        Row(
            "ScheduledPerpNegCFGGuider", "",
            lambda: _scheduled_guider(
                "ScheduledPerpNegCFGGuider //Inspire", 1e-3, empty_conditioning=prompt("neg1"), neg_scale=1.0
            ),
            "test_guidance.py",
        ),
    ],
    "ComfyUI-Impact-Pack": [Row("DetailerForEach", "", lambda: _acting(_detailer))],
    "ComfyUI_UltimateSDUpscale": [Row("Ultimate SD Upscale, 4 tiles", "", lambda: _acting(_ultimate_upscale, 4))],
    "ComfyUI_tinyterraNodes": [Row("tinyKSampler", "", lambda: _as_ksampler(_tiny))],
    "ComfyUI-Easy-Use": [Row("EasyKSampler (Full)", "", lambda: _as_ksampler(_easy))],
    "ComfyUI_TiledKSampler": [
        Row("Tiled KSampler, random", "", lambda: _acting(_tiled("random"), 24, 1)),
        Row("Tiled KSampler, padded", "", lambda: _acting(_tiled("padded"), 9)),
    ],
    "ComfyUI-KJNodes": [Row("ScheduledCFGGuidance", "", _scheduled_cfg, "test_guidance.py")],
    "ComfyUI-Detail-Daemon": [
        Row(
            "Detail Daemon Sampler", "",
            lambda: _replaced("detail_daemon_sampler", "DetailDaemonSamplerNode", **_details()),
            "test_automatic.py", "no effect",
        ),
        Row(
            "Detail Daemon Sampler, settings from the sampler", "",
            lambda: _kept(_from_sampler, lambda onto: _from_sampler(onto, 1e-9)),
        ),
        Row("Detail Daemon Sampler", "", lambda: _kept(NEGATIVE.on, NEGATIVE.off), "", "negative"),
        Row(
            "Lying Sigma Sampler", "",
            lambda: _replaced(
                "lying_sigma_sampler", "LyingSigmaSampler", sampler=comfy.samplers.sampler_object("euler"),
                dishonesty_factor=-0.05, start_percent=0.1, end_percent=0.9,
            ),
            "test_automatic.py", "no effect",
        ),
    ],
    "ComfyUI_restart_sampling": [Row("KSampler With Restarts", "", _without_restarts, "test_automatic.py")],
    "ComfyUI-sampler-lcm-alternative": [
        Row(
            "SamplerLCMAlternative", "",
            lambda: _replaced("lcm_alt", "SamplerLCMAlternative", euler_steps=0, ancestral=0.0, noise_mult=1.0),
            "test_automatic.py", "no effect",
        ),
    ],
    "RES4LYF": [
        Row("ClownsharKSampler at CFG 5.5", "", _clownshark_acts, "test_guidance.py"),
        Row("dpmpp_2m, with this pack loaded", "", _dpmpp_2m_stays, "test_automatic.py"),
    ],
}  # fmt: skip
