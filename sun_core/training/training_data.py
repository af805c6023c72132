"""The batches of a run, which depend on nothing but the seed and their place in the run."""

import hashlib
import random
from collections.abc import Mapping, Sequence

import torch

from ..errors import SunError
from .batch import Batch
from .config import TrainingConfig
from .example import Example
from .prompt_pairs import PromptPairs
from .prompts import Prompts
from .tensor_folder import Tensors


class TrainingData:
    """Captioned latents in a new order each epoch, with prompts and guidance drawn for them.

    A batch follows from its step and its number within the step, whichever process and attempt asks for it. So a run
    that was killed goes on as if nothing had happened, and two processes see what one with twice the accumulation sees.
    """

    def __init__(
        self, examples: Sequence[Example], latents: Mapping[str, Tensors], prompts: Prompts, config: TrainingConfig
    ):
        """Pair captions with negatives; `prompts` must know all texts of `pairs` before the first batch.

        Raises SunError if there are no examples.
        """
        if not examples:
            raise SunError(
                "There is nothing to train on: the data holds no captioned picture and no prompt; add some, or name "
                "another folder."
            )
        self.examples, self.latents, self.prompts, self.config = list(examples), latents, prompts, config
        self.pairs = PromptPairs([e.caption for e in examples], config.negatives, config.negative_prompts)
        self._epoch, self._order = -1, list[int]()

    def batch(self, step: int, number: int, per_step: int) -> tuple[Batch, torch.Generator]:
        """Make batch `number` of the `per_step` that step `step` takes, and the generator of its random numbers."""
        place = step * per_step + number
        rows = self.config.batch_size
        rng = random.Random(f"{self.config.seed} {place}")
        examples = [self._example(place * rows + row) for row in range(rows)]
        pairs = [self.pairs.draw(example.caption, rng) for example in examples]
        positives, negatives = zip(*pairs, strict=True)
        latents = torch.stack([self.latents[example.latent]["latent"].float() for example in examples])
        guidance = torch.tensor([rng.uniform(*self.config.guidance) for _ in range(rows)])
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        return Batch.of(latents, self.prompts.batch([*positives, *negatives]), guidance), generator

    def _example(self, position: int) -> Example:
        """Find the example at a position of the endless sequence of epochs."""
        epoch, place = divmod(position, len(self.examples))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, list(range(len(self.examples)))
            random.Random(f"{self.config.seed} epoch {epoch}").shuffle(self._order)
        return self.examples[self._order[place]]

    @property
    def digest(self) -> str:
        """Hash the data set, which must not change during a run (16 hex digits)."""
        names = "\n".join(f"{example.latent} {example.caption}" for example in self.examples)
        return hashlib.sha256(names.encode()).hexdigest()[:16]

    def describe(self) -> dict[str, object]:
        """Describe the data for the adapter's metadata, without names of files and captions."""
        return {
            "examples": len(self.examples),
            "captions": len(self.pairs.captions),
            "listed_negatives": len(self.pairs.listed),
            "digest": self.digest,
        }
