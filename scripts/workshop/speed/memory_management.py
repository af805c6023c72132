"""ComfyUI's memory management as its main.py starts it: what is measured is what artists have."""

import importlib
import importlib.util
import os
import shutil


def prepare_memory_management() -> None:
    """Do what ComfyUI's main.py does for memory before it imports torch and its own modules."""
    if shutil.which("nvidia-smi"):
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "backend:cudaMallocAsync")
        if importlib.util.find_spec("comfy_aimdo") is not None:
            control = importlib.import_module("comfy_aimdo.control")
            control.init()
            control.set_log_info()  # its default tells Python of every allocation, which takes longer than a kernel


def start_dynamic_vram() -> bool:
    """Switch dynamic VRAM on if main.py of ComfyUI 0.33 does, and say whether it is on.

    It must happen after models with random weights were made: with it, layers have no weights until they are loaded.
    """
    import comfy.cli_args
    import comfy.model_management
    import comfy.model_patcher

    enabled = getattr(comfy.cli_args, "enables_dynamic_vram", lambda: False)()
    if not enabled or not comfy.model_management.is_nvidia() or importlib.util.find_spec("comfy_aimdo") is None:
        return False
    control = importlib.import_module("comfy_aimdo.control")
    headroom = int(comfy.cli_args.args.vram_headroom * 1024**3)
    if not control.init_devices((device.index, headroom) for device in comfy.model_management.get_all_torch_devices()):
        return False
    vars(comfy.model_patcher)["CoreModelPatcher"] = comfy.model_patcher.ModelPatcherDynamic
    vars(importlib.import_module("comfy.memory_management"))["aimdo_enabled"] = True
    return True
