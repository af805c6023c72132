"""Train SUN Adapter and Save SUN Adapter, on the mini family at a few pixels, executed as ComfyUI executes them."""

import importlib
import json
import re
import sys
from pathlib import Path

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import pytest
import torch
from comfy_api.latest import io
from sun_pack.nodes import language
from sun_pack.nodes.train import SUNSaveAdapter, SUNTrain
from sun_pack.sun_core.adapter import SunAdapter, load_adapter
from sun_pack.sun_core.apply import apply_sun
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.settings import SunSettings
from sun_pack.sun_core.training.evaluation import Evaluation
from sun_pack.sun_core.training.trainer import Trainer

from ..sun_core.unet_configs import SDXL

DEMO = Path(__file__).parents[2] / "demo"
CPU = torch.device("cpu")
SIZE = 32
PROMPTS = "a red cat in the snow\na blue boat at sunset\n\na pink mushroom in the snow"


@pytest.fixture(scope="module")
def mini():
    """(MODEL, CLIP, VAE) as a loader node of ComfyUI makes them: in inference mode."""
    import mini_family  # noqa: F401  (registers the family)

    with torch.inference_mode():
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
            str(DEMO / "mini_family" / "weights" / "mini-storybook.safetensors")
        )
    return model, clip, vae


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The model folder `sun`, empty."""
    extensions = folder_paths.folder_names_and_paths["sun"][1]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "sun", ([str(tmp_path)], extensions))
    return tmp_path


def execute(node, **inputs):
    hidden = {io.Hidden.unique_id: "7"}
    with torch.inference_mode():
        return node.PREPARE_CLASS_CLONE({**hidden, "hidden_inputs": hidden}).EXECUTE_NORMALIZED(**inputs).args


def train(mini, lists=None, **inputs):
    """SUNTrain's outputs; as with every node that takes lists, all its inputs are lists."""
    model, clip, vae = mini
    widgets = {
        "model": model, "clip": clip, "prompts": PROMPTS, "negatives": "red", "steps": 2, "batch_size": 2,
        "grad_accumulation_steps": 1, "learning_rate": 1e-3, "guidance": 3.0, "segments": "4", "width": SIZE,
        "height": SIZE, "gradient_checkpointing": False, "preview_every": 0, "seed": 0, "vae": vae,
    }  # fmt: skip
    values = {name: [value] for name, value in (widgets | inputs).items() if value is not None}
    return execute(SUNTrain, **(values | (lists or {})))


def test_training_gives_an_adapter_that_fits_its_model_and_leaves_the_model_as_it_was(mini):
    model = mini[0]
    before = {key: (w.clone(), w.is_inference()) for key, w in model.model.diffusion_model.state_dict().items()}
    adapter, loss = train(mini)
    for key, weight in model.model.diffusion_model.state_dict().items():
        assert torch.equal(weight, before[key][0]) and weight.is_inference() == before[key][1], key
    untrained = SunAdapter.for_unet(model.model.diffusion_model).state_dict()
    assert all(not torch.equal(w, untrained[key]) for key, w in adapter.state_dict().items() if "alpha" in key)
    assert loss.ndim == 4 and loss.shape[0] == 1 and loss.shape[3] == 3 and loss.min() >= 0 and loss.max() <= 1
    apply_sun(model, adapter, SunSettings())
    assert adapter.metadata["steps"] == "4" and "unfinished" not in adapter.metadata
    assert json.loads(adapter.metadata["evaluation"])["psnr_to_teacher_25"] > 0


def test_gradient_checkpointing_gives_the_same_adapter(mini):
    plain, checkpointed = (train(mini, gradient_checkpointing=on, vae=None)[0] for on in (False, True))
    for key, weight in plain.state_dict().items():
        torch.testing.assert_close(checkpointed.state_dict()[key], weight)


def test_connected_pictures_and_latents_are_trained_on(mini):
    images = [torch.rand(1, 40, 50, 3), torch.rand(2, SIZE, SIZE, 3)]  # as another node's list comes
    with torch.inference_mode():
        latents = [{"samples": mini[2].encode(torch.rand(3, SIZE, SIZE, 3))}]
    for connected in ({"images": images}, {"latents": latents}):
        adapter, _ = train(mini, connected, steps=1)
        assert json.loads(adapter.metadata["data"])["examples"] == 3
        untrained = SunAdapter.for_unet(mini[0].model.diffusion_model).state_dict()
        assert not torch.equal(adapter.state_dict()["1.to_k_neg.weight"], untrained["1.to_k_neg.weight"])


def test_an_adapter_can_be_trained_further(mini):
    start = SunAdapter.for_unet(mini[0].model.diffusion_model, extra_positive=False)
    adapter, _ = train(mini, sun_adapter=start, steps=1, learning_rate=1e-6, vae=None)
    assert not adapter.layout.extra_positive
    for key, weight in adapter.state_dict().items():
        torch.testing.assert_close(weight, start.state_dict()[key], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "lists", "says"),
    [
        ({"prompts": "\n"}, {}, "no prompts"),
        (
            {"prompts": "a\nb"},
            {"latents": [{"samples": torch.zeros(3, 4, 4, 4)}]},
            r"pictures \(3\) and the prompts \(2\)",
        ),
        ({}, {"latents": [{"samples": torch.zeros(3, 4, 8, 8)}]}, "64x64"),
        ({}, {"latents": [{"samples": torch.zeros(3, 4, 1, 4, 4)}]}, "shape 4x1x4x4, and this MODEL.s have 4 channels"),
        ({}, {"latents": [{"samples": torch.zeros(3, 16, 4, 4)}]}, "shape 16x4x4, and this MODEL.s have 4 channels"),
        ({"vae": None}, {"images": [torch.zeros(3, SIZE, SIZE, 3)]}, "needs the VAE"),
        ({"width": 33}, {}, "multiple of 8"),
        ({"prompts": "a cat, " * 90_000}, {}, "has 629,999 characters, and 10,000 are the most"),
        ({"negatives": "a cat, " * 90_000}, {}, "has 629,999 characters"),
        ({"prompts": "(" * 4000 + "a cat" + ")" * 4000}, {}, "nests parentheses too deeply"),
        ({"prompts": "half of a smile, \ud83d"}, {}, "lone surrogate"),
    ],
)
def test_inputs_that_do_not_go_together_are_named(mini, inputs, lists, says):
    with pytest.raises(SunError, match=says) as refused:
        train(mini, lists, **inputs)
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)


def test_a_package_that_is_missing_is_named(mini, monkeypatch):
    for module in [name for name in sys.modules if name.startswith(("sun_pack.nodes.training", "accelerate"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.delitem(sys.modules, "sun_pack.sun_core.training.processes", raising=False)
    monkeypatch.delitem(sys.modules, "sun_pack.sun_core.training.session", raising=False)
    with pytest.raises(SunError, match="pip install accelerate"):
        train(mini)


def test_a_model_with_sun_cannot_be_the_teacher(mini):
    with_sun = apply_sun(mini[0], SunAdapter.for_unet(mini[0].model.diffusion_model), SunSettings())
    with pytest.raises(SunError, match="has a SUN adapter on it already"):
        train(mini, model=with_sun)


def test_an_interrupt_saves_what_was_learned_and_ends_the_run(mini, folder, monkeypatch):
    shown = []

    def interrupt(value, total, preview, **_):
        shown.append((value, total))
        comfy.model_management.interrupt_current_processing()

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", interrupt)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train(mini, steps=50, batch_size=1)
    assert shown == [(1, 50)]
    (file,) = folder.iterdir()
    adapter = load_adapter(file)
    assert adapter.metadata["unfinished"] == "1 of 50 training steps"
    assert not any(weight.is_inference() and weight.requires_grad for weight in adapter.parameters())


def test_an_interrupt_of_the_last_comparison_saves_what_was_learned(mini, folder, monkeypatch):
    figures = Evaluation.figures

    def interrupted(*args):
        comfy.model_management.interrupt_current_processing()
        return figures(*args)

    monkeypatch.setattr(Evaluation, "figures", interrupted)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train(mini, steps=1, batch_size=1)
    (file,) = folder.iterdir()
    assert json.loads(load_adapter(file).metadata["recipe"])["steps_done"] == 1


def test_an_error_saves_what_was_learned_unless_that_is_broken(mini, folder, monkeypatch):
    loss = Trainer._loss

    def failing(trainer, step, number):
        if step == 1:
            raise SunError("The second step fails.")
        return loss(trainer, step, number)

    monkeypatch.setattr(Trainer, "_loss", failing)
    with pytest.raises(SunError, match="The second step fails"):
        train(mini, batch_size=1, vae=None)
    (file,) = folder.iterdir()
    assert load_adapter(file).metadata["unfinished"] == "1 of 2 training steps"
    file.unlink()

    def breaking(trainer, step, number):
        trainer.loop.average["1.to_k_neg_alpha"].fill_(float("nan"))
        return failing(trainer, step, number)

    monkeypatch.setattr(Trainer, "_loss", breaking)
    with pytest.raises(SunError, match="The second step fails"):
        train(mini, batch_size=1, vae=None)
    assert not list(folder.iterdir())


def test_sdxl_adapters_get_no_extra_positive_branch():
    """On a MODEL of SDXL's size whose weights take no memory."""
    config = {**SDXL, "dtype": torch.bfloat16}
    base = comfy.model_base.SDXL(comfy.supported_models.SDXL(config), device=torch.device("meta"))
    widgets = {
        "model": comfy.model_patcher.ModelPatcher(base, CPU, CPU), "steps": 1, "batch_size": 1,
        "grad_accumulation_steps": 1, "learning_rate": 1e-4, "guidance": 6.0, "segments": "4", "width": 1024,
        "height": 1024, "gradient_checkpointing": True, "preview_every": 0, "seed": 0,
    }  # fmt: skip
    config = importlib.import_module("sun_pack.nodes.training")._config(widgets, [])
    assert not config.extra_positive
    assert (config.guidance, config.precision, config.batch_size) == ((6.0, 6.0), "bf16", 1)


def test_the_comparison_of_teacher_and_student_is_shown_while_it_runs(mini, monkeypatch):
    previews = {}
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, preview, **_: previews.update({value: preview})
    )
    train(mini, steps=3, batch_size=1, preview_every=2)
    assert previews[1] is None and previews[3] is None
    kind, picture, _ = previews[2]
    assert kind == "JPEG" and picture.width == 3 * SIZE and picture.height > 2 * SIZE


def test_saving_never_overwrites_and_can_be_loaded_again(mini, folder):
    adapter = SunAdapter.for_unet(mini[0].model.diffusion_model)
    for _ in range(2):
        execute(SUNSaveAdapter, sun_adapter=adapter, filename_prefix="mine")
    first, second = sorted(folder.iterdir())
    assert (first.name, second.name) == ("mine_00001_.safetensors", "mine_00002_.safetensors")
    assert load_adapter(second).layout == adapter.layout


@pytest.fixture
def no_folder(tmp_path, monkeypatch):
    """A model folder `sun` that cannot be written to."""
    (tmp_path / "file").write_text("not a folder")
    extensions = folder_paths.folder_names_and_paths["sun"][1]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "sun", ([str(tmp_path / "file")], extensions))


def test_a_folder_that_cannot_be_written_to_is_named(mini, no_folder):
    adapter = SunAdapter.for_unet(mini[0].model.diffusion_model)
    with pytest.raises(SunError, match=r"mine_00001_\.safetensors cannot be written to .*file"):
        execute(SUNSaveAdapter, sun_adapter=adapter, filename_prefix="mine")


def test_an_interrupt_stays_an_interrupt_if_nothing_can_be_saved(mini, no_folder, monkeypatch):
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda *_, **__: comfy.model_management.interrupt_current_processing()
    )
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train(mini, steps=50, batch_size=1, vae=None)


def test_what_could_not_be_saved_is_english_in_the_log_and_the_pages_language_on_the_node(mini, folder, monkeypatch):
    monkeypatch.setattr(language, "page_language", lambda: "zh")
    monkeypatch.setattr(SunError, "translate", staticmethod(language.in_page_language))
    loss = Trainer._loss

    def failing(trainer, step, number):
        if step == 1:
            trainer.loop.average["1.to_k_neg_alpha"].fill_(1e6)  # more than fp16 has, which files are written in
            raise SunError("The second step fails.")
        return loss(trainer, step, number)

    monkeypatch.setattr(Trainer, "_loss", failing)
    told = []
    monkeypatch.setattr("sun_pack.nodes.train.node_report", lambda _: told.append)
    with pytest.raises(SunError, match="The second step fails"):
        train(mini, batch_size=1, vae=None)
    assert told == [
        "Ended after 1 steps; what was learned could not be saved (The adapter was not saved: it has weights that are "
        "not numbers in float16 (NaN or too large); train it again with a lower learning rate.)."
    ]
    assert re.search("已学到的内容无法保存（适配器没有保存：.*学习率重新训练。）", language.in_page_language(told[0]))


@pytest.mark.parametrize("prefix", ["../mine", "/mine", "", ".hidden", "a\\b", "sub/mine", "a" * 300, "\ud800", "\0"])
def test_an_invalid_file_name_is_refused(mini, folder, prefix):
    adapter = SunAdapter.for_unet(mini[0].model.diffusion_model)
    with pytest.raises(SunError, match=r"cannot be a file's name|is too long"):
        execute(SUNSaveAdapter, sun_adapter=adapter, filename_prefix=prefix)
    assert not list(folder.iterdir())
