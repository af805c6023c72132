"""How SUN works on a MODEL: with an adapter, or with the U-Net's own layers. All that differs between the two."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .automatic import automatic_settings, findings_of_part, no_guidance
from .branches import AdapterBranches, BranchSource, OwnBranches, Strengths
from .errors import Text
from .nag import NagSettings
from .transformer_branches import TransformerBranches
from .transformers import transformer_of

Automatic = AbstractContextManager[tuple[Any, Tensor, list[str]]]
"""The sampler and the sigmas to run with, and what was changed; the guider is changed for the time of the run."""


class Settings(Protocol):
    """What the hooks ask for. Percents are of the sampling schedule, as everywhere in ComfyUI."""

    @property
    def start_percent(self) -> float: ...
    @property
    def end_percent(self) -> float: ...
    @property
    def automatic(self) -> bool:
        """Whether something of the run is set, whatever the sampler says."""
        ...

    @property
    def is_off(self) -> bool:
        """Whether the MODEL samples as if SUN were not there."""
        ...

    @property
    def node(self) -> str:
        """The node with an input for a negative prompt, as an artist knows it."""
        ...

    def source(self, model: ModelPatcher) -> BranchSource:
        """Return what makes the branches in a run of `model`."""
        ...

    def automatic_settings(self, guider: Any, sampler: Any, sigmas: Tensor) -> Automatic:
        """Set what a run needs."""
        ...

    def findings_of_part(self, guider: Any, sigmas: Tensor) -> list[str]:
        """Say what is wrong with the sampler's own `sigmas`, as the part of a picture's steps that they are."""
        ...


@dataclass(frozen=True)
class SunSettings:
    """How an adapter works on a MODEL."""

    negative_strength: float = 1.0
    positive_strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    automatic: bool = True
    """CFG 1, trailing sigmas and a deterministic sampler, whatever the sampler says."""
    node = Text("Apply SUN Adapter")

    @property
    def is_off(self) -> bool:
        """Whether the MODEL samples as if SUN were not there: at strength 0."""
        return self.negative_strength == 0 and self.positive_strength == 0

    def source(self, model: ModelPatcher) -> AdapterBranches:
        """Return what makes the branches: the adapter on `model`."""
        return AdapterBranches.on(model, Strengths(self.negative_strength, self.positive_strength))

    def automatic_settings(self, guider: Any, sampler: Any, sigmas: Tensor) -> Automatic:
        """Set what adapters are made for."""
        return automatic_settings(guider, sampler, sigmas)

    def findings_of_part(self, guider: Any, sigmas: Tensor) -> list[str]:
        """Say whether the next sampler goes on at a noise level that adapters are not made for."""
        return findings_of_part(guider, sigmas)


@dataclass(frozen=True)
class NegativeSettings:
    """How a negative prompt works at CFG 1 without an adapter."""

    nag: NagSettings = field(default_factory=NagSettings)
    start_percent: float = 0.0
    end_percent: float = 1.0
    automatic: bool = True
    """CFG 1, whatever the sampler says; the rest is the sampler's."""
    node = Text("Negative Prompt at CFG 1")

    @property
    def is_off(self) -> bool:
        """Whether the MODEL samples as if SUN were not there: at scale 1 or alpha 0."""
        return self.nag.is_off

    def source(self, model: ModelPatcher) -> BranchSource:
        """Return what makes the branches: the cross-attention of `model` itself."""
        if transformer_of(model.model.diffusion_model) is not None:
            return TransformerBranches.on(model, self.nag)
        return OwnBranches.on(model, self.nag)

    @contextmanager
    def automatic_settings(self, guider: Any, sampler: Any, sigmas: Tensor) -> Iterator[tuple[Any, Tensor, list[str]]]:
        """Set CFG 1."""
        with no_guidance(guider) as changes:
            yield sampler, sigmas, changes

    def findings_of_part(self, guider: Any, sigmas: Tensor) -> list[str]:
        """Find nothing: any noise level will do."""
        return []
