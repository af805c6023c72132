"""Draws the corpus: workflows as ComfyUI's page saves them, and as its API takes them, one for each thing to convert.

    python3 -m tests.conversion.make_corpus

Writes corpus/<name>.json, and what is made of it: corpus/<name>.expected.json by `speed_up` and, if the negative prompt
hardly counts in it, corpus/negative/<name>.json by `negative`. Look at these before they are committed.
"""

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"

# type: (slots (name:type), widgets (name:type), outputs (name:type), width, height)
TYPES: dict[str, tuple[str, str, str, int, int]] = {
    "CheckpointLoaderSimple": ("", "ckpt_name:COMBO", "MODEL:MODEL CLIP:CLIP VAE:VAE", 315, 98),
    "UNETLoader": ("", "unet_name:COMBO weight_dtype:COMBO", "MODEL:MODEL", 315, 82),
    "ImageOnlyCheckpointLoader": ("", "ckpt_name:COMBO", "MODEL:MODEL CLIP_VISION:CLIP_VISION VAE:VAE", 315, 98),
    "CLIPTextEncode": ("clip:CLIP", "text:STRING", "CONDITIONING:CONDITIONING", 400, 200),
    "EmptyLatentImage": ("", "width:INT height:INT batch_size:INT", "LATENT:LATENT", 315, 106),
    "LatentUpscale": (
        "samples:LATENT",
        "upscale_method:COMBO width:INT height:INT crop:COMBO",
        "LATENT:LATENT",
        315,
        130,
    ),
    "VAEDecode": ("samples:LATENT vae:VAE", "", "IMAGE:IMAGE", 210, 46),
    "VAEEncode": ("pixels:IMAGE vae:VAE", "", "LATENT:LATENT", 210, 46),
    "VAEEncodeForInpaint": ("pixels:IMAGE vae:VAE mask:MASK", "grow_mask_by:INT", "LATENT:LATENT", 270, 98),
    "LoadImage": ("", "image:COMBO upload:IMAGEUPLOAD", "IMAGE:IMAGE MASK:MASK", 315, 314),
    "SaveImage": ("images:IMAGE", "filename_prefix:STRING", "", 315, 270),
    "LoraLoader": (
        "model:MODEL clip:CLIP",
        "lora_name:COMBO strength_model:FLOAT strength_clip:FLOAT",
        "MODEL:MODEL CLIP:CLIP",
        315,
        126,
    ),
    "LoraLoaderModelOnly": ("model:MODEL", "lora_name:COMBO strength_model:FLOAT", "MODEL:MODEL", 315, 82),
    "ModelMergeSimple": ("model1:MODEL model2:MODEL", "ratio:FLOAT", "MODEL:MODEL", 315, 78),
    "DifferentialDiffusion": ("model:MODEL", "", "MODEL:MODEL", 210, 26),
    "FreeU_V2": ("model:MODEL", "b1:FLOAT b2:FLOAT s1:FLOAT s2:FLOAT", "MODEL:MODEL", 315, 130),
    "RescaleCFG": ("model:MODEL", "multiplier:FLOAT", "MODEL:MODEL", 315, 58),
    "ModelSamplingDiscrete": ("model:MODEL", "sampling:COMBO zsnr:BOOLEAN", "MODEL:MODEL", 315, 82),
    "ModelSamplingFlux": (
        "model:MODEL",
        "max_shift:FLOAT base_shift:FLOAT width:INT height:INT",
        "MODEL:MODEL",
        315,
        130,
    ),
    "ModelSamplingSD3": ("model:MODEL", "shift:FLOAT", "MODEL:MODEL", 315, 58),
    "VideoLinearCFGGuidance": ("model:MODEL", "min_cfg:FLOAT", "MODEL:MODEL", 315, 58),
    "IPAdapterAdvanced": (
        "model:MODEL ipadapter:IPADAPTER image:IMAGE",
        "weight:FLOAT weight_type:COMBO start_at:FLOAT end_at:FLOAT",
        "MODEL:MODEL",
        315,
        278,
    ),
    "IPAdapterModelLoader": ("", "ipadapter_file:COMBO", "IPADAPTER:IPADAPTER", 315, 58),
    "Power Lora Loader (rgthree)": ("model:MODEL clip:CLIP", "", "MODEL:MODEL CLIP:CLIP", 340, 142),
    "ControlNetLoader": ("", "control_net_name:COMBO", "CONTROL_NET:CONTROL_NET", 315, 58),
    "ControlNetApplyAdvanced": (
        "positive:CONDITIONING negative:CONDITIONING control_net:CONTROL_NET image:IMAGE",
        "strength:FLOAT start_percent:FLOAT end_percent:FLOAT",
        "positive:CONDITIONING negative:CONDITIONING",
        315,
        186,
    ),
    "KSampler": (
        "model:MODEL positive:CONDITIONING negative:CONDITIONING latent_image:LATENT",
        "seed:INT+ steps:INT cfg:FLOAT sampler_name:COMBO scheduler:COMBO denoise:FLOAT",
        "LATENT:LATENT",
        315,
        262,
    ),
    "KSamplerAdvanced": (
        "model:MODEL positive:CONDITIONING negative:CONDITIONING latent_image:LATENT",
        "add_noise:COMBO noise_seed:INT+ steps:INT cfg:FLOAT sampler_name:COMBO scheduler:COMBO start_at_step:INT "
        "end_at_step:INT return_with_leftover_noise:COMBO",
        "LATENT:LATENT",
        315,
        334,
    ),
    "KSampler (Efficient)": (
        "model:MODEL positive:CONDITIONING negative:CONDITIONING latent_image:LATENT optional_vae:VAE",
        "seed:INT steps:INT cfg:FLOAT sampler_name:COMBO scheduler:COMBO denoise:FLOAT preview_method:COMBO "
        "vae_decode:COMBO",
        "MODEL:MODEL CONDITIONING+:CONDITIONING CONDITIONING-:CONDITIONING LATENT:LATENT VAE:VAE IMAGE:IMAGE",
        325,
        562,
    ),
    "FaceDetailer": (
        "image:IMAGE model:MODEL clip:CLIP vae:VAE positive:CONDITIONING negative:CONDITIONING",
        "guide_size:FLOAT guide_size_for:BOOLEAN max_size:FLOAT seed:INT+ steps:INT cfg:FLOAT sampler_name:COMBO "
        "scheduler:COMBO denoise:FLOAT feather:INT noise_mask:BOOLEAN",
        "image:IMAGE",
        400,
        800,
    ),
    "KSampler Adv. (Efficient)": (
        "model:MODEL positive:CONDITIONING negative:CONDITIONING latent_image:LATENT",
        "add_noise:COMBO noise_seed:INT+ steps:INT cfg:FLOAT sampler_name:COMBO scheduler:COMBO start_at_step:INT "
        "end_at_step:INT return_with_leftover_noise:COMBO preview_method:COMBO",
        "LATENT:LATENT",
        325,
        562,
    ),
    "ToBasicPipe": (
        "model:MODEL clip:CLIP vae:VAE positive:CONDITIONING negative:CONDITIONING",
        "",
        "basic_pipe:BASIC_PIPE",
        210,
        120,
    ),
    "ImpactKSamplerBasicPipe": (
        "basic_pipe:BASIC_PIPE latent_image:LATENT",
        "seed:INT+ steps:INT cfg:FLOAT sampler_name:COMBO scheduler:COMBO denoise:FLOAT",
        "basic_pipe:BASIC_PIPE LATENT:LATENT VAE:VAE",
        315,
        262,
    ),
    "SeargeSampler": (
        "model:MODEL positive:CONDITIONING negative:CONDITIONING latent_image:LATENT",
        "quality:COMBO",
        "LATENT:LATENT",
        315,
        262,
    ),
    "easy fullkSampler": (
        "pipe:PIPE_LINE model:MODEL latent:LATENT",
        "steps:INT cfg:FLOAT sampler_name:COMBO scheduler:COMBO denoise:FLOAT",
        "pipe:PIPE_LINE image:IMAGE",
        325,
        562,
    ),
    "easy kSampler": ("pipe:PIPE_LINE model:MODEL", "image_output:COMBO", "pipe:PIPE_LINE image:IMAGE", 325, 562),
    "KSampler SDXL (Eff.)": (
        "sdxl_tuple:SDXL_TUPLE latent_image:LATENT",
        "noise_seed:INT+ steps:INT cfg:FLOAT sampler_name:COMBO scheduler:COMBO start_at_step:INT refine_at_step:INT",
        "SDXL_TUPLE:SDXL_TUPLE LATENT:LATENT",
        325,
        562,
    ),
    "BrushNet": (
        "model:MODEL positive:CONDITIONING negative:CONDITIONING",
        "scale:FLOAT",
        "model:MODEL positive:CONDITIONING negative:CONDITIONING latent:LATENT",
        325,
        562,
    ),
    "StepsCounter": ("", "steps:INT", "INT:INT", 210, 58),
    "SamplerCustom": (
        "model:MODEL positive:CONDITIONING negative:CONDITIONING sampler:SAMPLER sigmas:SIGMAS latent_image:LATENT",
        "add_noise:BOOLEAN noise_seed:INT+ cfg:FLOAT",
        "output:LATENT denoised_output:LATENT",
        355,
        442,
    ),
    "SamplerCustomAdvanced": (
        "noise:NOISE guider:GUIDER sampler:SAMPLER sigmas:SIGMAS latent_image:LATENT",
        "",
        "output:LATENT denoised_output:LATENT",
        272,
        124,
    ),
    "CFGGuider": ("model:MODEL positive:CONDITIONING negative:CONDITIONING", "cfg:FLOAT", "GUIDER:GUIDER", 315, 98),
    "BasicGuider": ("model:MODEL conditioning:CONDITIONING", "", "GUIDER:GUIDER", 222, 46),
    "RandomNoise": ("", "noise_seed:INT+", "NOISE:NOISE", 315, 82),
    "KSamplerSelect": ("", "sampler_name:COMBO", "SAMPLER:SAMPLER", 315, 58),
    "SamplerEulerAncestral": ("", "eta:FLOAT s_noise:FLOAT", "SAMPLER:SAMPLER", 315, 82),
    "BasicScheduler": ("model:MODEL", "scheduler:COMBO steps:INT denoise:FLOAT", "SIGMAS:SIGMAS", 315, 106),
    "KarrasScheduler": ("", "steps:INT sigma_max:FLOAT sigma_min:FLOAT rho:FLOAT", "SIGMAS:SIGMAS", 315, 130),
    "ManualSigmas": ("", "sigmas:STRING", "SIGMAS:SIGMAS", 315, 58),
    "SDTurboScheduler": ("model:MODEL", "steps:INT denoise:FLOAT", "SIGMAS:SIGMAS", 315, 82),
    "SplitSigmas": ("sigmas:SIGMAS", "step:INT", "high_sigmas:SIGMAS low_sigmas:SIGMAS", 315, 78),
    "Reroute": (":*", "", ":MODEL", 75, 26),
    "PrimitiveInt": ("", "value:INT+", "INT:INT", 270, 82),
    "SomeInt": ("", "number:INT", "INT:INT", 210, 58),
    "SetNode": ("MODEL:MODEL", "name:STRING", "*:*", 210, 58),
    "GetNode": ("", "name:STRING", "MODEL:MODEL", 210, 58),
    "SUNSpeedUp": ("model:MODEL", "adapter_name:COMBO strength:FLOAT settings:COMBO", "MODEL:MODEL", 300, 130),
    "SUNSampler": (
        "model:MODEL positive:CONDITIONING negative:CONDITIONING latent_image:LATENT",
        "seed:INT+ steps:INT sampler_name:COMBO denoise:FLOAT",
        "LATENT:LATENT",
        315,
        214,
    ),
}
KSAMPLER = [42, "fixed", 25, 7.5, "dpmpp_2m", "karras", 1.0]


def pairs(text: str) -> list[tuple[str, str]]:
    return [tuple(part.rsplit(":", 1)) for part in text.split()]  # type: ignore[misc]


class Graph:
    """A graph on paper. Nodes go into columns from left to right, one below the other.

    `widget_slots`: newer pages give every widget an input slot; older ones only those that were turned into inputs.
    """

    def __init__(self, widget_slots: bool = True) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.links: list[list[Any]] = []
        self.groups: list[dict[str, Any]] = []
        self.extra: dict[str, Any] = {"ds": {"scale": 1.0, "offset": [0, 0]}}
        self.widget_slots = widget_slots
        self.column, self.row = 0, 0.0
        self.first_id = 1

    def next_column(self) -> None:
        self.column += 1
        self.row = 0.0

    def node(self, type_: str, values: Any = (), /, mode: int = 0, title: str = "", **links: Any) -> dict[str, Any]:
        """Adds a node; `links` are (node, output slot) by input name, with `__` for a space."""
        slots, widgets, outputs, width, height = TYPES[type_]
        names = [*pairs(slots)]
        inputs: list[dict[str, Any]] = [{"name": name, "type": kind, "link": None} for name, kind in names]
        for name, kind in pairs(widgets):
            if kind == "IMAGEUPLOAD" or not (self.widget_slots or name in links):
                continue
            inputs.append({"name": name, "type": kind.rstrip("+"), "widget": {"name": name}, "link": None})
        node: dict[str, Any] = {
            "id": self.first_id + len(self.nodes),
            "type": type_,
            "pos": [450 * self.column, self.row],
            "size": [width, height],
            "flags": {},
            "order": len(self.nodes),
            "mode": mode,
            "inputs": inputs,
            "outputs": [{"name": name, "type": kind, "links": []} for name, kind in pairs(outputs)],
            "properties": {"Node name for S&R": type_},
            "widgets_values": values if isinstance(values, dict) else list(values),
        }
        if title:
            node["title"] = title
        self.row += height + 70
        self.nodes.append(node)
        for name, source in links.items():
            self.link(*source, node, name)
        return node

    def primitive(self, value: Any, kind: str, title: str = "") -> dict[str, Any]:
        """A PrimitiveNode, which the page alone knows."""
        node: dict[str, Any] = {
            "id": self.first_id + len(self.nodes),
            "type": "PrimitiveNode",
            "pos": [450 * self.column, self.row],
            "size": [210, 82],
            "flags": {},
            "order": len(self.nodes),
            "mode": 0,
            "inputs": [],
            "outputs": [{"name": kind, "type": kind, "widget": {"name": title or "value"}, "links": []}],
            "properties": {"Run widget replace on values": False},
            "widgets_values": [value, "fixed"],
        }
        if title:
            node["title"] = title
        self.row += 150
        self.nodes.append(node)
        return node

    def link(self, origin: dict[str, Any], slot: int, target: dict[str, Any], name: str) -> int:
        name = "" if name == "any" else name.replace("__", " ")
        index = next(i for i, one in enumerate(target["inputs"]) if one["name"] == name)
        number = 1 + len(self.links)
        kind = origin["outputs"][slot]["type"]
        self.links.append([number, origin["id"], slot, target["id"], index, kind])
        origin["outputs"][slot]["links"].append(number)
        target["inputs"][index]["link"] = number
        if target.get("type") == "Reroute":
            target["outputs"][0]["type"] = kind
        return number

    def reroute(self, number: int, x: float, y: float, links: list[int], parent: int | None = None) -> None:
        """A native reroute: a point that links run through. The link ends at the last one of its chain."""
        point: dict[str, Any] = {"id": number, "pos": [x, y], "linkIds": links}
        if parent is not None:
            point["parentId"] = parent
        self.extra.setdefault("reroutes", []).append(point)
        extensions = {entry["id"]: entry for entry in self.extra.setdefault("linkExtensions", [])}
        for link in links:
            extensions[link] = {"id": link, "parentId": number}
        self.extra["linkExtensions"] = list(extensions.values())

    def group(self, title: str, x: float, y: float, width: float, height: float) -> None:
        number = 1 + len(self.groups)
        bounding = [x, y, width, height]
        self.groups.append({"id": number, "title": title, "bounding": bounding, "color": "#3f789e", "flags": {}})

    def workflow(self, *subgraphs: dict[str, Any]) -> dict[str, Any]:
        data: dict[str, Any] = {
            "id": "00000000-0000-4000-8000-000000000000",
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": self.nodes,
            "links": self.links,
            "groups": self.groups,
            "config": {},
            "extra": self.extra,
            "version": 0.4,
        }
        if subgraphs:
            data["definitions"] = {"subgraphs": list(subgraphs)}
        return data


class Subgraph(Graph):
    """A subgraph definition: links are objects here, and -10 and -20 stand for its own inputs and outputs."""

    def __init__(self, name: str, number: int, inputs: str, outputs: str) -> None:
        super().__init__()
        self.name, self.id = name, f"{number:08d}-0000-4000-8000-000000000000"
        self.inputs, self.outputs = pairs(inputs), pairs(outputs)
        self.first_id = 100 * number  # pages renumber what has the id of a node of the root
        self.inside = {"id": -10, "outputs": [{"type": kind, "links": []} for _, kind in self.inputs]}
        self.outside = {"id": -20, "inputs": [{"name": name, "link": None} for name, _ in self.outputs]}

    def definition(self) -> dict[str, Any]:
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")

        def slots(named: list[tuple[str, str]], links: list[list[int]]) -> list[dict[str, Any]]:
            return [
                {"id": f"{self.id[:-2]}{i:02d}", "name": name, "type": kind, "linkIds": links[i], "pos": [0, 20 * i]}
                for i, (name, kind) in enumerate(named)
            ]

        return {
            "id": self.id,
            "version": 1,
            "state": {
                "lastGroupId": 0,
                "lastNodeId": self.first_id + len(self.nodes) - 1,
                "lastLinkId": len(self.links),
                "lastRerouteId": 0,
            },
            "revision": 0,
            "config": {},
            "name": self.name,
            "inputNode": {"id": -10, "bounding": [-300, 0, 120, 40 + 20 * len(self.inputs)]},
            "outputNode": {"id": -20, "bounding": [450 * (self.column + 1), 0, 120, 40 + 20 * len(self.outputs)]},
            "inputs": slots(self.inputs, [output["links"] for output in self.inside["outputs"]]),
            "outputs": slots(self.outputs, [[one["link"]] if one["link"] else [] for one in self.outside["inputs"]]),
            "widgets": [],
            "nodes": self.nodes,
            "groups": [],
            "links": [dict(zip(keys, link, strict=True)) for link in self.links],
            "extra": {},
        }

    def type_of(self) -> None:
        """Makes nodes that stand for this subgraph known."""
        slots = " ".join(f"{name}:{kind}" for name, kind in self.inputs)
        outputs = " ".join(f"{name}:{kind}" for name, kind in self.outputs)
        TYPES[self.id] = (slots, "", outputs, 260, 40 + 20 * max(len(self.inputs), len(self.outputs)))


def as_text(workflow: dict[str, Any]) -> str:
    """Write a workflow as JSON with a list of plain values, such as a position or a link, on one line."""
    text = json.dumps(workflow, indent=1, ensure_ascii=False)
    return (
        re.sub(r"\[\n[^\[\]{}]*\]", lambda values: json.dumps(json.loads(values[0]), ensure_ascii=False), text) + "\n"
    )


if __name__ == "__main__":
    from conversion.plan import convert

    from .corpus_cases import CASES

    (CORPUS / "negative").mkdir(parents=True, exist_ok=True)
    for name, draw in CASES.items():
        data = draw()
        for suffix, written in ((".json", data), (".expected.json", convert("speed_up", data)[0])):
            (CORPUS / f"{name}{suffix}").write_text(as_text(written), encoding="utf-8")
        counting, plan = convert("negative", data)
        if plan.edits:
            (CORPUS / "negative" / f"{name}.json").write_text(as_text(counting), encoding="utf-8")
    print(f"{len(CASES)} workflows")
