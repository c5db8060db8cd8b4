"""Minimise the pairwise loss of BPR (Rendle et al., UAI 2009, arXiv:1205.2618) for many rows at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedding_trainers.models.padded_rows import PaddedRows, padded_rows

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["Pairs", "draw_pairs", "solve"]

_NEGATIVES = 5  # drawn for each positive; more changed recall by less than another seed does
_MOST_PAIRS = 128  # of a row, as long as each positive has a negative
_STEPS = 8
_HALVINGS = 4
_TOLERANCE = 1e-5  # a step that lowers the loss by less than this share was the last
_BLOCK_ENTRIES = 1 << 9  # small, as a block is as wide as its longest row

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pairs:
    """The problem of b rows: minimise, for each, Σ weight · log(1 + exp(-(difference · x + offset))) + ridge/2 · |x|².

    Attributes:
        differences: float32, shape (b, p, dim).
        offsets: float32, shape (b, p).
        weights: float32, shape (b, p), with a sum of 1 in each row; 0 where there is no pair.
        ridge: float32, shape (b,), positive.
    """

    differences: _Floats
    offsets: _Floats
    weights: _Floats
    ridge: _Floats

    def loss(self, x: _Floats) -> npt.NDArray[np.float64]:
        """The value to be minimised, shape (b,)."""
        of_pairs = self.weights * np.logaddexp(0, -self._margins(x))
        squares = (x * x).sum(axis=1, dtype=np.float64)
        return np.asarray(of_pairs.sum(axis=1, dtype=np.float64) + self.ridge * squares / 2)

    def gradient(self, x: _Floats) -> _Floats:
        """Of the loss, shape (b, dim)."""
        return self._gradient(x, _sigmoid(-self._margins(x)))

    def newton_step(self, x: _Floats) -> _Floats:
        """Minus the inverse Hessian times the gradient, shape (b, dim)."""
        error = _sigmoid(-self._margins(x))
        curvature = (self.weights * error * (1 - error))[..., None]
        gradient = self._gradient(x, error)[..., None]
        of_pairs, ridge = self.differences.transpose(0, 2, 1), self.ridge[:, None, None]
        if self.differences.shape[1] < self.differences.shape[2]:
            # Fewer pairs than dimensions: by the Woodbury identity there are only as many unknowns as pairs.
            left = curvature * self._products + ridge * np.eye(len(self._products[0]), dtype=np.float32)
            of_gradient = np.linalg.solve(left, curvature * np.matmul(self.differences, gradient))
            step = (np.matmul(of_pairs, of_gradient) - gradient) / ridge
        else:
            left = np.matmul(of_pairs, curvature * self.differences) + ridge * np.eye(
                len(gradient[0]), dtype=np.float32
            )
            step = -np.linalg.solve(left, gradient)
        found: _Floats = step[..., 0]
        return found

    @cached_property
    def _products(self) -> _Floats:
        """Of each two differences of a row, shape (b, p, p)."""
        products: _Floats = np.matmul(self.differences, self.differences.transpose(0, 2, 1))
        return products

    def _margins(self, x: _Floats) -> _Floats:
        margins: _Floats = np.matmul(self.differences, x[..., None])[..., 0] + self.offsets
        return margins

    def _gradient(self, x: _Floats, error: _Floats) -> _Floats:
        of_pairs = np.matmul((self.weights * error)[:, None, :], self.differences)[:, 0]
        gradient: _Floats = self.ridge[:, None] * x - of_pairs
        return gradient


def solve(
    positives: csr_matrix,
    factors: _Floats,
    bias: _Floats,
    *,
    popularity: npt.NDArray[np.int64],
    ridge: npt.NDArray[np.float64],
    seed: int,
) -> _Floats:
    """The vector of each row, so that ``factors · x + bias`` is higher for its positives than for its negatives.

    A row's vector depends on that row and the seed alone, not on other rows.

    Args:
        positives: csr, shape (n_rows, n_known), no empty row.
        factors: float32, shape (n_known, dim).
        bias: float32, shape (n_known,).
        popularity: shape (n_known,); negatives are drawn in proportion to it. A row's own positives do not count.
        ridge: shape (n_rows,), positive.
        seed: of the draws.

    Returns:
        float32, shape (n_rows, dim).
    """
    width = int(np.diff(positives.indptr).max(initial=0))
    shares = np.cumsum(popularity) / popularity.sum()
    negatives = np.searchsorted(shares, np.random.default_rng(seed).random((width, _NEGATIVES)), side="right")
    solved = np.zeros((positives.shape[0], factors.shape[1]), np.float32)
    for block in padded_rows(positives, entries=_BLOCK_ENTRIES):
        pairs = draw_pairs(block, factors, bias, negatives, ridge[block.rows])
        solved[block.rows] = _minimum(pairs)
    return solved


def draw_pairs(
    block: PaddedRows, factors: _Floats, bias: _Floats, negatives: npt.NDArray[np.int64], ridge: npt.NDArray[np.float64]
) -> Pairs:
    """Pair each positive of each row with the negatives drawn for its place in the row.

    Args:
        negatives: columns, shape (at least w, negatives per positive); long rows take only the first few of them.
    """
    n_rows, width = block.columns.shape
    is_positive = block.weights > 0
    per_positive = np.clip(_MOST_PAIRS // is_positive.sum(axis=1), 1, negatives.shape[1])
    negatives = negatives[:width, : per_positive.max()]
    counts = is_positive[..., None] & (np.arange(per_positive.max()) < per_positive[:, None, None])
    counts &= ~_contains(block, negatives, len(factors))
    weights = counts.astype(np.float32).reshape(n_rows, -1)
    differences = factors[block.columns][:, :, None] - factors[negatives]
    offsets = bias[block.columns][..., None] - bias[negatives]
    return Pairs(
        differences.reshape(n_rows, weights.shape[1], factors.shape[1]),
        offsets.reshape(n_rows, -1),
        weights / np.maximum(weights.sum(axis=1, keepdims=True), 1),
        ridge.astype(np.float32),
    )


def _contains(block: PaddedRows, columns: npt.NDArray[np.int64], n_known: int) -> npt.NDArray[np.bool_]:
    """Whether a row has these columns, shape (w, n), as its own entries: shape (b, w, n)."""
    row = np.arange(len(block.rows))[:, None, None] * n_known
    own = np.sort((row[..., 0] + block.columns)[block.weights > 0])
    asked = row + columns
    place = np.minimum(np.searchsorted(own, asked), len(own) - 1)
    found: npt.NDArray[np.bool_] = own[place] == asked
    return found


def _minimum(pairs: Pairs) -> _Floats:
    """Newton's method from 0, with each row's step halved as long as the loss rises."""
    x = np.zeros((len(pairs.ridge), pairs.differences.shape[2]), np.float32)
    loss = pairs.loss(x)
    for _ in range(_STEPS):
        step = pairs.newton_step(x)
        size = np.ones((len(x), 1), np.float32)
        for _ in range(_HALVINGS):
            tried = pairs.loss(x + size * step)
            up = tried > loss
            if not up.any():
                break
            size[up] /= 2
        size[tried > loss] = 0
        x = x + size * step
        gain = loss - np.minimum(tried, loss)
        loss -= gain
        if (gain <= _TOLERANCE * loss).all():
            break
    return x


def _sigmoid(values: _Floats) -> _Floats:
    with np.errstate(over="ignore"):  # exp of much is infinity, and one over that is 0
        return np.float32(1) / (np.float32(1) + np.exp(-values))
