"""Loads ComfyUI (COMFYUI_PATH) and this pack into the test process, and makes the models that tests sample with."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

REPOSITORY = Path(__file__).parent.parent
REFERENCE = REPOSITORY / "tests" / "reference"


def load_comfyui() -> None:
    comfyui = os.environ.get("COMFYUI_PATH")
    if not comfyui:
        pytest.exit("COMFYUI_PATH must name a ComfyUI; python3 scripts/test.py sees to it.", returncode=2)
    sys.path.insert(0, comfyui)
    arguments, sys.argv = sys.argv, ["comfyui", "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args
    import utils.extra_config  # noqa: F401  (ComfyUI's own, before anything else is called utils)

    sys.argv = arguments


def load_pack() -> None:
    """As ComfyUI does it: a package by its path, under a name that says nothing."""
    spec = importlib.util.spec_from_file_location(
        "sun_pack", REPOSITORY / "__init__.py", submodule_search_locations=[str(REPOSITORY)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["sun_pack"] = module
    spec.loader.exec_module(module)


load_comfyui()
load_pack()

import comfy.model_base  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy.supported_models  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from sun_pack.sun_core.adapter import load_adapter  # noqa: E402

CPU = torch.device("cpu")


class ReferenceFamily(comfy.supported_models.SD15):
    """SD1.5 in all but the number of heads."""

    unet_extra_config = {"num_heads": 4, "num_head_channels": -1}  # noqa: RUF012


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
def reference_model(reference, new_model):
    model = new_model(reference.unet_config)
    weights = load_file(REFERENCE / "unet_ldm_fp16.safetensors")
    model.model.diffusion_model.load_state_dict({key: weight.float() for key, weight in weights.items()})
    return model


@pytest.fixture
def model(reference_model):
    """A MODEL of its own around the reference U-Net."""
    return reference_model.clone()


@pytest.fixture(scope="session")
def adapter():
    return load_adapter(REFERENCE / "sun_adapter_fp16.safetensors")


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
