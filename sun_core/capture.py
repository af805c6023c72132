"""Replays the U-Net's forward as a CUDA graph: a fast GPU finishes 1,500 kernels sooner than the host starts them.

A forward is captured in the second run that needs it, kept per shape on the patched MODEL, and compared with an eager
one at two steps before it is trusted. Inputs, keys and values are copied into buffers that the graph reads. Weights
are read where they lie: a graph is used only while they lie where they did.

Whatever is not known to be safe runs eagerly, and says why: the same picture, later.
"""

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import comfy.ldm.modules.attention
import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .attention_patch import SunAttention
from .forward import SunForward
from .resident_weights import CannotCapture, ResidentWeights, pinned, resident_weights

COMPILE_KEY = "torch.compile"
"""The APPLY_MODEL wrapper of ComfyUI's TorchCompileModel."""
MOST_GRAPHS = 4
"""Graphs that one MODEL keeps; each holds the memory of a forward."""
SPARE_MEMORY = 2**30
"""Bytes that must stay free beside a graph."""
CHECKS = 2
"""Steps at which a new graph is compared with an eager forward."""

_failed: list[Exception] = []
"""Why captures failed. Their frames hold memory that CUDA's allocator cannot free outside of the capture."""

_CORE_FORWARDS = (
    openaimodel.UNetModel.forward,
    openaimodel.UNetModel._forward,
    openaimodel.ResBlock.forward,
    openaimodel.ResBlock._forward,
    comfy.ldm.modules.attention.SpatialTransformer.forward,
    comfy.ldm.modules.attention.BasicTransformerBlock.forward,
    comfy.ldm.modules.attention.CrossAttention.forward,
)
"""What a U-Net's forward is made of; another pack may have put its own in their place before this is read."""

Forward = Callable[[dict[str, Tensor | None], dict[str, Any]], Tensor]
"""Evaluates the U-Net eagerly: inputs by name, transformer_options -> prediction."""


class CapturedForward:
    """One forward of the U-Net as a CUDA graph, with the buffers that it reads and writes."""

    def __init__(
        self,
        forward: Forward,
        inputs: dict[str, Tensor | None],
        options: dict[str, Any],
        sun: SunForward,
        key: str,
        weights: ResidentWeights,
        signature: bytes,
    ):
        """Capture `forward`, which has run eagerly with the same `inputs` just before.

        `sun` stands in `options` under `key`; `signature` is that of the pages that `weights` lie in.
        """
        self.weights, self.signature = weights, signature
        self.inputs = {name: None if tensor is None else tensor.clone() for name, tensor in inputs.items()}
        self.sun_tensors = [tensor.clone() for tensor in sun.tensors()]
        own = {**options, key: sun.with_tensors(iter(self.sun_tensors))}
        x = inputs["x"]
        assert x is not None
        self.output = torch.empty_like(x)
        self.graph = torch.cuda.CUDAGraph()
        self.small = weights.copy_small()
        with weights.replaced_small(self.small), torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.output.copy_(forward(self.inputs, own))
        self.checks_left = CHECKS
        self._loaded: Callable[[], SunForward | None] = lambda: None

    def take_small_weights(self, weights: ResidentWeights) -> None:
        """Copy the small weights to where the graph reads them."""
        torch._foreach_copy_(self.small, weights.small_tensors())

    def replay(self, inputs: dict[str, Tensor | None], sun: SunForward) -> Tensor:
        """Evaluate with other inputs, and with other keys and values if the run is another one."""
        for name, own in self.inputs.items():
            if own is not None:
                own.copy_(inputs[name])  # type: ignore[arg-type]
        if self._loaded() is not sun:
            torch._foreach_copy_(self.sun_tensors, sun.tensors())
            self._loaded = weakref.ref(sun)
        self.graph.replay()
        return self.output.clone()

    def free(self) -> None:
        """Give the graph's memory back."""
        self.graph.reset()


@dataclass
class Captures:
    """The captured forwards of one patched MODEL; its clones share them."""

    kept: OrderedDict[Hashable, CapturedForward] = field(default_factory=OrderedDict)
    seen: set[Hashable] = field(default_factory=set)
    """What earlier runs needed: a forward that one run needs once is not worth a graph."""
    unfit: dict[Hashable, str] = field(default_factory=dict)
    """Why a forward is not captured again."""

    def __deepcopy__(self, memo: dict) -> "Captures":
        """Stay the same in copies of a run's options."""
        return self

    def clear(self) -> None:
        """Free all graphs."""
        while self.kept:
            self.kept.popitem()[1].free()

    def keep(self, key: Hashable, captured: CapturedForward) -> None:
        """Keep a graph, and free the one that was used longest ago if there are too many."""
        self.drop(key)
        self.kept[key] = captured
        while len(self.kept) > MOST_GRAPHS:
            self.kept.popitem(last=False)[1].free()

    def drop(self, key: Hashable) -> None:
        """Free one graph, if it is there."""
        if captured := self.kept.pop(key, None):
            captured.free()


class Replays:
    """What one run does with the captures of its MODEL."""

    def __init__(self, captures: Captures, model: ModelPatcher, enabled: bool):
        self.captures, self.model = captures, model
        self.count = 0
        """Forwards that were replayed."""
        self.why_eager: str | None = None
        """Why the last forward that was not replayed was not."""
        self._needed: set[Hashable] = set()
        self._ready_shapes: set[Hashable] = set()
        """Graphs that have this run's small weights."""
        self._weights: ResidentWeights | None = None
        self._is_off = False
        try:
            self._check_model(enabled)
        except CannotCapture as reason:
            self._turn_off(reason)

    def __deepcopy__(self, memo: dict) -> "Replays":
        """Stay the same in copies of a run's options."""
        return self

    def _turn_off(self, reason: CannotCapture) -> None:
        self._is_off, self.why_eager = True, str(reason)

    def _check_model(self, enabled: bool) -> None:
        model, device = self.model, self.model.load_device
        if device.type != "cuda" or torch.version.hip:
            raise CannotCapture("the device is not an NVIDIA GPU")
        if torch.cuda.get_allocator_backend() != "native":
            raise CannotCapture("the cudaMallocAsync allocator is on; start ComfyUI with --disable-cuda-malloc")
        if not enabled:
            raise CannotCapture("capture is off in the settings")
        if model.get_additional_models_with_key("multigpu"):
            raise CannotCapture("several GPUs share the run")
        unet = model.model.diffusion_model
        here = (type(unet), type(unet).forward, type(unet)._forward)
        if here != (openaimodel.UNetModel, *_CORE_FORWARDS[:2]) or any(
            not function.__module__.startswith("comfy.ldm.") for function in _CORE_FORWARDS
        ):
            raise CannotCapture("the U-Net is not ComfyUI's own")
        if any(key.startswith("diffusion_model") for key in (*model.object_patches, *model.object_patches_backup)):
            raise CannotCapture("another node changes the U-Net's modules")
        if model.injections or model.hook_patches or model.forced_hooks:
            raise CannotCapture("another node changes the model while it runs")
        if unet.dtype not in (torch.float16, torch.bfloat16, torch.float32):
            raise CannotCapture(f"weights in {str(unet.dtype).removeprefix('torch.')} are not captured")
        if comfy.model_management.get_free_memory(device) < SPARE_MEMORY:
            self.captures.clear()
            raise CannotCapture("there is little memory")

    def __call__(
        self, forward: Forward, inputs: dict[str, Tensor | None], options: dict[str, Any], sun: SunForward, key: str
    ) -> Tensor:
        """Replay the forward if that is safe, else evaluate it eagerly; `sun` stands in `options` under `key`."""
        if self._is_off:
            return forward(inputs, options)
        try:
            self._check_forward(options, sun)
            shape = self._shape(inputs, sun)
            if shape in self.captures.unfit:
                raise CannotCapture(self.captures.unfit[shape])
        except CannotCapture as reason:
            self.why_eager = str(reason)
            return forward(inputs, options)
        self._needed.add(shape)
        comfy.model_management.throw_exception_if_processing_interrupted()
        captured = self._ready(shape)
        if captured is None:
            return self._eager_and_captured(forward, inputs, options, sun, key, shape)
        replayed = self._replayed(captured, inputs, sun)
        if replayed is None:
            self.captures.drop(shape)
            self.why_eager = "the weights moved"
            return forward(inputs, options)
        if not captured.checks_left:
            self.count += 1
            return replayed
        return self._checked(captured, replayed, forward(inputs, options), shape)

    def _ready(self, shape: Hashable) -> CapturedForward | None:
        """Return the graph for a shape, with this run's weights; None if there is none that fits."""
        captured = self.captures.kept.get(shape)
        if captured is None:
            return None
        self.captures.kept.move_to_end(shape)
        if self._weights is None:
            try:
                self._weights = resident_weights(self.model.model.diffusion_model, self.model.load_device)
            except CannotCapture as reason:
                self.why_eager = str(reason)
                return None
        if not captured.weights.is_where(self._weights):
            self.captures.drop(shape)
            return None
        if shape not in self._ready_shapes:
            captured.take_small_weights(self._weights)
            self._ready_shapes.add(shape)
        return captured

    def _replayed(self, captured: CapturedForward, inputs: dict[str, Tensor | None], sun: SunForward) -> Tensor | None:
        assert self._weights is not None
        with pinned(self._weights.block) as signature:
            if signature != captured.signature:
                return None
            return captured.replay(inputs, sun)

    def _eager_and_captured(
        self,
        forward: Forward,
        inputs: dict[str, Tensor | None],
        options: dict[str, Any],
        sun: SunForward,
        key: str,
        shape: Hashable,
    ) -> Tensor:
        eager = forward(inputs, options)
        if shape not in self.captures.seen:
            self.why_eager = self.why_eager or "a forward is captured in the second run that needs it"
            return eager
        try:
            if comfy.model_management.get_free_memory(self.model.load_device) < 2 * self._memory(inputs) + SPARE_MEMORY:
                raise CannotCapture("there is little memory")
            self._weights = resident_weights(self.model.model.diffusion_model, self.model.load_device)
            with pinned(self._weights.block) as signature:
                if signature is None:
                    raise CannotCapture("weights are still being loaded")
                captured = CapturedForward(forward, inputs, options, sun, key, self._weights, signature)
            replayed = self._replayed(captured, inputs, sun)
        except CannotCapture as reason:
            self.why_eager = str(reason)
            return eager
        except comfy.model_management.InterruptProcessingException:
            raise
        except Exception as error:  # whatever CUDA, torch and Triton raise
            _failed.append(error)
            logging.info(f"SUN does not capture this forward: {' '.join(str(error).split())[:200]}")
            self.captures.unfit[shape] = self.why_eager = "the forward cannot be captured"
            return eager
        if replayed is None:
            return eager
        self.captures.keep(shape, captured)
        return self._checked(captured, replayed, eager, shape)

    def _checked(self, captured: CapturedForward, replayed: Tensor, eager: Tensor, shape: Hashable) -> Tensor:
        captured.checks_left -= 1
        self.why_eager = "the graph was being checked"
        if not _is_same(replayed, eager):
            self.captures.drop(shape)
            self.captures.unfit[shape] = self.why_eager = "the replayed forward differed from the eager one"
        return eager

    def _check_forward(self, options: dict[str, Any], sun: SunForward) -> None:
        if sun.rows is not None or sun.masked:
            raise CannotCapture("the run has a CFG pass or a masked negative")
        replace = options.get("patches_replace", {})
        attentions = replace.get("attn2", {}).values()
        is_foreign = options.get("patches") or any(patches for kind, patches in replace.items() if kind != "attn2")
        if is_foreign or any(not isinstance(a, SunAttention) or a.neighbour or a.callbacks for a in attentions):
            raise CannotCapture("another node patches the U-Net")
        wrappers = options.get("wrappers", {}).get(WrappersMP.DIFFUSION_MODEL, {})
        if COMPILE_KEY in options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {}):
            raise CannotCapture("torch.compile is on the model")
        if "optimized_attention_override" in options or len([w for of_key in wrappers.values() for w in of_key]) > 1:
            raise CannotCapture("another node wraps the U-Net")

    def _shape(self, inputs: dict[str, Tensor | None], sun: SunForward) -> Hashable:
        described = [(name, _shape_of(tensor)) for name, tensor in inputs.items()]
        return (*described, *map(_shape_of, sun.tensors()), sun.row_count, torch.is_inference_mode_enabled())

    def _memory(self, inputs: dict[str, Tensor | None]) -> float:
        x = inputs["x"]
        assert x is not None
        return float(self.model.model.memory_required(list(x.shape)))

    def end(self) -> None:
        """Remember what this run needed."""
        self.captures.seen |= self._needed
        self._weights = None


def _shape_of(tensor: Tensor | None) -> Hashable:
    return None if tensor is None else (tensor.shape, tensor.stride(), tensor.dtype, tensor.device)


def _is_same(replayed: Tensor, eager: Tensor) -> bool:
    """Compare: bit-equal in fp32, 1e-3 in half precision, where a kernel may be chosen anew."""
    if eager.dtype == torch.float32:
        return torch.equal(replayed, eager)
    difference = (replayed.float() - eager.float()).norm() / eager.float().norm()
    return bool(difference <= 1e-3)
