"""Models that tests sample with, made with the ComfyUI that conftest.py has loaded."""

import json
from pathlib import Path
from types import SimpleNamespace

import comfy.model_base
import comfy.model_patcher
import comfy.samplers
import comfy.supported_models
import folder_paths
import pytest
import torch
from safetensors.torch import load_file
from sun_pack.nodes import settings
from sun_pack.sun_core.adapter import load_adapter
from sun_pack.sun_core.apply import apply_sun
from sun_pack.sun_core.settings import SunSettings

REFERENCE = Path(__file__).parent / "reference"
CPU = torch.device("cpu")


class ReferenceFamily(comfy.supported_models.SD15):
    """SD1.5 in all but the number of heads."""

    unet_extra_config = {"num_heads": 4, "num_head_channels": -1}  # noqa: RUF012


@pytest.fixture(autouse=True)
def no_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let messages be English, and forwards be captured, whatever is set in the page of the ComfyUI that runs."""
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path_factory.getbasetemp() / "no user"))
    monkeypatch.setattr(settings, "_shown", {})


@pytest.fixture(scope="session")
def reference_folder() -> Path:
    return REFERENCE


@pytest.fixture(scope="session")
def new_model():
    """Makes a MODEL with uninitialised weights that samples as Stable Diffusion 1.5 does: `new_model(unet_config)`."""

    def new_model(unet_config, family=ReferenceFamily, dtype=torch.float32):
        model = comfy.model_base.BaseModel(family({**unet_config, "dtype": dtype}), device=CPU)
        return comfy.model_patcher.ModelPatcher(model.eval().requires_grad_(False), CPU, CPU)

    return new_model


@pytest.fixture(scope="session")
def reference() -> SimpleNamespace:
    """Numbers of the official code (tests/reference/README.md): `io` the tensors, and what reference.json says."""
    description = json.loads((REFERENCE / "reference.json").read_text())
    return SimpleNamespace(
        io=load_file(REFERENCE / "io_fp32.safetensors"),
        unet_config=description["config"]["comfy_unet_config"],
        blocks={int(number): tuple(block) for number, block in description["adapter"]["index_to_comfy_block"].items()},
        scheduler=description["scheduler"],
        tolerances=description["tolerances"],
    )


@pytest.fixture(scope="session")
def reference_weights():
    """Those of the file: a LoRA of an earlier test can still be on those of a MODEL."""
    return {key: weight.float() for key, weight in load_file(REFERENCE / "unet_ldm_fp16.safetensors").items()}


@pytest.fixture(scope="session")
def reference_model(reference, reference_weights, new_model):
    model = new_model(reference.unet_config)
    model.model.diffusion_model.load_state_dict(reference_weights)
    return model


@pytest.fixture
def reference_unet(reference_model):
    """Its U-Net with the weights of the file, to be called directly: a LoRA of an earlier test can still be on them."""
    reference_model.unpatch_model()
    return reference_model.model.diffusion_model


@pytest.fixture
def model(reference_model):
    """A MODEL of its own around the reference U-Net."""
    return reference_model.clone()


@pytest.fixture(scope="session")
def adapter():
    return load_adapter(REFERENCE / "sun_adapter_fp16.safetensors")


@pytest.fixture
def reports():
    """What runs report, for a test to give to a MODEL."""
    return []


@pytest.fixture
def sun(model, adapter, reports):
    """A MODEL with automatic settings that puts what it reports into `reports`."""
    return apply_sun(model, adapter, SunSettings(), report=reports.append)


@pytest.fixture
def conditioning(reference):
    """`conditioning("pos0")` is a CONDITIONING of that reference prompt."""
    return lambda name, **values: [[reference.io[f"in.{name}"], dict(values)]]


@pytest.fixture
def evaluations(reference_model):
    """The row counts of the U-Net's forwards so far, one entry per forward."""
    calls: list[int] = []
    hook = reference_model.model.diffusion_model.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    yield calls
    hook.remove()


@pytest.fixture
def sample(conditioning):
    """Samples as a KSampler does, from seed 0 at 16x16 unless told otherwise: `sample(model, cfg=7, steps=4, ...)`."""
    import nodes

    def sample(model, cfg=1.0, sampler="euler", scheduler="simple", steps=4, positive=None, negative=None, **options):
        latent = options.pop("latent", torch.zeros(options.pop("batch", 1), 4, 16, 16))
        positive = conditioning("pos0") if positive is None else positive
        negative = conditioning("neg0") if negative is None else negative
        return nodes.common_ksampler(
            model, 0, steps, cfg, sampler, scheduler, positive, negative, {"samples": latent}, **options
        )[0]["samples"]

    return sample


@pytest.fixture(scope="session")
def difference():
    """Relative L2 difference of two tensors."""
    return lambda a, b: float((a.float() - b.float()).norm() / b.float().norm())
