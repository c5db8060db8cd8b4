"""How far a mean over users may be off because other users might have been there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["bootstrap_intervals"]

_BLOCK_DRAWS = 1 << 22  # 32 MiB


def bootstrap_intervals(
    values: npt.NDArray[np.float64], *, seed: int, confidence: float = 0.95, resamples: int = 1000
) -> npt.NDArray[np.float64]:
    """Percentile bootstrap of means over users (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13).

    Users are drawn with replacement, as many as there are; all columns share the draws.

    Args:
        values: a row per user and a column per metric, shape (n, m).
        seed: of the draws; the same gives the same intervals.
        confidence: share of the resampled means that the interval holds.
        resamples: how often to draw.

    Returns:
        Shape (2, m): the lower and the upper ends.
    """
    n = len(values)
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    size = max(1, _BLOCK_DRAWS // n)
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        drawn = rng.integers(n, size=(rows, n))
        # How often each user was drawn: a weight, so that the means are one product.
        drawn += np.arange(rows)[:, None] * n
        times = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        means[start : start + rows] = times @ values / n
    tail = (1 - confidence) / 2
    ends: npt.NDArray[np.float64] = np.quantile(means, [tail, 1 - tail], axis=0)
    return ends
