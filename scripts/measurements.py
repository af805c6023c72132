"""What the benchmark measures, inside ComfyUI's own samplers and model management."""

import contextlib
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
import comfy.model_management
import comfy.ops
import comfy.sample
import comfy.sd
import comfyui_version
import torch
from comfy.model_patcher import ModelPatcher

from sun_core.adapter import SunAdapter, load_adapter, save_adapter
from sun_core.apply import SunSettings, apply_sun
from sun_core.hooks import RUN_KEY

PLAIN_STEPS, PLAIN_CFG, SUN_STEPS = 25, 7.0, 4
FORWARD_STEPS = 12  # in each repeat: forwards are cheap and their ratio is close to 1
FORWARDS = ("plain", "sun", "sun_uncached")
SD15_UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "context_dim": 768,
    "num_heads": 8,
    "use_spatial_transformer": True,
    "legacy": False,
}


class Figures:
    """Every measured value by name, in the order of first measurement."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}
        self.units: dict[str, str] = {}

    def add(self, name: str, value: float, unit: str) -> None:
        self.values.setdefault(name, []).append(value)
        self.units[name] = unit

    def summary(self) -> dict[str, dict[str, float | str]]:
        return {
            name: {"median": statistics.median(v), "min": min(v), "max": max(v), "unit": self.units[name]}
            for name, v in self.values.items()
        }


@torch.inference_mode()
def measure(latent_size: int, repeats: int) -> tuple[dict[str, dict[str, float | str]], dict[str, str | int]]:
    """All figures (median, min, max and unit by name) and what they were measured on."""
    figures = Figures()
    print("Building a full-size U-Net with random weights ...", flush=True)
    torch.manual_seed(0)
    plain = comfy.sd.load_diffusion_model_state_dict(random_unet())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "adapter.safetensors"
        save_adapter(SunAdapter.for_unet(plain.model.diffusion_model), file, {})
        for _ in range(repeats):
            sun = load_and_patch(plain, file, figures)
    sampler = Sampler(latent_size)
    print("Warming up ...", flush=True)
    sampler(plain, 1, PLAIN_CFG)
    sampler(sun, 1, 1.0)
    for repeat in range(repeats):
        print(f"Measuring, {repeat + 1} of {repeats} ...", flush=True)
        measure_forwards(sampler, sun, figures)
        measure_sampling(sampler, plain, sun, figures)
    return figures.summary(), machine(plain, latent_size, repeats)


def load_and_patch(plain: ModelPatcher, file: Path, figures: Figures) -> ModelPatcher:
    """From adapter file (in the system's file cache) to adapter, and from adapter to patched MODEL."""
    adapter, seconds = timed(lambda: load_adapter(file))
    figures.add("adapter_load", seconds, "s")
    sun, seconds = timed(lambda: apply_sun(plain, adapter, SunSettings()))
    figures.add("adapter_patch", seconds, "s")
    return sun


def measure_forwards(sampler: "Sampler", sun: ModelPatcher, figures: Figures) -> None:
    """One evaluation of the model for one picture: with SUN, without its caching, and without SUN.

    On each input of a run the three follow each other, in an order that turns: machines change their speed in seconds.
    """

    inputs = 0

    def forward(apply_model: Callable[..., torch.Tensor], arguments: dict[str, Any]) -> torch.Tensor:
        nonlocal inputs
        with_sun = arguments["c"]["transformer_options"]
        results, seconds = {}, {}

        def evaluate(what: str) -> None:
            if what == "sun_uncached":
                with_sun[RUN_KEY].forget()
            options = {"transformer_options": without_sun(with_sun) if what == "plain" else with_sun}
            evaluation = partial(apply_model, arguments["input"], arguments["timestep"], **arguments["c"] | options)
            results[what], seconds[what] = timed(evaluation)

        if inputs == 0:
            evaluate("sun")  # fills SUN's cache
        for i in range(len(FORWARDS)):
            evaluate(FORWARDS[(inputs + i) % len(FORWARDS)])
        inputs += 1
        for what in FORWARDS:
            figures.add(f"forward_{what}", seconds[what], "s")
        figures.add("forward_ratio", seconds["sun"] / seconds["plain"], "x")
        figures.add("forward_ratio_uncached", seconds["sun_uncached"] / seconds["plain"], "x")
        return results["sun"]

    clone = sun.clone()
    clone.set_model_unet_function_wrapper(forward)
    sampler(clone, FORWARD_STEPS, 1.0)


def without_sun(transformer_options: dict[str, Any]) -> dict[str, Any]:
    """What a run's evaluations get where SUN is not on the MODEL."""
    return {key: value for key, value in transformer_options.items() if key not in ("wrappers", "patches_replace")}


def measure_sampling(sampler: "Sampler", plain: ModelPatcher, sun: ModelPatcher, figures: Figures) -> None:
    """Whole sampling, as a KSampler node does it."""
    plain_seconds = figures_of_run(lambda: sampler(plain, PLAIN_STEPS, PLAIN_CFG), "plain_25_steps", figures)
    sun_seconds = figures_of_run(lambda: sampler(sun, SUN_STEPS, 1.0), "sun_4_steps", figures)
    figures.add("sampling_speedup", plain_seconds / sun_seconds, "x")


def figures_of_run(run: Callable[[], Any], name: str, figures: Figures) -> float:
    memory = PeakMemory()
    _, seconds = timed(run)
    figures.add(f"sampling_{name}", seconds, "s")
    if (peak := memory.gigabytes()) is not None:
        figures.add(f"peak_memory_{name}", peak, "GB")
    return seconds


class Sampler:
    """DPM++ 2M on a fixed noise and fixed conditionings (SUN's automatic settings keep it)."""

    def __init__(self, latent_size: int) -> None:
        self.latent = torch.zeros(1, 4, latent_size, latent_size)
        self.noise = torch.randn(self.latent.shape)
        self.positive, self.negative = ([[torch.randn(1, 77, SD15_UNET["context_dim"]), {}]] for _ in range(2))

    def __call__(self, model: ModelPatcher, steps: int, cfg: float) -> torch.Tensor:
        options = {"sampler_name": "dpmpp_2m", "scheduler": "simple", "disable_pbar": True}
        conds = {"positive": self.positive, "negative": self.negative}
        return comfy.sample.sample(model, self.noise, steps, cfg, **options, **conds, latent_image=self.latent)


def random_unet() -> dict[str, torch.Tensor]:
    """Random fp16 weights in the layout of Stable Diffusion 1.5, scaled so that activations stay ordinary numbers."""
    unet = openaimodel.UNetModel(**SD15_UNET, device="meta", operations=comfy.ops.disable_weight_init)
    weights = {}
    for key, tensor in unet.state_dict().items():
        if tensor.ndim > 1:
            weights[key] = torch.randn(tensor.shape, dtype=torch.float16).div_(tensor[0].numel() ** 0.5)
        else:
            weights[key] = torch.full(tensor.shape, float(key.endswith("weight")), dtype=torch.float16)
    return weights


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns, and the seconds until the device has finished it."""
    synchronize()
    started = time.perf_counter()
    result = work()
    synchronize()
    return result, time.perf_counter() - started


def synchronize() -> None:
    device = comfy.model_management.get_torch_device()
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


class PeakMemory:
    """The most memory in use since this object was made: CUDA's, or the process's where it runs on a Linux CPU."""

    _status = Path("/proc/self/status")

    def __init__(self) -> None:
        self.device = comfy.model_management.get_torch_device()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self._status.exists():
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)

    def gigabytes(self) -> float | None:
        """None where the system does not tell."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        if self.device.type == "cpu" and self._status.exists():
            kibibytes = re.search(r"VmHWM:\s*(\d+) kB", self._status.read_text())
            return int(kibibytes.group(1)) * 1024 / 1e9 if kibibytes else None
        return None


def machine(model: ModelPatcher, latent_size: int, repeats: int) -> dict[str, str | int]:
    device = comfy.model_management.get_torch_device()
    return {
        "device": comfy.model_management.get_torch_device_name(device),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "weights": str(model.model.get_dtype()).removeprefix("torch."),
        "latent": f"{latent_size}x{latent_size}",
        "repeats": repeats,
        "torch": torch.__version__,
        "comfyui": comfyui_version.__version__,
        "python": platform.python_version(),
    }


def processor() -> str:
    """The processor's name where Linux tells, else what Python knows."""
    with contextlib.suppress(OSError):
        if name := re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text()):
            return name.group(1)
    return platform.processor()
