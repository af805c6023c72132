"""CFG, wherever it is set: what a run does with predictions for the negative prompt, and who reads them.

A CFG scale may live outside of the guider: in a wrapper (CFGOverride), in a guider's own table (RES4LYF), in a schedule
(Inspire). All of them evaluate the sampler's negative, so that is where the automatic settings act: the negative is
not evaluated, and the positive's prediction stands in for it. Then cond + w (cond - uncond) is cond for every w.
"""

import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .measures import Measures

NO_EFFECT = 1e-3
"""Relative change of a prediction below which a function had no effect."""

NEARLY = 1e-4
"""Relative distance of two predictions that make no visible difference and can still be divided by."""

WITHOUT_CFG = 1.0
"""The scale that functions around CFG are told where there is no prediction for the negative, whatever the guider's."""

ASKS_FOR_UNCOND = "disable_cfg1_optimization"
"""Set in model_options by nodes that need the negative's prediction at CFG 1 too, such as Self-Attention Guidance."""


@dataclass
class Guidance:
    """The CFG of one run."""

    measures: Measures
    positives: frozenset[Hashable]
    negatives: frozenset[Hashable]
    """Names of the guider's conditioning entries."""
    automatic: bool
    readers: list["Reader"] = field(default_factory=list)
    had_uncond: bool = False
    """Whether the last batch of several conditionings evaluated its second one, the negative."""

    def __deepcopy__(self, memo: dict) -> "Guidance":
        """Stay the same in copies of a run's options."""
        return self

    def install(self, model_options: dict[str, Any], key: str, *watching: Callable) -> None:
        """Watch and set the guidance of a run; change the run's own options in place.

        watching: further wrappers of the same kind as `calc_cond_batch`, which see what is evaluated.
        """
        self.measures.wants_uncond = bool(model_options.get(ASKS_FOR_UNCOND))
        if "sampler_cfg_function" in model_options:
            model_options["sampler_cfg_function"] = self._reader(model_options["sampler_cfg_function"], CfgReader)
        for name, kind in (("sampler_pre_cfg_function", PreCfgReader), ("sampler_post_cfg_function", PostCfgReader)):
            if name in model_options:
                model_options[name] = [self._reader(function, kind) for function in model_options[name]]
        if self.measures.wants_uncond:
            own = [self._note_scale, *model_options.get("sampler_pre_cfg_function", [])]
            model_options["sampler_pre_cfg_function"] = own
        wrappers = model_options["transformer_options"].setdefault("wrappers", {})
        wrappers[WrappersMP.CALC_COND_BATCH] = {
            key: [self.calc_cond_batch, *watching],
            **wrappers.get(WrappersMP.CALC_COND_BATCH, {}),
        }

    def calc_cond_batch(
        self, executor: Any, model: Any, conds: list[list[dict] | None], *args: Any, **kwargs: Any
    ) -> list[Tensor]:
        """Predict for each conditioning; the positive's prediction stands in for those that are not evaluated."""
        positive = self._positive(conds)
        if positive is None:
            self.had_uncond = True
            return executor(model, conds, *args, **kwargs)
        kept = [None if self._is_dropped(cond) else cond for cond in conds]
        if len(kept) > 1:
            self.had_uncond = kept[1] is not None
        self.measures.dropped += any(old is not new for old, new in zip(conds, kept, strict=True))
        predictions = executor(model, kept, *args, **kwargs)
        stand_ins = self._stand_ins(predictions[positive])
        return [
            prediction if old is new else next(stand_ins)
            for old, new, prediction in zip(conds, kept, predictions, strict=True)
        ]

    def _stand_ins(self, prediction: Tensor) -> Iterator[Tensor]:
        """Give `prediction` for the first conditioning that is not evaluated, and nearly that for all others.

        Perp-Neg has two, and divides by the distance of its positive and its empty prediction.
        """
        yield prediction.clone()
        while True:
            yield prediction * (1 + NEARLY)

    def end(self) -> None:
        """Tell the measures which functions did nothing, and which took predictions away; it waits for the device."""
        in_vain = [reader for reader in self.readers if reader.was_in_vain()]
        self.measures.uncond_readers = list(dict.fromkeys(reader.name for reader in in_vain))
        self.measures.evaluations_in_vain = sum(reader.evaluations for reader in in_vain)
        self.measures.discarded = {reader.name: count for reader in self.readers if (count := reader.discarded())}

    def _positive(self, conds: Sequence[list[dict] | None]) -> int | None:
        """Return the index of the positive in a batch; another prompt than the negative counts as one."""
        candidates = [i for i, cond in enumerate(conds) if cond and not self._is_negative(cond)]
        own = [i for i in candidates if all(entry.get("uuid") in self.positives for entry in conds[i] or ())]
        return next(iter(own or candidates), None)

    def _is_negative(self, cond: list[dict]) -> bool:
        return all(entry.get("uuid") in self.negatives for entry in cond)

    def is_evaluated(self, cond: list[dict] | None) -> bool:
        """Say whether there is a prediction for `cond`, the negative that a function around CFG is given."""
        return cond is not None and not self._is_dropped(cond)

    def _is_dropped(self, cond: list[dict] | None) -> bool:
        return self.automatic and not self.measures.wants_uncond and cond is not None and self._is_negative(cond)

    def _reader(self, function: Callable, kind: type["Reader"]) -> "Reader":
        self.readers.append(kind(function, self))
        return self.readers[-1]

    def _note_scale(self, args: dict[str, Any]) -> list[Tensor]:
        if abs(args["cond_scale"] - 1) > 1e-6:
            self.measures.scales.add(float(args["cond_scale"]))
        return args["conds_out"]


class Reader:
    """A function of another pack around CFG, and whether it reads the prediction for the negative.

    If there is none, ComfyUI gives zeros. A function before or at the combination would guide away from these, so it
    gets the positive's prediction instead; one behind it may know a run without CFG by the zeros, and gets them.
    """

    def __init__(self, function: Callable, guidance: Guidance):
        self.function, self.guidance, self.name = function, guidance, name_of(function)
        self.has_read = False
        self.evaluations = 0
        """Forwards of the U-Net that the function itself asked for."""
        self.change: Tensor | None = None
        """The largest relative change that the function made of a prediction."""
        self.is_discarded: dict[int, Tensor] = {}
        """Whether the function left nothing of a prediction, by the prediction's number."""

    def __deepcopy__(self, memo: dict) -> "Reader":
        """Stay the same in copies of a run's options."""
        return self

    def call(self, args: dict[str, Any], instead: Any = None) -> Any:
        """Call the function, and count the evaluations that it makes.

        `instead`: what a division by CFG - 1 results in where there is no prediction for the negative.
        """
        before = self.guidance.measures.evaluations
        try:
            result = self.function(args)
        except ZeroDivisionError:
            if instead is None:
                raise
            result = instead
        self.evaluations += self.guidance.measures.evaluations - before
        return result

    def scale_without_uncond(self) -> dict[str, float]:
        """Return the argument for a function that is given no prediction for the negative.

        With settings from the sampler the scale stays: it is 1 already, or the guider does not pass the negative on.
        """
        return {"cond_scale": WITHOUT_CFG} if self.guidance.automatic else {}

    def compare(self, before: Tensor, after: Tensor, nothing: Tensor | float) -> None:
        """Keep how much a function changed a prediction; `nothing` is one of a model that predicts no noise.

        It asks the device for nothing, so that no step waits.
        """
        change = (after - before).norm() / before.norm()
        self.change = change if self.change is None else torch.maximum(self.change, change)
        number = self.guidance.measures.predictions
        self.is_discarded[number] = (after == nothing).all() & (before != nothing).any()

    def was_in_vain(self) -> bool:
        """Say whether the function read an uncond and changed nothing with it."""
        return self.has_read and self.change is not None and not float(self.change) > NO_EFFECT

    def discarded(self) -> int:
        """Count the predictions of which the function left nothing."""
        return sum(map(bool, self.is_discarded.values()))


class CfgReader(Reader):
    """A sampler_cfg_function, which combines the two predictions."""

    def __call__(self, args: dict[str, Any]) -> Tensor:
        """Combine: the result has the form of the argument `cond`, which stays what is no number without an uncond.

        That comes of a division by the distance of the two predictions, as Latent Modifiers have it.
        """
        instead, cond = {}, args["cond"].clone()  # the function may change it in place
        is_told = "input_uncond" in args  # by ComfyUI, not by Automatic CFG, which has a sampling function of its own
        if not (self.guidance.is_evaluated(args["input_uncond"]) if is_told else self.guidance.had_uncond):
            stand_ins = {"uncond": args["cond"].clone(), "uncond_denoised": args["cond_denoised"].clone()}
            instead = {**stand_ins, **self.scale_without_uncond()}
        given = WatchedArgs({**args, **instead})
        result = self.call(given, cond if instead else None)
        self.has_read |= not given.read.isdisjoint(("uncond", "uncond_denoised"))
        if instead:
            result = torch.where(result.isnan(), cond, result)
        self.compare(cond, result, 0)
        return result


class PostCfgReader(Reader):
    """A sampler_post_cfg_function, which changes the combined prediction.

    One that compares it with the positive's, as CFGNorm does, needs an uncond too; one that is given the model may
    compare the positive's with a prediction of its own, as Perturbed-Attention Guidance does.
    """

    def __call__(self, args: dict[str, Any]) -> Tensor:
        """Change the argument `denoised`."""
        instead, denoised = {}, args["denoised"].clone()  # the function may change it in place
        if not self.guidance.is_evaluated(args["uncond"]):
            stand_in = {"uncond_denoised": torch.zeros_like(args["uncond_denoised"])}
            instead = {**stand_in, **self.scale_without_uncond()}
        given = WatchedArgs({**args, **instead})
        result = self.call(given, denoised if instead else None)
        compares_alone = "cond_denoised" in given.read and "model" not in given.read
        self.has_read |= "uncond_denoised" in given.read or compares_alone
        self.compare(denoised, result, args["input"])
        return result


class PreCfgReader(Reader):
    """A sampler_pre_cfg_function, which changes the predictions before they are combined."""

    def __call__(self, args: dict[str, Any]) -> list[Tensor]:
        """Change the argument `conds_out`, positive first.

        What becomes of a stand-in counts for nothing and is put aside, whatever CFG the guider combines two predictions
        with: functions that divide by CFG - 1, as some of Skimmed CFG do, make it no number.
        """
        given, scale = list(args["conds_out"]), args["cond_scale"]
        stands_in = self.guidance.automatic and len(given) > 1 and not self.guidance.is_evaluated(args["conds"][1])
        before = given[0].clone() if stands_in else _combined(given, scale)  # the function may change it in place
        instead = self.scale_without_uncond() if stands_in else {}
        if stands_in:
            given[1] = given[0].clone()
        watched = {"conds": WatchedList(args["conds"], self), "conds_out": WatchedList(given, self)}
        result = list.copy(self.call({**args, **instead, **watched}, given if stands_in else None))
        self.compare(before, result[0] if stands_in else _combined(result, scale), args["input"])
        if stands_in:
            result[1:2] = [args["conds_out"][1] if scale == WITHOUT_CFG else result[0]]
        return result


def _combined(predictions: Sequence[Tensor], scale: float) -> Tensor:
    """Combine cond and uncond as ComfyUI does."""
    cond, uncond = predictions[0], predictions[min(1, len(predictions) - 1)]
    return uncond + (cond - uncond) * scale


class WatchedArgs(dict):
    """Arguments that know which of them were read."""

    def __init__(self, args: dict[str, Any]):
        super().__init__(args)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return an argument, as a dict does."""
        return self[key] if key in self else default  # noqa: SIM401 (this is get itself)


class WatchedList(list):
    """Predictions or conditionings, positive first, that tell a Reader when another one is read.

    A function may make its result of this class too, without a Reader.
    """

    def __init__(self, values: Iterable[Any] = (), reader: Reader | None = None):
        super().__init__(values)
        self.reader = reader

    def __getitem__(self, index: Any) -> Any:
        if self.reader is not None:
            self.reader.has_read |= index != 0
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[Any]:
        if self.reader is not None:
            self.reader.has_read |= len(self) > 1
        return super().__iter__()


def name_of(function: Callable) -> str:
    """Return what an artist may know a function by: the class that made it, or its module and name."""
    while isinstance(function, functools.partial):
        function = function.func
    qualified = getattr(function, "__qualname__", type(function).__qualname__)
    wrapped = getattr(function, "__closure__", None)
    if qualified.startswith("ModelPatcher.") and wrapped:  # ComfyUI's, around a function of the old kind
        return name_of(wrapped[0].cell_contents)
    first, *rest = qualified.split(".")
    module = str(getattr(function, "__module__", type(function).__module__)).rpartition(".")[2]
    return first if rest else f"{module}.{first}"
