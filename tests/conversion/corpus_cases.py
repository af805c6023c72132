"""The workflows of the corpus, drawn by make_corpus.py. Each shows one thing that a conversion has to get right."""

from collections.abc import Callable
from typing import Any

from .make_corpus import CHECKPOINT, KSAMPLER, Graph, Subgraph

Node = dict[str, Any]
CASES: dict[str, Callable[[], dict[str, Any]]] = {}
SIZE = [512, 512, 1]


def case(draw: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    CASES[draw.__name__] = draw
    return draw


def loader(g: Graph, name: str = CHECKPOINT) -> Node:
    return g.node("CheckpointLoaderSimple", [name])


def prompts(g: Graph, clip: tuple[Node, int]) -> tuple[Node, Node]:
    g.next_column()
    return (
        g.node("CLIPTextEncode", ["a lighthouse on a cliff"], title="Positive", clip=clip),
        g.node("CLIPTextEncode", ["people, text"], title="Negative", clip=clip),
    )


def sampler(g: Graph, model: tuple[Node, int], conds: tuple[Node, Node], latent: Node, values: Any = None) -> Node:
    g.next_column()
    return g.node(
        "KSampler",
        values or KSAMPLER,
        model=model,
        positive=(conds[0], 0),
        negative=(conds[1], 0),
        latent_image=(latent, 0),
    )


def advanced(g: Graph, model: tuple[Node, int], conds: tuple[Node, Node], latent: Node, values: list[Any]) -> Node:
    g.next_column()
    return g.node(
        "KSamplerAdvanced",
        values,
        model=model,
        positive=(conds[0], 0),
        negative=(conds[1], 0),
        latent_image=(latent, 0),
    )


def decode(g: Graph, latent: Node, vae: Node, slot: int = 2) -> None:
    g.next_column()
    image = g.node("VAEDecode", samples=(latent, 0), vae=(vae, slot))
    g.node("SaveImage", ["SUN/corpus"], images=(image, 0))


def simple(g: Graph, checkpoint: str = CHECKPOINT, values: Any = None) -> tuple[Node, Node]:
    """Loader, prompts, latent, KSampler, decode: ComfyUI's default graph. Gives loader and sampler."""
    ckpt = loader(g, checkpoint)
    latent = g.node("EmptyLatentImage", SIZE)
    conds = prompts(g, (ckpt, 1))
    ks = sampler(g, (ckpt, 0), conds, latent, values)
    decode(g, ks, ckpt)
    return ckpt, ks


@case
def text_to_image() -> dict[str, Any]:
    g = Graph()
    simple(g)
    return g.workflow()


@case
def text_to_image_old_file() -> dict[str, Any]:
    """As pages of 2023 saved it: no slots for widgets, positions as objects, no control_after_generate."""
    g = Graph(widget_slots=False)
    simple(g, values=[42, 20, 8, "euler", "normal", 1])
    data = g.workflow()
    for node in data["nodes"]:
        node["pos"] = {"0": node["pos"][0], "1": node["pos"][1]}
        node["size"] = {"0": node["size"][0], "1": node["size"][1]}
    del data["revision"], data["id"]
    return data


@case
def two_samplers_on_one_line() -> dict[str, Any]:
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    lora = g.node("LoraLoader", ["detail.safetensors", 0.8, 1.0], model=(ckpt, 0), clip=(ckpt, 1))
    conds = prompts(g, (lora, 1))
    first = sampler(g, (lora, 0), conds, latent)
    second = g.node(
        "KSampler",
        [7, "randomize", 30, 6.0, "euler_ancestral", "normal", 1.0],
        model=(lora, 0),
        positive=(conds[0], 0),
        negative=(conds[1], 0),
        latent_image=(latent, 0),
    )
    decode(g, first, ckpt)
    decode(g, second, ckpt)
    return g.workflow()


@case
def two_checkpoints() -> dict[str, Any]:
    g = Graph()
    one, two = loader(g), loader(g, "another-sd15-style.safetensors")
    latent = g.node("EmptyLatentImage", SIZE)
    conds = prompts(g, (one, 1))
    others = prompts(g, (two, 1))
    first = sampler(g, (one, 0), conds, latent)
    second = sampler(g, (two, 0), others, first, [7, "fixed", 20, 7.0, "ddim", "ddim_uniform", 0.6])
    decode(g, second, two)
    return g.workflow()


@case
def hires_fix() -> dict[str, Any]:
    """The second pass keeps its denoise."""
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    conds = prompts(g, (ckpt, 1))
    first = sampler(g, (ckpt, 0), conds, latent)
    larger = g.node("LatentUpscale", ["bicubic", 1024, 1024, "disabled"], samples=(first, 0))
    second = sampler(g, (ckpt, 0), conds, larger, [42, "fixed", 14, 7.0, "dpmpp_2m", "simple", 0.5])
    decode(g, second, ckpt)
    return g.workflow()


@case
def image_to_image() -> dict[str, Any]:
    g = Graph()
    ckpt = loader(g)
    picture = g.node("LoadImage", ["example.png", "image"])
    conds = prompts(g, (ckpt, 1))
    latent = g.node("VAEEncode", pixels=(picture, 0), vae=(ckpt, 2))
    ks = sampler(g, (ckpt, 0), conds, latent, [42, "fixed", 20, 8, "dpmpp_2m", "normal", 0.8700000000000001])
    decode(g, ks, ckpt)
    return g.workflow()


@case
def inpaint() -> dict[str, Any]:
    g = Graph()
    ckpt = loader(g, "512-inpainting-v1-5.safetensors")
    picture = g.node("LoadImage", ["example.png", "image"])
    soft = g.node("DifferentialDiffusion", model=(ckpt, 0))
    conds = prompts(g, (ckpt, 1))
    latent = g.node("VAEEncodeForInpaint", [6], pixels=(picture, 0), vae=(ckpt, 2), mask=(picture, 1))
    ks = sampler(g, (soft, 0), conds, latent, [42, "fixed", 20, 8, "uni_pc_bh2", "normal", 1])
    decode(g, ks, ckpt)
    return g.workflow()


@case
def controlnet() -> dict[str, Any]:
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    net = g.node("ControlNetLoader", ["control_v11p_sd15_scribble.safetensors"])
    picture = g.node("LoadImage", ["example.png", "image"])
    positive, negative = prompts(g, (ckpt, 1))
    g.next_column()
    control = g.node(
        "ControlNetApplyAdvanced",
        [1.0, 0.0, 1.0],
        positive=(positive, 0),
        negative=(negative, 0),
        control_net=(net, 0),
        image=(picture, 0),
    )
    g.next_column()
    ks = g.node(
        "KSampler",
        KSAMPLER,
        model=(ckpt, 0),
        positive=(control, 0),
        negative=(control, 1),
        latent_image=(latent, 0),
    )
    decode(g, ks, ckpt)
    return g.workflow()


@case
def lora_stack() -> dict[str, Any]:
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    g.next_column()
    line = ckpt
    for name, strength in (("style", 0.7), ("detail", 0.5), ("light", 0.3)):
        line = g.node("LoraLoader", [f"{name}.safetensors", strength, 1.0], model=(line, 0), clip=(line, 1))
    conds = prompts(g, (line, 1))
    ks = sampler(g, (line, 0), conds, latent)
    decode(g, ks, ckpt)
    return g.workflow()


@case
def power_lora_loader() -> dict[str, Any]:
    """A pack that saves its widgets as objects; the LCM LoRA in it is switched off."""
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    g.next_column()
    values = [
        {},
        {"type": "PowerLoraLoaderHeaderWidget"},
        {"on": True, "lora": "style.safetensors", "strength": 0.7, "strengthTwo": None},
        {"on": False, "lora": "lcm-lora-sdv1-5.safetensors", "strength": 1, "strengthTwo": None},
        {},
        "",
    ]
    loras = g.node("Power Lora Loader (rgthree)", values, model=(ckpt, 0), clip=(ckpt, 1))
    conds = prompts(g, (loras, 1))
    ks = sampler(g, (loras, 0), conds, latent)
    decode(g, ks, ckpt)
    return g.workflow()


@case
def ip_adapter() -> dict[str, Any]:
    """A node of a pack, known by nothing but its MODEL slots."""
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    picture = g.node("LoadImage", ["face.png", "image"])
    model = g.node("IPAdapterModelLoader", ["ip-adapter_sd15.safetensors"])
    g.next_column()
    adapted = g.node(
        "IPAdapterAdvanced", [0.8, "linear", 0, 1], model=(ckpt, 0), ipadapter=(model, 0), image=(picture, 0)
    )
    conds = prompts(g, (ckpt, 1))
    ks = sampler(g, (adapted, 0), conds, latent)
    decode(g, ks, ckpt)
    return g.workflow()


@case
def free_u_and_rescale() -> dict[str, Any]:
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    g.next_column()
    free = g.node("FreeU_V2", [1.3, 1.4, 0.9, 0.2], model=(ckpt, 0))
    rescaled = g.node("RescaleCFG", [0.7], model=(free, 0))
    conds = prompts(g, (ckpt, 1))
    ks = sampler(g, (rescaled, 0), conds, latent)
    decode(g, ks, ckpt)
    return g.workflow()


@case
def model_merge() -> dict[str, Any]:
    g = Graph()
    one, two = loader(g), loader(g, "another-sd15-style.safetensors")
    latent = g.node("EmptyLatentImage", SIZE)
    g.next_column()
    merged = g.node("ModelMergeSimple", [0.5], model1=(one, 0), model2=(two, 0))
    conds = prompts(g, (one, 1))
    ks = sampler(g, (merged, 0), conds, latent)
    decode(g, ks, one)
    return g.workflow()


@case
def reroute_node() -> dict[str, Any]:
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    conds = prompts(g, (ckpt, 1))
    way = g.node("Reroute", any=(ckpt, 0))
    ks = sampler(g, (way, 0), conds, latent)
    decode(g, ks, ckpt)
    return g.workflow()


@case
def reroute_nodes_fan_out() -> dict[str, Any]:
    """One MODEL line, a sampler at the first reroute and one at the second, which nothing else hangs on."""
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    conds = prompts(g, (ckpt, 1))
    way = g.node("Reroute", any=(ckpt, 0))
    first = sampler(g, (way, 0), conds, latent)
    further = g.node("Reroute", any=(way, 0))
    second = sampler(g, (further, 0), conds, first, [42, "fixed", 10, 7.5, "dpmpp_2m", "karras", 0.4])
    decode(g, second, ckpt)
    return g.workflow()


@case
def native_reroute() -> dict[str, Any]:
    """A point on the MODEL link. It stays, on the link to SUN."""
    g = Graph()
    _, ks = simple(g)
    link = ks["inputs"][0]["link"]
    g.reroute(1, 500, -80, [link])
    g.reroute(2, 800, -80, [link], parent=1)
    return g.workflow()


@case
def native_reroutes_of_two_links() -> dict[str, Any]:
    """Two samplers and two links, the second of which goes on through a point of its own."""
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    conds = prompts(g, (ckpt, 1))
    first = sampler(g, (ckpt, 0), conds, latent)
    second = sampler(g, (ckpt, 0), conds, first, [42, "fixed", 10, 7.5, "dpmpp_2m", "karras", 0.4])
    decode(g, second, ckpt)
    links = [node["inputs"][0]["link"] for node in (first, second)]
    g.reroute(1, 500, -80, links)
    g.reroute(2, 1200, -80, links[1:], parent=1)
    return g.workflow()


@case
def native_reroute_shared_with_another_node() -> dict[str, Any]:
    """The point that the sampler's link runs through is also that of a scheduler's link, which stays."""
    g = Graph()
    _, _, guider, scheduler = _custom_advanced(g)
    links = [node["inputs"][0]["link"] for node in (guider, scheduler)]
    g.reroute(1, 300, -80, links)
    return g.workflow()


@case
def bypassed_lora() -> dict[str, Any]:
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    lora = g.node("LoraLoader", ["lcm-lora-sdv1-5.safetensors", 1.0, 1.0], mode=4, model=(ckpt, 0), clip=(ckpt, 1))
    conds = prompts(g, (lora, 1))
    ks = sampler(g, (lora, 0), conds, latent)
    decode(g, ks, ckpt)
    return g.workflow()


@case
def bypassed_and_muted_samplers() -> dict[str, Any]:
    """Only the sampler that runs is changed."""
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    conds = prompts(g, (ckpt, 1))
    links = {"model": (ckpt, 0), "positive": (conds[0], 0), "negative": (conds[1], 0), "latent_image": (latent, 0)}
    g.next_column()
    g.node("KSampler", KSAMPLER, mode=2, **links)
    g.node("KSampler", KSAMPLER, mode=4, **links)
    running = g.node("KSampler", KSAMPLER, **links)
    decode(g, running, ckpt)
    return g.workflow()


@case
def groups() -> dict[str, Any]:
    g = Graph()
    simple(g)
    g.group("Model and size", -20, -80, 380, 400)
    g.group("Prompts", 430, -80, 440, 640)
    g.group("Sampling", 880, -80, 380, 420)
    return g.workflow()


@case
def crowded() -> dict[str, Any]:
    """Nodes stand side by side around the sampler, one of them collapsed."""
    g = Graph()
    _, ks = simple(g)
    ks["pos"] = [900, 0]
    for x in range(300, 1500, 330):
        for y in (-700, -360, 340, 680):
            note = g.node("EmptyLatentImage", SIZE, mode=2)
            note["pos"], note["size"] = [x, y], [310, 290]
    g.nodes[-1]["flags"] = {"collapsed": True}
    return g.workflow()


def _sampling_subgraph(number: int = 1, promoted: str = "") -> Subgraph:
    """Loader, prompts and decoding are outside, and the sampler's `promoted` widgets are inputs too."""
    slots = "model:MODEL positive:CONDITIONING negative:CONDITIONING latent_image:LATENT"
    s = Subgraph("Sampling", number, f"{slots} {promoted}", "LATENT:LATENT")
    links = {name: (s.inside, i) for i, (name, _) in enumerate(s.inputs)}
    s.next_column()
    ks = s.node("KSampler", KSAMPLER, **links)
    s.link(ks, 0, s.outside, "LATENT")
    return s


def _around(g: Graph, s: Subgraph, checkpoint: str = CHECKPOINT) -> Node:
    s.type_of()
    ckpt = loader(g, checkpoint)
    latent = g.node("EmptyLatentImage", SIZE)
    conds = prompts(g, (ckpt, 1))
    g.next_column()
    instance = g.node(
        s.id,
        title="Sampling",
        model=(ckpt, 0),
        positive=(conds[0], 0),
        negative=(conds[1], 0),
        latent_image=(latent, 0),
    )
    decode(g, instance, ckpt)
    return instance


@case
def subgraph_with_the_sampler() -> dict[str, Any]:
    g, s = Graph(), _sampling_subgraph()
    _around(g, s)
    return g.workflow(s.definition())


@case
def subgraph_used_twice() -> dict[str, Any]:
    g, s = Graph(), _sampling_subgraph()
    _around(g, s)
    _around(g, s, "another-sd15-style.safetensors")
    return g.workflow(s.definition())


@case
def subgraph_used_for_flux_as_well() -> dict[str, Any]:
    """What is in the subgraph counts for both, so it stays as it is."""
    g, s = Graph(), _sampling_subgraph()
    _around(g, s)
    _around(g, s, "flux1-dev-fp8.safetensors")
    return g.workflow(s.definition())


PROMOTED = "seed:INT steps:INT cfg:FLOAT denoise:FLOAT"


def _show(instance: Node, *values: Any) -> Node:
    """Makes widgets of the last inputs of a subgraph's node: their values count, not those of the node inside."""
    for slot in instance["inputs"][-len(values) :]:
        slot["widget"] = {"name": slot["name"]}
    instance["widgets_values"] = [*values]
    return instance


@case
def subgraph_with_promoted_settings() -> dict[str, Any]:
    """The inner sampler's seed, steps, cfg and denoise stand on the subgraph's node, with values of their own."""
    g, s = Graph(), _sampling_subgraph(promoted=PROMOTED)
    _show(_around(g, s), 7, 30, 6.5, 0.6)
    return g.workflow(s.definition())


@case
def subgraph_with_settings_promoted_by_an_older_page() -> dict[str, Any]:
    """As pages of late 2025 save it: their list names the inputs, in an order of its own."""
    g, s = Graph(), _sampling_subgraph(promoted=PROMOTED)
    instance = _show(_around(g, s), 30, 6.5, 7, 0.6)
    instance["properties"]["proxyWidgets"] = [["-1", name] for name in ("steps", "cfg", "seed", "denoise")]
    return g.workflow(s.definition())


@case
def subgraph_with_proxies_of_settings() -> dict[str, Any]:
    """A list says which widgets of nodes inside stand on the subgraph's node. Newer pages make links of it and go by
    the values there, older ones by those of the node inside."""
    g, s = Graph(), _sampling_subgraph()
    instance = _around(g, s)
    instance["properties"]["proxyWidgets"] = [[str(s.nodes[0]["id"]), name] for name in ("seed", "steps", "cfg")]
    instance["widgets_values"] = [7, 30, 6.5]
    return g.workflow(s.definition())


@case
def subgraph_with_promoted_settings_used_twice() -> dict[str, Any]:
    """With other values on each of its nodes."""
    g, s = Graph(), _sampling_subgraph(promoted=PROMOTED)
    _show(_around(g, s), 7, 30, 6.5, 0.6)
    _show(_around(g, s, "another-sd15-style.safetensors"), 8, 22, 5.5, 0.9)
    return g.workflow(s.definition())


@case
def subgraph_with_promoted_settings_in_a_subgraph() -> dict[str, Any]:
    """The settings stand on the outermost node."""
    g, inner = Graph(), _sampling_subgraph(1, PROMOTED)
    inner.type_of()
    outer = Subgraph("Sampling with a LoRA", 2, " ".join(f"{n}:{k}" for n, k in inner.inputs), "LATENT:LATENT")
    lora = outer.node("LoraLoaderModelOnly", ["style.safetensors", 0.7], model=(outer.inside, 0))
    outer.next_column()
    rest = {name: (outer.inside, i) for i, (name, _) in enumerate(outer.inputs) if i}
    instance = _show(outer.node(inner.id, model=(lora, 0), **rest), 7, 25, 7.5, 0.6)
    outer.link(instance, 0, outer.outside, "LATENT")
    _show(_around(g, outer), 7, 30, 6.5, 0.6)
    return g.workflow(inner.definition(), outer.definition())


@case
def subgraph_with_promoted_steps_driven_from_outside() -> dict[str, Any]:
    """A primitive outside drives the steps on the subgraph's node, and something else as well."""
    g, s = Graph(), _sampling_subgraph(promoted=PROMOTED)
    steps = g.node("PrimitiveInt", [30, "fixed"])
    instance = _show(_around(g, s), 7, 20, 6.5, 0.6)
    g.link(steps, 0, instance, "steps")
    g.link(steps, 0, g.node("EmptyLatentImage", SIZE), "batch_size")
    return g.workflow(s.definition())


@case
def subgraph_with_promoted_steps_of_two_samplers() -> dict[str, Any]:
    """One is muted and keeps its steps, so those on the subgraph's node stay, and the other sampler is unplugged."""
    g, s = Graph(), _sampling_subgraph(promoted=PROMOTED)
    muted = s.node("KSampler", KSAMPLER, mode=2, model=(s.inside, 0))
    s.link(s.inside, 5, muted, "steps")
    _show(_around(g, s), 7, 30, 6.5, 0.6)
    return g.workflow(s.definition())


@case
def subgraph_with_the_loader() -> dict[str, Any]:
    g = Graph()
    s = Subgraph("Model", 1, "", "MODEL:MODEL CLIP:CLIP VAE:VAE")
    inner = loader(s)
    s.next_column()
    lora = s.node("LoraLoader", ["style.safetensors", 0.7, 1.0], model=(inner, 0), clip=(inner, 1))
    s.link(lora, 0, s.outside, "MODEL")
    s.link(lora, 1, s.outside, "CLIP")
    s.link(inner, 2, s.outside, "VAE")
    s.type_of()
    model = g.node(s.id, title="Model")
    latent = g.node("EmptyLatentImage", SIZE)
    conds = prompts(g, (model, 1))
    ks = sampler(g, (model, 0), conds, latent)
    decode(g, ks, model)
    return g.workflow(s.definition())


@case
def subgraph_in_a_subgraph() -> dict[str, Any]:
    g, inner = Graph(), _sampling_subgraph(1)
    inner.type_of()
    outer = Subgraph("Sampling with a LoRA", 2, " ".join(f"{n}:{k}" for n, k in inner.inputs), "LATENT:LATENT")
    lora = outer.node("LoraLoaderModelOnly", ["style.safetensors", 0.7], model=(outer.inside, 0))
    outer.next_column()
    rest = {name: (outer.inside, i) for i, (name, _) in enumerate(outer.inputs) if i}
    instance = outer.node(inner.id, model=(lora, 0), **rest)
    outer.link(instance, 0, outer.outside, "LATENT")
    _around(g, outer)
    return g.workflow(inner.definition(), outer.definition())


@case
def primitives_drive_steps_and_cfg() -> dict[str, Any]:
    """All that they drive becomes 4 steps and CFG 1: they are set, and stay plugged in."""
    g = Graph(widget_slots=False)
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    steps, cfg = g.primitive(25, "INT", "steps"), g.primitive(7.5, "FLOAT", "cfg")
    conds = prompts(g, (ckpt, 1))
    links = {"model": (ckpt, 0), "positive": (conds[0], 0), "negative": (conds[1], 0)}
    g.next_column()
    first = g.node("KSampler", KSAMPLER, **links, latent_image=(latent, 0), steps=(steps, 0), cfg=(cfg, 0))
    g.next_column()
    second = g.node("KSampler", KSAMPLER, **links, latent_image=(first, 0), steps=(steps, 0), cfg=(cfg, 0))
    decode(g, second, ckpt)
    return g.workflow()


@case
def primitive_shared_with_another_node() -> dict[str, Any]:
    """The steps also drive a node of a pack, which keeps them: the KSampler is unplugged."""
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    steps = g.primitive(25, "INT", "steps")
    conds = prompts(g, (ckpt, 1))
    links = {"positive": (conds[0], 0), "negative": (conds[1], 0)}
    g.next_column()
    first = g.node("KSampler", KSAMPLER, model=(ckpt, 0), **links, latent_image=(latent, 0), steps=(steps, 0))
    g.next_column()
    g.node("StepsCounter", [25], steps=(steps, 0))
    decode(g, first, ckpt, 2)
    return g.workflow()


@case
def primitive_int_through_a_reroute() -> dict[str, Any]:
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    steps = g.node("PrimitiveInt", [25, "fixed"])
    conds = prompts(g, (ckpt, 1))
    way = g.node("Reroute", any=(steps, 0))
    ks = sampler(g, (ckpt, 0), conds, latent)
    g.link(way, 0, ks, "steps")
    decode(g, ks, ckpt)
    return g.workflow()


@case
def steps_from_an_unknown_node() -> dict[str, Any]:
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    number = g.node("SomeInt", [25])
    conds = prompts(g, (ckpt, 1))
    ks = sampler(g, (ckpt, 0), conds, latent)
    g.link(number, 0, ks, "steps")
    decode(g, ks, ckpt)
    return g.workflow()


def _custom_advanced(g: Graph, guider: str = "CFGGuider") -> tuple[Node, Node, Node, Node]:
    """Loader, SamplerCustomAdvanced, guider, scheduler."""
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    conds = prompts(g, (ckpt, 1))
    g.next_column()
    noise = g.node("RandomNoise", [42, "fixed"])
    if guider == "CFGGuider":
        guide = g.node(guider, [7.5], model=(ckpt, 0), positive=(conds[0], 0), negative=(conds[1], 0))
    else:
        guide = g.node(guider, model=(ckpt, 0), conditioning=(conds[0], 0))
    choice = g.node("KSamplerSelect", ["dpmpp_2m_sde"])
    scheduler = g.node("BasicScheduler", ["karras", 25, 1.0], model=(ckpt, 0))
    g.next_column()
    links = {"noise": (noise, 0), "guider": (guide, 0), "sampler": (choice, 0), "sigmas": (scheduler, 0)}
    ks = g.node("SamplerCustomAdvanced", **links, latent_image=(latent, 0))
    decode(g, ks, ckpt)
    return ckpt, ks, guide, scheduler


@case
def custom_advanced() -> dict[str, Any]:
    g = Graph()
    _custom_advanced(g)
    return g.workflow()


@case
def basic_guider() -> dict[str, Any]:
    """Takes no negative prompt: left alone."""
    g = Graph()
    _custom_advanced(g, "BasicGuider")
    return g.workflow()


@case
def custom_with_karras_sigmas() -> dict[str, Any]:
    """A sampler choice with settings of its own; automatic settings replace it when it runs."""
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    conds = prompts(g, (ckpt, 1))
    g.next_column()
    choice = g.node("SamplerEulerAncestral", [1.0, 1.0])
    sigmas = g.node("KarrasScheduler", [25, 14.614642, 0.0291675, 7.0])
    links = {"model": (ckpt, 0), "positive": (conds[0], 0), "negative": (conds[1], 0)}
    g.next_column()
    ks = g.node(
        "SamplerCustom",
        [True, 42, "fixed", 7.5],
        **links,
        sampler=(choice, 0),
        sigmas=(sigmas, 0),
        latent_image=(latent, 0),
    )
    decode(g, ks, ckpt)
    return g.workflow()


@case
def unknown_sigmas() -> dict[str, Any]:
    g = Graph()
    _, ks, _, _ = _custom_advanced(g)
    sigmas = g.node("ManualSigmas", ["14.6, 7.0, 3.0, 1.0, 0.0"])
    slot = ks["inputs"][3]
    old = slot["link"]
    g.links = [link for link in g.links if link[0] != old]
    g.nodes[next(i for i, n in enumerate(g.nodes) if n["type"] == "BasicScheduler")]["outputs"][0]["links"] = []
    g.links.append([old, sigmas["id"], 0, ks["id"], 3, "SIGMAS"])
    sigmas["outputs"][0]["links"] = [old]
    return g.workflow()


@case
def split_sigmas() -> dict[str, Any]:
    """Two samplers share one schedule, cut at step 20 of 25: 3 of 4."""
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    conds = prompts(g, (ckpt, 1))
    g.next_column()
    noise = g.node("RandomNoise", [42, "fixed"])
    guide = g.node("CFGGuider", [7.5], model=(ckpt, 0), positive=(conds[0], 0), negative=(conds[1], 0))
    choice = g.node("KSamplerSelect", ["euler"])
    scheduler = g.node("BasicScheduler", ["normal", 25, 1.0], model=(ckpt, 0))
    split = g.node("SplitSigmas", [20], sigmas=(scheduler, 0))
    common = {"noise": (noise, 0), "guider": (guide, 0), "sampler": (choice, 0)}
    g.next_column()
    first = g.node("SamplerCustomAdvanced", **common, sigmas=(split, 0), latent_image=(latent, 0))
    g.next_column()
    second = g.node("SamplerCustomAdvanced", **common, sigmas=(split, 1), latent_image=(first, 0))
    decode(g, second, ckpt)
    return g.workflow()


@case
def base_and_refiner() -> dict[str, Any]:
    """Two checkpoints share a schedule; one primitive gives the steps, one where the second takes over."""
    g = Graph()
    one, two = loader(g), loader(g, "another-sd15-style.safetensors")
    latent = g.node("EmptyLatentImage", SIZE)
    steps, cut = g.primitive(25, "INT", "steps"), g.primitive(20, "INT", "end_at_step")
    conds = prompts(g, (one, 1))
    first = advanced(
        g,
        (one, 0),
        conds,
        latent,
        ["enable", 42, "fixed", 25, 7.5, "euler", "normal", 0, 20, "enable"],
    )
    second = advanced(
        g,
        (two, 0),
        conds,
        first,
        ["disable", 0, "fixed", 25, 7.5, "euler", "normal", 20, 10000, "disable"],
    )
    for node in (first, second):
        g.link(steps, 0, node, "steps")
    g.link(cut, 0, first, "end_at_step")
    g.link(cut, 0, second, "start_at_step")
    decode(g, second, two)
    return g.workflow()


@case
def three_advanced_passes() -> dict[str, Any]:
    """Cuts at 2 and 3 of 30 steps: all passes keep at least a step."""
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    conds = prompts(g, (ckpt, 1))
    end: Node = latent
    for start, stop, noise, leftover in (
        (0, 2, "enable", "enable"),
        (2, 3, "disable", "enable"),
        (3, 10000, "disable", "disable"),
    ):
        values = [noise, 42, "fixed", 30, 7.0, "dpmpp_2m", "karras", start, stop, leftover]
        end = advanced(g, (ckpt, 0), conds, end, values)
    decode(g, end, ckpt)
    return g.workflow()


@case
def half_of_it_refused() -> dict[str, Any]:
    """The second pass is SDXL's: the first, whose noisy latent it goes on with, stays as well."""
    g = Graph()
    one, two = loader(g), loader(g, "sd_xl_refiner_1.0.safetensors")
    latent = g.node("EmptyLatentImage", SIZE)
    conds = prompts(g, (one, 1))
    first = advanced(g, (one, 0), conds, latent, ["enable", 42, "fixed", 25, 7.5, "euler", "normal", 0, 20, "enable"])
    second = advanced(
        g, (two, 0), conds, first, ["disable", 0, "fixed", 25, 7.5, "euler", "normal", 20, 10000, "disable"]
    )
    decode(g, second, two)
    return g.workflow()


@case
def set_and_get_nodes() -> dict[str, Any]:
    """Links by name, as KJNodes has them."""
    g = Graph()
    ckpt = loader(g)
    g.node("SetNode", ["model"], MODEL=(ckpt, 0))
    latent = g.node("EmptyLatentImage", SIZE)
    conds = prompts(g, (ckpt, 1))
    got = g.node("GetNode", ["model"])
    ks = sampler(g, (got, 0), conds, latent)
    decode(g, ks, ckpt)
    return g.workflow()


@case
def sampler_of_a_pack() -> dict[str, Any]:
    """A sampler whose MODEL comes through a pipe is left alone."""
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    positive, negative = prompts(g, (ckpt, 1))
    g.next_column()
    pipe = g.node(
        "ToBasicPipe", model=(ckpt, 0), clip=(ckpt, 1), vae=(ckpt, 2), positive=(positive, 0), negative=(negative, 0)
    )
    g.next_column()
    g.node("ImpactKSamplerBasicPipe", KSAMPLER, basic_pipe=(pipe, 0), latent_image=(latent, 0))
    return g.workflow()


@case
def flux() -> dict[str, Any]:
    g = Graph()
    unet = g.node("UNETLoader", ["flux1-dev.safetensors", "default"])
    ckpt = loader(g, "flux1-dev-fp8.safetensors")
    latent = g.node("EmptyLatentImage", [1024, 1024, 1])
    g.next_column()
    shifted = g.node("ModelSamplingFlux", [1.15, 0.5, 1024, 1024], model=(unet, 0))
    conds = prompts(g, (ckpt, 1))
    ks = sampler(g, (shifted, 0), conds, latent, [42, "fixed", 20, 1.0, "euler", "simple", 1.0])
    decode(g, ks, ckpt)
    return g.workflow()


@case
def sd3() -> dict[str, Any]:
    g = Graph()
    ckpt = loader(g, "sd3.5_large_fp8_scaled.safetensors")
    latent = g.node("EmptyLatentImage", [1024, 1024, 1])
    g.next_column()
    shifted = g.node("ModelSamplingSD3", [3.0], model=(ckpt, 0))
    conds = prompts(g, (ckpt, 1))
    ks = sampler(g, (shifted, 0), conds, latent, [42, "fixed", 20, 4.0, "euler", "sgm_uniform", 1.0])
    decode(g, ks, ckpt)
    return g.workflow()


@case
def video() -> dict[str, Any]:
    g = Graph()
    svd = g.node("ImageOnlyCheckpointLoader", ["svd_xt.safetensors"])
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", [1024, 576, 1])
    g.next_column()
    guided = g.node("VideoLinearCFGGuidance", [1.0], model=(svd, 0))
    conds = prompts(g, (ckpt, 1))
    ks = sampler(g, (guided, 0), conds, latent, [42, "fixed", 20, 2.5, "euler", "karras", 1.0])
    decode(g, ks, svd)
    return g.workflow()


@case
def sdxl() -> dict[str, Any]:
    g = Graph()
    simple(g, "sd_xl_base_1.0.safetensors")
    return g.workflow()


@case
def sped_up_already() -> dict[str, Any]:
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    g.next_column()
    sun = g.node("SUNSpeedUp", ["sun_adapter_sdv15_4step_addpos.safetensors", 1.0, "automatic"], model=(ckpt, 0))
    conds = prompts(g, (ckpt, 1))
    ks = sampler(g, (sun, 0), conds, latent, [42, "fixed", 4, 1.0, "ddim", "simple", 1.0])
    decode(g, ks, ckpt)
    return g.workflow()


@case
def lcm_lora() -> dict[str, Any]:
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    g.next_column()
    lora = g.node("LoraLoaderModelOnly", ["lcm-lora-sdv1-5.safetensors", 1.0], model=(ckpt, 0))
    sampling = g.node("ModelSamplingDiscrete", ["lcm", False], model=(lora, 0))
    conds = prompts(g, (ckpt, 1))
    ks = sampler(g, (sampling, 0), conds, latent, [42, "fixed", 6, 1.5, "lcm", "sgm_uniform", 1.0])
    decode(g, ks, ckpt)
    return g.workflow()


@case
def sd15_beside_flux() -> dict[str, Any]:
    """One of two is sped up, the other explained."""
    g = Graph()
    simple(g)
    simple(g, "flux1-dev-fp8.safetensors", [42, "fixed", 20, 1.0, "euler", "simple", 1.0])
    return g.workflow()


@case
def sun_sampler_without_sun() -> dict[str, Any]:
    g = Graph()
    ckpt = loader(g)
    latent = g.node("EmptyLatentImage", SIZE)
    conds = prompts(g, (ckpt, 1))
    g.next_column()
    ks = g.node(
        "SUNSampler",
        [42, "fixed", 4, "ddim", 1.0],
        model=(ckpt, 0),
        positive=(conds[0], 0),
        negative=(conds[1], 0),
        latent_image=(latent, 0),
    )
    decode(g, ks, ckpt)
    return g.workflow()


@case
def no_sampler() -> dict[str, Any]:
    g = Graph()
    picture = g.node("LoadImage", ["example.png", "image"])
    g.next_column()
    g.node("SaveImage", ["SUN/corpus"], images=(picture, 0))
    return g.workflow()


def api(*nodes: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        str(i): {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}
        for i, (kind, inputs) in enumerate(nodes, 1)
    }


def api_sampler(model: list[Any], latent: list[Any], **changed: Any) -> tuple[str, dict[str, Any]]:
    values = {"seed": 42, "steps": 25, "cfg": 7.5, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1.0}
    links = {"model": model, "positive": ["2", 0], "negative": ["3", 0], "latent_image": latent}
    return "KSampler", {**values, **links, **changed}


def api_begin(checkpoint: str = CHECKPOINT) -> list[tuple[str, dict[str, Any]]]:
    return [
        ("CheckpointLoaderSimple", {"ckpt_name": checkpoint}),
        ("CLIPTextEncode", {"text": "a lighthouse on a cliff", "clip": ["1", 1]}),
        ("CLIPTextEncode", {"text": "people, text", "clip": ["1", 1]}),
        ("EmptyLatentImage", {"width": 512, "height": 512, "batch_size": 1}),
    ]


def api_end(latent: list[Any], number: int) -> list[tuple[str, dict[str, Any]]]:
    return [
        ("VAEDecode", {"samples": latent, "vae": ["1", 2]}),
        ("SaveImage", {"filename_prefix": "SUN/corpus", "images": [str(number), 0]}),
    ]


@case
def api_text_to_image() -> dict[str, Any]:
    return api(*api_begin(), api_sampler(["1", 0], ["4", 0]), *api_end(["5", 0], 6))


@case
def api_hires_fix_with_a_lora() -> dict[str, Any]:
    lora = {"lora_name": "style.safetensors", "strength_model": 0.7, "strength_clip": 1.0}
    upscale = {"upscale_method": "bicubic", "width": 1024, "height": 1024, "crop": "disabled"}
    return api(
        *api_begin(),
        ("LoraLoader", {**lora, "model": ["1", 0], "clip": ["1", 1]}),
        api_sampler(["5", 0], ["4", 0]),
        ("LatentUpscale", {**upscale, "samples": ["6", 0]}),
        api_sampler(["5", 0], ["7", 0], steps=14, denoise=0.5),
        *api_end(["8", 0], 9),
    )


@case
def api_steps_by_link() -> dict[str, Any]:
    return api(
        *api_begin(),
        ("PrimitiveInt", {"value": 25}),
        ("SomeFloat", {"number": 7.5}),
        api_sampler(["1", 0], ["4", 0], steps=["5", 0], cfg=["6", 0]),
        *api_end(["7", 0], 8),
    )


@case
def api_custom_advanced() -> dict[str, Any]:
    return api(
        *api_begin(),
        ("RandomNoise", {"noise_seed": 42}),
        ("CFGGuider", {"cfg": 7.5, "model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0]}),
        ("KSamplerSelect", {"sampler_name": "euler"}),
        ("BasicScheduler", {"scheduler": "karras", "steps": 25, "denoise": 1.0, "model": ["1", 0]}),
        (
            "SamplerCustomAdvanced",
            {"noise": ["5", 0], "guider": ["6", 0], "sampler": ["7", 0], "sigmas": ["8", 0], "latent_image": ["4", 0]},
        ),
        *api_end(["9", 0], 10),
    )


@case
def api_flux() -> dict[str, Any]:
    return api(*api_begin("flux1-dev-fp8.safetensors"), api_sampler(["1", 0], ["4", 0]), *api_end(["5", 0], 6))
