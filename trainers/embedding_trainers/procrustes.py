"""The orthogonal Procrustes problem, solved from sums over the shared ids, so that no machine has to hold them all.

Sums of parts add up. Users and items are summed apart, as each is measured less its own mean, and so are two halves of
the ids, as each half is measured under the rotation fitted on the other.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

__all__ = ["Halves", "Sums", "mean_cosine", "residual", "rotation", "sum_up", "total"]

_Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sums:
    """Weighted sums over n ids with the vectors x in the new version and y in the old one.

    Attributes:
        products: Σ w x yᵀ, shape (dim, dim).
        directions: the same of x and y at length 1; vectors of zeros stay zeros.
        new: Σ w x, shape (dim,).
        old: Σ w y, shape (dim,).
        new_squares: Σ w x², of each dimension, shape (dim,).
        old_squares: the same of y.
        counts: n and Σ w, shape (2,).
    """

    products: _Matrix
    directions: _Matrix
    new: _Matrix
    old: _Matrix
    new_squares: _Matrix
    old_squares: _Matrix
    counts: _Matrix

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def flat(self) -> _Matrix:
        """All numbers in one row, as `from_flat` takes them."""
        return np.concatenate([getattr(self, field.name).ravel() for field in fields(self)])

    @classmethod
    def from_flat(cls, row: _Matrix, dim: int) -> Sums:
        """The sums of `flat`."""
        parts = np.split(row, np.cumsum([dim * dim] * 2 + [dim] * 4))
        products, directions, new, old, new_squares, old_squares, counts = parts
        square = (dim, dim)
        return cls(products.reshape(square), directions.reshape(square), new, old, new_squares, old_squares, counts)

    def block(self, dims: slice) -> Sums:
        """The sums over some of the dimensions; `directions` still have the length that all of them give."""
        return Sums(
            products=self.products[dims, dims],
            directions=self.directions[dims, dims],
            new=self.new[dims],
            old=self.old[dims],
            new_squares=self.new_squares[dims],
            old_squares=self.old_squares[dims],
            counts=self.counts,
        )


Halves = Sequence[Sums]
"""The sums of the first and of the second half."""


def sum_up(
    new: npt.NDArray[np.floating],
    old: npt.NDArray[np.floating],
    n: npt.NDArray[np.integer],
    m: npt.NDArray[np.integer],
) -> Sums:
    """Sum up some ids.

    The squared distance of an id counts by n·m / (n + m): the variance of a vector falls with 1 / n, and this is one
    over the variance of the difference.

    Args:
        new: shape (ids, dim).
        old: shape (ids, dim).
        n: interactions in the new version, shape (ids,).
        m: interactions in the old version, shape (ids,).
    """
    x, y = new.astype(np.float64), old.astype(np.float64)
    weight = (n * m / np.maximum(n + m, 1))[:, None]
    x_lengths, y_lengths = (np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (x, y))
    lengths = x_lengths * y_lengths
    x_weighted, y_weighted = x * weight, y * weight
    return Sums(
        products=x_weighted.T @ y,
        directions=(x * (weight / np.where(lengths > 0, lengths, 1))).T @ y,
        new=x_weighted.sum(axis=0),
        old=y_weighted.sum(axis=0),
        new_squares=np.einsum("ij,ij->j", x_weighted, x),
        old_squares=np.einsum("ij,ij->j", y_weighted, y),
        counts=np.array([len(x), weight.sum()]),
    )


def total(parts: Iterable[Sums]) -> Sums:
    """The sums over all ids of some parts."""
    return functools.reduce(Sums.__add__, parts)


def rotation(sums: Sums) -> _Matrix:
    """The orthogonal matrix R that makes the weighted distance between x · R and y smallest."""
    left, singular, right = np.linalg.svd(sums.products)
    # Nothing gained: then the vectors keep their bits, so that equal trainings write equal bytes.
    if np.trace(sums.products) >= singular.sum() * (1 - 1e-12):
        return np.eye(len(sums.products))
    return np.asarray(left @ right)


def residual(sides: Collection[Halves]) -> float:
    """How far apart both versions are under the best rotation; see `embedding_trainers.alignment.residual_of`."""
    first, second = (total(halves[half] for halves in sides) for half in (0, 1))
    by = rotation(second), rotation(first)  # each half under the rotation fitted on the other
    agreement = new_squares = old_squares = 0.0
    for halves in sides:
        both = total(halves)
        weight = float(both.counts[1])
        if not weight:
            continue
        x_mean = np.sum([half.new @ turned for half, turned in zip(halves, by, strict=True)], axis=0) / weight
        y_mean = both.old / weight
        aligned = sum((half.products * turned).sum() for half, turned in zip(halves, by, strict=True))
        agreement += float(aligned - weight * (x_mean @ y_mean))
        new_squares += float(both.new_squares.sum() - weight * (x_mean @ x_mean))
        old_squares += float(both.old_squares.sum() - weight * (y_mean @ y_mean))
    lengths = max(0.0, new_squares) * max(0.0, old_squares)
    cosine = max(0.0, agreement) / np.sqrt(lengths) if lengths > 0 else 0.0
    return float(np.sqrt(max(0.0, 1 - cosine**2)))


def mean_cosine(sums: Sums, by: _Matrix) -> float:
    """The weighted mean cosine between x · R and y."""
    return float((sums.directions * by).sum() / sums.counts[1])
