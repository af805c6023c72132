"""Files and models that cannot work: one plain sentence on the node, and a server that goes on as before."""

import json
import pickle
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from workshop.server.comfy_server import ComfyServer, WorkflowError
from workshop.server.demo_models import Models
from workshop.server.workflows import Workflow

from .conftest import pixels, render

ANOTHER_FAMILYS_ADAPTER = Path(__file__).parents[1] / "reference" / "sun_adapter_fp16.safetensors"


def lora(models: Models, file: Path) -> None:
    save_file({"lora_unet_mid_block_attentions_0.lora_up.weight": torch.zeros(8, 4)}, file)


def checkpoint(models: Models, file: Path) -> None:
    file.write_bytes(models.checkpoint.read_bytes())


def executable_pickle(models: Models, file: Path) -> None:
    file.write_bytes(pickle.dumps(Executable(file.with_suffix(".executed"))))


def truncated(models: Models, file: Path) -> None:
    file.write_bytes(models.adapter.read_bytes()[:-1000])


def missing_layer(models: Models, file: Path) -> None:
    save_file({key: tensor for key, tensor in load_file(models.adapter).items() if not key.startswith("3.")}, file)


def not_a_number(models: Models, file: Path) -> None:
    weights = load_file(models.adapter)
    weights["1.to_k_neg.weight"][0, 0] = float("nan")
    save_file(weights, file)


def wrong_context_width(models: Models, file: Path) -> None:
    weights = load_file(models.adapter)
    save_file({k: t[:, : t.shape[1] // 2].contiguous() if t.ndim == 2 else t for k, t in weights.items()}, file)


def another_family(models: Models, file: Path) -> None:
    file.write_bytes(ANOTHER_FAMILYS_ADAPTER.read_bytes())


class Executable:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable, tuple[Path]]:
        return Path.touch, (self.trace,)


def forget_results(server: ComfyServer) -> None:
    """Empty the cache of results and unload all models, as the UI's buttons do."""
    body = json.dumps({"unload_models": True, "free_memory": True}).encode()
    request = urllib.request.Request(f"{server.url}/free", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request).close()


@pytest.fixture
def reference_picture(server: ComfyServer, workflow: Workflow) -> Iterator[None]:
    """Whatever the test provokes, the server must draw the same picture before and after it."""
    good, save = workflow.to_api(), workflow.node_id("Save picture")
    before = server.run(good).pictures[save]
    yield
    forget_results(server)
    assert server.is_alive()
    assert np.array_equal(pixels(server.run(good).pictures[save]), pixels(before))


@pytest.mark.usefixtures("reference_picture")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lora, "a LoRA"),
        (checkpoint, "a whole checkpoint"),
        (executable_pickle, "pickle"),
        (truncated, "cut short"),
        (missing_layer, "layer 3 is missing"),
        (not_a_number, "NaN"),
        (wrong_context_width, "text width"),
        (another_family, "does not fit this MODEL"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(
    server: ComfyServer, workflow: Workflow, models: Models, make: Callable[[Models, Path], None], says: str
) -> None:
    file = server.base / "models" / "sun" / f"{make.__name__}.safetensors"
    make(models, file)
    workflow.set("SUN 4-Step Speed-Up", adapter_name=file.name)
    error = refusal(server, workflow)
    assert error.node == "SUNSpeedUp"
    assert says in str(error)
    assert_is_one_sentence(str(error))
    assert not file.with_suffix(".executed").exists()


@pytest.mark.usefixtures("reference_picture")
def test_a_pickle_under_its_own_name_is_not_offered(server: ComfyServer, workflow: Workflow, models: Models) -> None:
    file = server.base / "models" / "sun" / "adapter.ckpt"
    executable_pickle(models, file)
    workflow.set("SUN 4-Step Speed-Up", adapter_name=file.name)
    error = refusal(server, workflow)
    assert file.name in str(error)
    assert file.name not in server.get("/object_info/SUNSpeedUp")["SUNSpeedUp"]["input"]["required"]["adapter_name"]
    assert not file.with_suffix(".executed").exists()


@pytest.mark.usefixtures("reference_picture")
def test_a_model_without_cross_attention_is_refused_in_one_sentence(server: ComfyServer, workflow: Workflow) -> None:
    """A minimal SD3 stands in for Flux: a transformer that ComfyUI loads, with no attn2, small enough to make here."""
    file = server.base / "models" / "diffusion_models" / "sd3.safetensors"
    file.parent.mkdir(exist_ok=True)
    save_file(minimal_sd3(), file)
    prompt = workflow.to_api()
    prompt["loader"] = {"class_type": "UNETLoader", "inputs": {"unet_name": file.name, "weight_dtype": "default"}}
    prompt[workflow.node_id("SUN 4-Step Speed-Up")]["inputs"]["model"] = ["loader", 0]
    with pytest.raises(WorkflowError) as refused:
        server.run(prompt)
    assert refused.value.node == "SUNSpeedUp"
    assert "cross-attention" in str(refused.value)
    assert_is_one_sentence(str(refused.value))


@pytest.mark.usefixtures("reference_picture")
def test_an_adapter_deleted_after_the_graph_was_loaded_is_named(
    server: ComfyServer, workflow: Workflow, models: Models
) -> None:
    file = server.base / "models" / "sun" / "soon_gone.safetensors"
    file.write_bytes(models.adapter.read_bytes())
    workflow.set("SUN 4-Step Speed-Up", adapter_name=file.name)
    render(server, workflow)
    file.unlink()
    error = refusal(server, workflow)
    assert error.node == "SUNSpeedUp"
    assert file.name in str(error)
    assert_is_one_sentence(str(error).removeprefix("adapter_name - "))


def refusal(server: ComfyServer, workflow: Workflow) -> WorkflowError:
    with pytest.raises(WorkflowError) as refused:
        server.run(workflow.to_api())
    return refused.value


def assert_is_one_sentence(text: str) -> None:
    assert text.endswith("."), text
    assert "\n" not in text and ". " not in text, text
    assert len(text) < 400, text
    assert "Error" not in text, text


def minimal_sd3() -> dict[str, torch.Tensor]:
    """The keys by which ComfyUI recognises an SD3 of depth 1; what is missing stays uninitialised."""
    block = {f"joint_blocks.0.{side}_block.attn.qkv.weight": torch.zeros(192, 64) for side in ("x", "context")}
    return block | {
        "x_embedder.proj.weight": torch.zeros(64, 16, 2, 2),
        "y_embedder.mlp.0.weight": torch.zeros(64, 2048),
        "context_embedder.weight": torch.zeros(64, 4096),
        "final_layer.linear.weight": torch.zeros(64, 64),
        "pos_embed": torch.zeros(1, 192 * 192, 64),
    }
