"""A pack whose node runs its own sampler, and the MODEL line before that, once more: as loops do, by node expansion."""

from typing import Any

from comfy_execution.graph_utils import GraphBuilder, is_link


class OnceMore:
    """Takes a LATENT from a sampler; gives what copies of the nodes before it draw from that latent, at CFG 3."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "expand"
    CATEGORY = "testing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"latent": ("LATENT", {"rawLink": True})},
            "hidden": {"prompt": "DYNPROMPT"},
        }

    def expand(self, latent: list, prompt: Any) -> dict[str, Any]:
        graph, sampler = GraphBuilder(), latent[0]
        model = prompt.get_node(sampler)["inputs"]["model"][0]
        for number in (sampler, model):
            graph.node(prompt.get_node(number)["class_type"], number).set_override_display_id(number)
        for number in (sampler, model):
            for name, value in prompt.get_node(number)["inputs"].items():
                copied = graph.lookup_node(value[0]) if is_link(value) else None
                graph.lookup_node(number).set_input(name, copied.out(value[1]) if copied else value)
        again = graph.lookup_node(sampler)
        again.set_input("latent_image", latent)
        again.set_input("cfg", 3.0)
        return {"result": (again.out(0),), "expand": graph.finalize()}


NODE_CLASS_MAPPINGS = {"OnceMore": OnceMore}
