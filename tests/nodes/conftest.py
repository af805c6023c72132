"""What tests of several nodes use. pytest imports it before ComfyUI is there."""

import shutil

import pytest


@pytest.fixture
def folder(tmp_path, monkeypatch, reference_folder):
    """The model folder `sun`, with the reference adapter as adapter.safetensors."""
    import folder_paths

    shutil.copy(reference_folder / "sun_adapter_fp16.safetensors", tmp_path / "adapter.safetensors")
    extensions = folder_paths.folder_names_and_paths["sun"][1]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "sun", ([str(tmp_path)], extensions))
    folder_paths.filename_list_cache.clear()
    return tmp_path


@pytest.fixture
def execute():
    """A node's outputs, run as ComfyUI runs it (0.3.75 takes hidden inputs as they are, 0.33 under a key)."""
    from comfy_api.latest import io

    def execute(node, node_id="7", **inputs):
        hidden = {io.Hidden.unique_id: node_id}
        return node.PREPARE_CLASS_CLONE({**hidden, "hidden_inputs": hidden}).EXECUTE_NORMALIZED(**inputs).args

    return execute
