"""Statistics of the evidence: Fréchet distance and confidence intervals. Numpy only."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Z95 = 1.959964


def frechet_distance(a: Array, b: Array) -> float:
    """Compute the squared Fréchet distance of normal distributions fitted to two sets of features, each (n, dim).

    |mean_a - mean_b|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2)), as FID takes it (arXiv 1706.08500). The last trace is the
    sum of the singular values of A^(1/2) B^(1/2), and with centred rows X of A that of X Y^T: no matrix root is taken.
    """
    mean_a, mean_b = a.mean(0), b.mean(0)
    x, y = (a - mean_a) / np.sqrt(len(a) - 1), (b - mean_b) / np.sqrt(len(b) - 1)
    root = np.linalg.svd(_triangle(x) @ _triangle(y).T, compute_uv=False).sum()
    return float(((mean_a - mean_b) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * root)


def _triangle(x: Array) -> Array:
    """Find R with R^T R = X^T X, at most as high as wide: (n, dim) -> (min(n, dim), dim)."""
    r: Array = np.asarray(np.linalg.qr(x, mode="r"))
    return r


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """Compute the 95 % interval of a share, in 0..1 (Wilson 1927): stays sensible at 0 and at 1."""
    p, z2 = hits / count, Z95**2
    centre = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * np.sqrt(p * (1 - p) / count + z2 / (4 * count**2))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def bootstrap_interval(
    statistic: Callable[[NDArray[np.int64]], float], count: int, repeats: int = 100, seed: int = 0
) -> tuple[float, float]:
    """Compute the 95 % interval of `statistic(rows)` around its value on all rows, from its spread over resampled rows.

    Not from percentiles: drawing rows with repetition makes a Fréchet distance larger on average.
    """
    rng = np.random.default_rng(seed)
    spread = np.std([statistic(rng.integers(count, size=count)) for _ in range(repeats)], ddof=1)
    value = statistic(np.arange(count))
    return float(value - Z95 * spread), float(value + Z95 * spread)
