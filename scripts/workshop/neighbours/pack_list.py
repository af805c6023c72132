"""Which packs are run, and which module here has their rows. To add a pack, name it here and write its rows there."""

from typing import NamedTuple

CORE = "ComfyUI"
"""The pack of ComfyUI's own nodes."""


class Pack(NamedTuple):
    """A public pack; its clone lies in a folder of the repository's name."""

    owner: str
    """Of the repository on GitHub."""
    modules: tuple[str, ...]
    """Of this folder, with a table ROWS that has the pack."""


PACKS = {
    CORE: Pack("comfyanonymous", ("core_nodes", "control", "animation")),
    "ComfyUI_IPAdapter_plus": Pack("cubiq", ("attention",)),
    "attention-couple-ComfyUI": Pack("laksjdjf", ("regions",)),
    "ComfyUI-ComfyCouple": Pack("Danand", ("regions",)),
    "cgem156-ComfyUI": Pack("laksjdjf", ("regions",)),
    "ComfyUI-ppm": Pack("pamparamm", ("regions", "prompts")),
    "comfyui-prompt-control": Pack("asagi4", ("regions",)),
    "comfyui-tooling-nodes": Pack("Acly", ("regions",)),
    "ComfyUI_densediffusion": Pack("huchenlei", ("regions",)),
    "sd-perturbed-attention": Pack("pamparamm", ("attention",)),
    "ComfyUI-NAG": Pack("ChenDarYen", ("attention",)),
    "ComfyUI-Advanced-ControlNet": Pack("Kosinkadink", ("control",)),
    "ComfyUI-IC-Light": Pack("kijai", ("control",)),
    "ComfyUI-TiledDiffusion": Pack("shiimizu", ("control",)),
    "ComfyUI-AnimateDiff-Evolved": Pack("Kosinkadink", ("animation",)),
    "efficiency-nodes-comfyui": Pack("jags111", ("samplers",)),
    "ComfyUI-Inspire-Pack": Pack("ltdrdata", ("samplers",)),
    "ComfyUI-Impact-Pack": Pack("ltdrdata", ("samplers",)),
    "ComfyUI_UltimateSDUpscale": Pack("ssitu", ("samplers",)),
    "ComfyUI_tinyterraNodes": Pack("TinyTerra", ("samplers",)),
    "ComfyUI-Easy-Use": Pack("yolain", ("samplers",)),
    "ComfyUI_TiledKSampler": Pack("BlenderNeko", ("samplers",)),
    "ComfyUI-KJNodes": Pack("kijai", ("samplers", "guidance")),
    "sd-dynamic-thresholding": Pack("mcmonkeyprojects", ("guidance",)),
    "ComfyUI-AutomaticCFG": Pack("Extraltodeus", ("guidance",)),
    "ComfyUI_essentials": Pack("cubiq", ("guidance",)),
    "Comfy-WaveSpeed": Pack("chengzeyi", ("around_the_unet",)),
    "ComfyUI-deepcache": Pack("styler00dollar", ("around_the_unet",)),
    "comfyui-inpaint-nodes": Pack("Acly", ("control",)),
    "ControlNet-LLLite-ComfyUI": Pack("kohya-ss", ("control",)),
    "ComfyUI_InstantID": Pack("cubiq", ("faces",)),
    "ComfyUI-ELLA": Pack("TencentQQGYLab", ("prompts",)),
    "ComfyUI_smZNodes": Pack("shiimizu", ("prompts",)),
    "ComfyUI-GGUF": Pack("city96", ("loaders",)),
    "ComfyUI-Detail-Daemon": Pack("Jonseed", ("samplers",)),
    "ComfyUI_restart_sampling": Pack("ssitu", ("samplers",)),
    "ComfyUI-sampler-lcm-alternative": Pack("jojkaart", ("samplers",)),
    "FreeU_Advanced": Pack("WASasquatch", ("guidance",)),
    "Skimmed_CFG": Pack("Extraltodeus", ("guidance",)),
    "pre_cfg_comfy_nodes_for_ComfyUI": Pack("Extraltodeus", ("guidance",)),
    "ComfyUI-Latent-Modifiers": Pack("Clybius", ("guidance",)),
    "RES4LYF": Pack("ClownsharkBatwing", ("samplers",)),
}
