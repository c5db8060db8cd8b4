"""The map from content to trained vectors: weighted ridge regression (Gantner et al., ICDM 2010, for its use here).

With X the features and V the vectors, both less their weighted means x̄ and v̄, and W the weights of the rows, it is
the B that minimises ‖W^½ (V - X B)‖² + λ ‖B‖². The vector of a row x is v̄ + (x - x̄) B.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Ridge", "fit_ridges"]

_MOST_EXACT = 256  # rows or features, whichever are fewer: beyond, a spectrum may take longer than the steps
_MOST_SPECTRUM = 2048  # of them at all: as many squared are in memory
_OF_SPECTRUM = 10  # multiplications for the spectrum of m × m, ÷ m³
_STEPS = 30  # of conjugate gradient, at most
_SOLVED = 1e-3  # of the first residual: far below what ranking notices

_Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ridge:
    """A fitted map.

    Attributes:
        weights: float32, shape (p, dim).
        offset: float32, shape (dim,): what a row of zeros is mapped to.
    """

    weights: _Floats
    offset: _Floats

    def predict(self, features: Any) -> _Floats:
        """Map rows, csr or an array of shape (n, p), to vectors, shape (n, dim)."""
        return np.asarray(features @ self.weights + self.offset, np.float32)


@dataclass(frozen=True)
class _Centred:
    """Features, less their weighted means, which would not be sparse."""

    features: Any  # csr, shape (n, p)
    weights: _Doubles  # shape (n,), their sum is n
    means: _Doubles  # shape (p,)

    def times(self, right: _Doubles) -> _Doubles:
        """X B."""
        found = np.asarray(self.features @ right)
        found -= self.means @ right
        return found

    def transposed_times(self, right: _Doubles) -> _Doubles:
        """Xᵀ W R."""
        weighted = self.weights[:, None] * right
        found = np.asarray(self.features.T @ weighted)
        found -= np.outer(self.means, weighted.sum(axis=0))
        return found


def fit_ridges(
    features: Any, vectors: _Floats, weights: npt.NDArray[Any], penalties: Sequence[float]
) -> Iterator[Ridge]:
    """Fit one map for each λ; exactly while features or rows are few or dense, and else by conjugate gradient.

    Each is fitted when it is asked for.

    Args:
        features: csr, shape (n, p).
        vectors: float32, shape (n, dim).
        weights: of the rows, not negative, not all zero, shape (n,); λ is relative to a mean of 1.
        penalties: each λ, positive.
    """
    weights = np.asarray(weights, np.float64) / np.mean(weights, dtype=np.float64)
    means = np.asarray(features.T @ weights).ravel() / len(weights)
    mean_vector = np.asarray(weights @ vectors).ravel() / len(weights)
    centred = _Centred(features, weights, means)
    targets = vectors.astype(np.float64) - mean_vector
    exact = _by_features if features.shape[1] <= features.shape[0] else _by_rows
    solve = exact if _is_exact(features, vectors.shape[1], len(penalties)) else _by_conjugate_gradient
    for found in solve(centred, targets, penalties):
        yield Ridge(found.astype(np.float32), (mean_vector - means @ found).astype(np.float32))


def _is_exact(features: Any, dim: int, n_penalties: int) -> bool:
    """Whether the spectrum is quick: for few features or rows, and for dense ones, such as the vectors of a model."""
    n, fewer = features.shape[0], min(features.shape)
    spectrum = features.nnz**2 / n + _OF_SPECTRUM * fewer**3
    steps = 2 * _STEPS * features.nnz * dim * n_penalties
    return bool(fewer <= _MOST_EXACT or (fewer <= _MOST_SPECTRUM and spectrum < steps))


def _by_features(x: _Centred, targets: _Doubles, penalties: Sequence[float]) -> Iterator[_Doubles]:
    """(XᵀWX + λI)⁻¹ XᵀWV by the spectrum of XᵀWX, one for all λ."""
    scaled = x.features.multiply(np.sqrt(x.weights)[:, None]).tocsr()
    gram = (scaled.T @ scaled).toarray() - len(x.weights) * np.outer(x.means, x.means)
    values, directions = np.linalg.eigh(gram)
    right = directions.T @ x.transposed_times(targets)
    for penalty in penalties:
        yield directions @ (right / (values.clip(0) + penalty)[:, None])


def _by_rows(x: _Centred, targets: _Doubles, penalties: Sequence[float]) -> Iterator[_Doubles]:
    """XᵀW^½ (W^½XXᵀW^½ + λI)⁻¹ W^½V, the same by the products of rows."""
    roots = np.sqrt(x.weights)[:, None]
    products = np.asarray((x.features @ x.features.T).toarray(), np.float64)
    of_means = np.asarray(x.features @ x.means)
    products += x.means @ x.means - of_means - of_means[:, None]
    values, directions = np.linalg.eigh(products * roots * roots.T)
    right = directions.T @ (roots * targets)
    for penalty in penalties:
        yield x.transposed_times(directions @ (right / (values.clip(0) + penalty)[:, None]) / roots)


def _by_conjugate_gradient(x: _Centred, targets: _Doubles, penalties: Sequence[float]) -> Iterator[_Doubles]:
    """The same equations, all columns in step; each λ starts from what the one before found.

    In float32, which is exact enough for `_SOLVED` and takes half the time.
    """
    x = _Centred(x.features.astype(np.float32), x.weights.astype(np.float32), x.means.astype(np.float32))
    right = x.transposed_times(targets.astype(np.float32))
    enough = _SOLVED**2 * np.maximum((right * right).sum(axis=0), np.finfo(np.float32).tiny)
    found = np.zeros_like(right)
    for penalty in penalties:
        residual = right - x.transposed_times(x.times(found)) - penalty * found
        direction = residual.copy()
        squares = (residual * residual).sum(axis=0)
        for _ in range(_STEPS):
            if (squares <= enough).all():
                break
            image = x.transposed_times(x.times(direction)) + penalty * direction
            step = squares / np.maximum((direction * image).sum(axis=0), np.finfo(np.float32).tiny)
            found += step * direction
            residual -= step * image
            before, squares = squares, (residual * residual).sum(axis=0)
            direction = residual + squares / np.maximum(before, np.finfo(np.float32).tiny) * direction
        yield found.copy()
