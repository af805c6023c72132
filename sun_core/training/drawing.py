"""Training latents that the teacher draws from prompts alone; each is drawn once."""

import hashlib
from collections import Counter
from collections.abc import MutableMapping, Sequence

from tqdm.auto import tqdm

from .example import Example
from .prompts import Prompts
from .sampler import Sampler
from .tensor_folder import Tensors


def draw_latents(
    captions: Sequence[str],
    sampler: Sampler,
    prompts: Prompts,
    guidance: float,
    seed: int,
    store: MutableMapping[str, Tensors],
    rows: int,
    share: tuple[int, int] = (0, 1),
) -> list[Example]:
    """Draw a picture for each caption, `rows` at a time.

    A caption that occurs twice gives two pictures; the same seed gives the same ones. `share` is (i, n) if n processes
    each draw a part, and this is process i.
    """
    height, width = prompts.encoder.latent_size
    drawn = f"drawn-{sampler.name}-{height}x{width}-{guidance:g}-{seed}"
    occurrences: Counter[str] = Counter()
    examples = []
    for caption in captions:
        occurrences[caption] += 1
        of_caption = hashlib.sha256(f"{occurrences[caption]} {caption}".encode()).hexdigest()[:32]
        examples.append(Example(f"{drawn}-{of_caption}", caption))
    process, processes = share
    missing = [example for example in examples[process::processes] if example.latent not in store]
    for first in tqdm(range(0, len(missing), rows), desc="Drawing pictures", unit="batch", disable=not missing):
        some = missing[first : first + rows]
        pairs, seeds = [(example.caption, "") for example in some], [example.latent for example in some]
        latents = sampler.teacher(sampler.start(pairs, prompts, guidance, seeds))
        for example, latent in zip(some, latents, strict=True):
            store[example.latent] = {"latent": latent.half().cpu().clone()}
    return examples
