"""The folder models/sun: its files by name, and what is said of one that is missing."""

import os
import re
import shutil

import folder_paths
import pytest
from sun_pack.conversion.rules import RELEASED
from sun_pack.nodes import adapter_folder
from sun_pack.nodes.adapter_folder import RELEASED_ADAPTER, adapter_named
from sun_pack.nodes.adapters import SUNLoadAdapter
from sun_pack.nodes.apply import SUNSpeedUp
from sun_pack.sun_core.errors import SunError

pytestmark = pytest.mark.usefixtures("folder")


def test_nodes_that_name_the_same_file_share_its_weights():
    adapter = adapter_named("adapter.safetensors")
    assert adapter_named("adapter.safetensors") is adapter
    del adapter


def test_replaced_file_is_loaded_anew_and_runs_the_node_again(folder):
    adapter, state = adapter_named("adapter.safetensors"), SUNLoadAdapter.fingerprint_inputs("adapter.safetensors")
    path = folder / "adapter.safetensors"
    assert SUNLoadAdapter.fingerprint_inputs("adapter.safetensors") == state
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert SUNLoadAdapter.fingerprint_inputs("adapter.safetensors") != state
    assert adapter_named("adapter.safetensors") is not adapter


def test_what_images_remember_of_a_file_holds_no_path(folder):
    for node in (SUNSpeedUp, SUNLoadAdapter):
        for name in ("adapter.safetensors", "gone.safetensors", None):
            assert re.fullmatch(r"[0-9a-f]{16}", node.fingerprint_inputs(adapter_name=name))


def test_widget_lists_safetensors_files_only(folder):
    for name in ("a.sft", "b.ckpt", "c.pt", "d.txt"):
        (folder / name).touch()
    folder_paths.filename_list_cache.clear()
    assert adapter_folder.adapter_names() == ["a.sft", "adapter.safetensors"]


def test_folder_named_in_extra_model_paths_is_kept(monkeypatch, tmp_path):
    """ComfyUI reads the yaml first and leaves its folders without extensions."""
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "sun", (["/from/yaml"], set()))
    adapter_folder.register_folder()
    paths, extensions = folder_paths.folder_names_and_paths["sun"]
    assert paths == ["/from/yaml", os.path.join(folder_paths.models_dir, "sun")]
    assert extensions == {".safetensors", ".sft"}


def test_file_that_is_there_is_valid():
    for node in (SUNSpeedUp, SUNLoadAdapter):
        assert node.validate_inputs(adapter_name="adapter.safetensors") is True


def test_name_that_comes_over_a_link_is_looked_at_when_the_node_runs():
    for node in (SUNSpeedUp, SUNLoadAdapter):
        assert node.validate_inputs() is True
    with pytest.raises(SunError, match=r"gone\.safetensors is no longer in"):
        adapter_named("gone.safetensors")


def test_file_that_is_gone_is_said_to_be_gone(folder):
    (folder / "other.safetensors").touch()
    (folder / "adapter.safetensors").unlink()
    folder_paths.filename_list_cache.clear()
    message = SUNSpeedUp.validate_inputs(adapter_name="adapter.safetensors")
    assert message == (
        f"The SUN adapter adapter.safetensors is no longer in {folder}; "
        "put it back, or choose another one (other.safetensors)."
    )


def test_empty_folder_names_the_released_adapter_and_where_to_put_it(folder):
    (folder / "adapter.safetensors").unlink()
    folder_paths.filename_list_cache.clear()
    assert SUNLoadAdapter.define_schema().inputs[0].options == [RELEASED_ADAPTER]
    for name in (RELEASED_ADAPTER, "adapter.safetensors"):
        message = SUNLoadAdapter.validate_inputs(adapter_name=name)
        for part in (RELEASED_ADAPTER, "76.8 MB, MIT", RELEASED["url"], str(folder)):
            assert part in message


@pytest.mark.parametrize("name", [3, True, {}, [], "x" * 10**6])
def test_name_that_cannot_be_a_files_is_named(name):
    for node in (SUNSpeedUp, SUNLoadAdapter):
        message = node.validate_inputs(adapter_name=name)
        assert message.endswith("cannot be the name of a SUN adapter; choose a file from the list.")
        assert len(message) < 200 and node.fingerprint_inputs(adapter_name=name)


def test_no_name_is_named_when_the_node_runs():
    with pytest.raises(SunError, match=r"No SUN adapter is chosen"):
        adapter_named(None)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "\0.safetensors", "\ud800.safetensors"])
def test_name_that_points_out_of_the_folder_is_not_followed(folder, name):
    shutil.copy(folder / "adapter.safetensors", folder.parent / "outside.safetensors")
    assert isinstance(SUNSpeedUp.validate_inputs(adapter_name=name), str)
