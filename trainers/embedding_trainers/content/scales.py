"""The λ of the map, and how much each column of content counts in it.

One λ for all lets thousands of words, each of few rows, drown twenty genres. The features of a column times s ≤ 1 are
the same as λ / s² for that column: banded ridge regression (Nunez-Elizalde, Huth & Gallant, NeuroImage 2019). λ and
each s are those with the least error on rows held back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedding_trainers.content.ridge import Ridge, fit_ridges

__all__ = ["PENALTIES", "MapChoice", "Rows", "choose_map", "fit_scaled"]

PENALTIES = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3)
"""λ to choose from: strong ones first, as each starts from the one before."""
_LEAST_SCALE = 1 / 8


@dataclass(frozen=True)
class Rows:
    """What a map is fitted on.

    Attributes:
        features: csr, shape (n, p).
        vectors: float32, shape (n, dim).
        weights: float64, shape (n,).
    """

    features: Any
    vectors: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float64]

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> Rows:
        return Rows(self.features[rows], self.vectors[rows], self.weights[rows])


@dataclass(frozen=True)
class MapChoice:
    """What was chosen.

    Attributes:
        penalty: λ.
        widths: the number of features of each column.
        scales: s of each column.
        error: of the rows held back.
    """

    penalty: float
    widths: tuple[int, ...]
    scales: tuple[float, ...]
    error: float


def choose_map(
    rows: Rows, held_error: Callable[[Ridge], float], widths: Sequence[int], penalties: Sequence[float] = PENALTIES
) -> MapChoice:
    """Choose λ, and then halve s of each column, the widest first, while that lowers the error.

    λ gets weaker while that lowers the error: the weaker it is, the longer a fit takes.

    Args:
        rows: those not held back.
        held_error: of a map, on the rows held back.
        widths: the number of features of each column, in the order of the features.
        penalties: each λ to choose from, the strongest first.
    """

    def best_of(scales: tuple[float, ...], penalties: Sequence[float]) -> MapChoice:
        best = MapChoice(penalties[0], tuple(widths), scales, np.inf)
        for penalty, ridge in zip(penalties, fit_scaled(rows, widths, scales, penalties), strict=True):
            error = held_error(ridge)
            if error > best.error:
                break
            best = replace(best, penalty=penalty, error=error)
        return best

    best = best_of((1.0,) * len(widths), penalties)
    if len(widths) == 1:  # λ alone does it
        return best
    for column in np.argsort(-np.asarray(widths), kind="stable").tolist():
        while best.scales[column] > _LEAST_SCALE:
            scales = tuple(s / 2 if i == column else s for i, s in enumerate(best.scales))
            # With less of a column the same λ is more.
            place = list(penalties).index(best.penalty)
            tried = best_of(scales, penalties[place : place + 2])
            if tried.error >= best.error:
                break
            best = tried
    return best


def fit_scaled(
    rows: Rows, widths: Sequence[int], scales: Sequence[float], penalties: Sequence[float]
) -> Iterator[Ridge]:
    """Fit a map for each λ, when it is asked for, that takes features as they are, not times s."""
    if all(s == 1 for s in scales):
        yield from fit_ridges(rows.features, rows.vectors, rows.weights, penalties)
        return
    of_features = np.repeat(np.asarray(scales, np.float32), widths)
    given = rows.features
    scaled = type(given)((given.data * of_features[given.indices], given.indices, given.indptr), shape=given.shape)
    for ridge in fit_ridges(scaled, rows.vectors, rows.weights, penalties):
        yield replace(ridge, weights=of_features[:, None] * ridge.weights)
