"""Replays the U-Net's forward as a CUDA graph: a fast GPU finishes 1,500 kernels sooner than the host starts them.

A forward is captured in the second run that needs it, kept per shape on the patched MODEL, and compared with an eager
one at two steps before it is trusted. graphs.py has the graphs; this file decides when one is captured and replayed.

Whatever is not known to be safe runs eagerly, and says why: the same picture, later.
"""

import logging
import weakref
from collections.abc import Hashable
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .attention_patch import OVERRIDE_KEY
from .forward import SunForward
from .graphs import (
    CapturedForward,
    Captures,
    Evaluation,
    Inputs,
    check_no_capture_failed,
    free_graphs_of_unloaded_models,
)
from .own_unet import change_of, only_sun_attends, wrappers_of_unet
from .resident_weights import CannotCapture, ResidentWeights, pinned, resident_weights

COMPILE_KEY = "torch.compile"
"""The APPLY_MODEL wrapper of ComfyUI's TorchCompileModel."""
SPARE_MEMORY = 2**30
"""Bytes that must stay free beside a graph."""

_ASK_FOR_MEMORY = (comfy.ldm.modules.attention.attention_split, comfy.ldm.modules.attention.attention_sub_quad)
"""Attention functions that ask for the free memory, which cudaMallocAsync forbids during a capture."""


def check_device(device: torch.device) -> None:
    """Raise CannotCapture unless graphs can be captured on a device."""
    if device.type != "cuda" or torch.version.hip:
        raise CannotCapture("the device is not an NVIDIA GPU")


class Replays:
    """What one run does with the captures of its MODEL."""

    def __init__(self, captures: Captures, model: ModelPatcher, enabled: bool):
        self.captures, self.model = captures, model
        captures.base_model = weakref.ref(model.model)
        free_graphs_of_unloaded_models()
        self.count = 0
        """Forwards that were replayed."""
        self.why_eager: str | None = None
        """Why the last forward that was not replayed was not."""
        self._needed: set[Hashable] = set()
        self._ready_shapes: set[Hashable] = set()
        """Graphs that have this run's small weights."""
        self._weights: ResidentWeights | None = None
        self._loaded: tuple[Any, Any] | None = None
        """What ComfyUI had loaded when the weights were found."""
        self._layout: tuple[SunForward, int] | None = None
        self._have_moved = False
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
        model = self.model
        check_device(model.load_device)
        if not enabled:
            self.captures.clear()
            raise CannotCapture("capture is off in the settings")
        if model.get_additional_models_with_key("multigpu"):
            raise CannotCapture("several GPUs share the run")
        check_no_capture_failed()
        if (change := change_of(model)) is not None:
            raise CannotCapture(change)
        dtype = model.model.diffusion_model.dtype
        if dtype not in (torch.float16, torch.bfloat16, torch.float32):
            raise CannotCapture(f"weights in {str(dtype).removeprefix('torch.')} are not captured")
        if self._free_memory() < SPARE_MEMORY:
            self.captures.clear()
            raise CannotCapture("there is little memory")

    def __call__(self, evaluation: Evaluation) -> Tensor:
        """Replay an evaluation if that is safe, else do it eagerly."""
        if self._is_off:
            return evaluation.eager()
        try:
            self._check_forward(evaluation.options, evaluation.sun)
            shape = self._shape(evaluation.inputs, evaluation.sun)
            if shape in self.captures.unfit:
                raise CannotCapture(self.captures.unfit[shape])
        except CannotCapture as reason:
            self.why_eager = str(reason)
            return evaluation.eager()
        self._needed.add(shape)
        comfy.model_management.throw_exception_if_processing_interrupted()
        try:
            captured = self._ready(shape)
        except CannotCapture as reason:
            self.why_eager = str(reason)
            return evaluation.eager()
        if captured is None:
            return self._eager_and_captured(evaluation, shape)
        replayed = self._replayed(captured, evaluation)
        if replayed is None:
            self._drop_moved(shape)
            return evaluation.eager()
        if not captured.checks_left:
            self.count += 1
            return replayed
        return self._checked(captured, replayed, evaluation.eager(), shape)

    def _ready(self, shape: Hashable) -> CapturedForward | None:
        """Return the graph for a shape, with this run's weights; None if there is none that fits.

        Raises CannotCapture if the weights are not ready.
        """
        captured = self.captures.kept.get(shape)
        if captured is None:
            return None
        self.captures.kept.move_to_end(shape)
        # another model may have pushed this one out meanwhile
        if self._weights is None or self._what_is_loaded() != self._loaded:
            self._find_weights()
        assert self._weights is not None
        if shape not in self._ready_shapes:
            if not captured.weights.is_where(self._weights):
                self._drop_moved(shape)
                return None
            captured.take_small_weights(self._weights)
            self._ready_shapes.add(shape)
        return captured

    def _find_weights(self) -> None:
        self._weights = resident_weights(self.model.model.diffusion_model, self.model.load_device)
        self._loaded, self._ready_shapes = self._what_is_loaded(), set()

    def _drop_moved(self, shape: Hashable) -> None:
        self.captures.drop(shape)
        self._have_moved, self.why_eager = True, "the weights moved"

    def _what_is_loaded(self) -> tuple[Any, Any]:
        base = self.model.model
        return (getattr(base, "model_loaded_weight_memory", None), getattr(base, "current_weight_patches_uuid", None))

    def _replayed(self, captured: CapturedForward, evaluation: Evaluation) -> Tensor | None:
        assert self._weights is not None
        with pinned(self._weights.block) as signature:
            if signature != captured.signature:
                return None
            return captured.replay(evaluation.inputs, evaluation.sun)

    def _eager_and_captured(self, evaluation: Evaluation, shape: Hashable) -> Tensor:
        if shape not in self.captures.seen:
            self.why_eager = self.why_eager or "a forward is captured in the second run that needs it"
            return evaluation.eager()
        if self._have_moved:  # the next run captures, if its weights stay
            return evaluation.eager()
        eager = evaluation.eager_anew()
        try:
            check_no_capture_failed()  # in an earlier step of this run
            if self._free_memory() < 2 * self._memory(evaluation.inputs) + SPARE_MEMORY:
                raise CannotCapture("there is little memory")
            self._find_weights()
            assert self._weights is not None
            with pinned(self._weights.block) as signature:
                if signature is None:
                    raise CannotCapture("weights are still being loaded")
                place = self.captures.place(eager.device)
                captured = CapturedForward(evaluation, self._weights, signature, eager, place)
            replayed = self._replayed(captured, evaluation)
        except CannotCapture as reason:
            self.why_eager = str(reason)
            return eager
        except comfy.model_management.InterruptProcessingException:
            raise
        except torch.cuda.OutOfMemoryError:
            self._turn_off(CannotCapture("there is little memory"))
            return eager
        except Exception as error:  # whatever CUDA, torch and Triton raise
            logging.info(f"SUN does not capture this forward: {' '.join(str(error).split())[:200]}")
            self.captures.unfit[shape] = "the forward cannot be captured"
            self._turn_off(CannotCapture(self.captures.unfit[shape]))
            return eager
        if replayed is None:
            captured.free()
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
        is_foreign = options.get("patches") or any(patches for kind, patches in replace.items() if kind != "attn2")
        if is_foreign or not only_sun_attends(options):
            raise CannotCapture("another node patches the U-Net")
        if COMPILE_KEY in options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {}):
            raise CannotCapture("torch.compile is on the model")
        if comfy.ldm.modules.attention.optimized_attention in _ASK_FOR_MEMORY:
            raise CannotCapture("the attention function looks at the free memory")
        if OVERRIDE_KEY in options or len(wrappers_of_unet(options)) > 1:
            raise CannotCapture("another node wraps the U-Net")

    def _shape(self, inputs: Inputs, sun: SunForward) -> Hashable:
        if self._layout is None or self._layout[0] is not sun:
            layout = (*map(_shape_of, sun.tensors()), *sun.constants(), sun.row_count, sun.is_one_text)
            self._layout = sun, self.captures.layouts.setdefault(layout, len(self.captures.layouts))
        return (
            *((name, _shape_of(tensor)) for name, tensor in inputs.items()),
            self._layout[1],
            comfy.ldm.modules.attention.optimized_attention,
            torch.get_float32_matmul_precision(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cuda"),
        )

    def _free_memory(self) -> float:
        return comfy.model_management.get_free_memory(self.model.load_device) - self.captures.bytes

    def _memory(self, inputs: Inputs) -> float:
        x = inputs["x"]
        assert x is not None
        return float(self.model.model.memory_required(list(x.shape)))

    def end(self) -> None:
        """Remember what this run needed."""
        self.captures.seen |= self._needed
        self._weights = self._layout = None


def _shape_of(tensor: Tensor | None) -> Hashable:
    return None if tensor is None else (tensor.shape, tensor.stride(), tensor.dtype, tensor.device)


def _is_same(replayed: Tensor, eager: Tensor) -> bool:
    """Compare: bit-equal in fp32, 1e-3 in half precision, where a kernel may be chosen anew."""
    if eager.dtype == torch.float32:
        return torch.equal(replayed, eager)
    difference = (replayed.float() - eager.float()).norm() / eager.float().norm()
    return bool(difference <= 1e-3)
