"""The sampled softmax loss on cosines (Wu et al., ACM TOIS 2024, arXiv:2201.02327), and its gradients.

The loss of a positive with the logit s = cosine / temperature is ``log(exp(s) + Σ weight · exp(s_negative)) - s``,
times the weight of the positive. The sum stands for that over all rows of the other side: it is over rows drawn in
proportion to the root of their degrees, each divided by how often that is expected (logQ correction: Bengio & Senécal,
IEEE TNN 2008).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["Sample", "Sampler", "batch_gradient", "gradients", "history_gradients", "unit"]

_Floats = npt.NDArray[np.float32]


def unit(vectors: _Floats, otherwise: _Floats | float = 0) -> _Floats:
    """Scale vectors, shape (n, dim), to length 1; `otherwise` for vectors of length 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        scaled: _Floats = np.divide(vectors, lengths, out=np.full_like(vectors, otherwise), where=lengths > 0)
        # The squares of these are beyond float32: of a visitor whose weights are very large or small.
        rows = np.flatnonzero((lengths < 1e-15) | (lengths > 1e15))
        if len(rows):
            exact = vectors[rows].astype(np.float64)
            lengths = np.linalg.norm(exact, axis=1, keepdims=True)
            none = np.array(np.broadcast_to(otherwise, vectors.shape)[rows], np.float64)
            scaled[rows] = np.divide(exact, lengths, out=none, where=lengths > 0)
    return scaled


@dataclass(frozen=True)
class Sample:
    """Rows drawn for a sum over all, with weights by which that sum is estimated without bias.

    Attributes:
        rows: distinct, ascending, shape (m,).
        log_weights: float32, shape (m,): how often each was drawn over how often that is expected.
    """

    rows: npt.NDArray[np.int64]
    log_weights: _Floats


class Sampler:
    """Draws rows in proportion to the root of their degrees; all of them where there are no more than `size`."""

    def __init__(self, degrees: npt.NDArray[np.integer], size: int) -> None:
        share = np.sqrt(degrees + 1.0)
        self._share, self._size = share / share.sum(), size
        self._up_to = np.cumsum(self._share)

    def draw(self, rng: np.random.Generator) -> Sample:
        n = len(self._share)
        if n <= self._size:
            return Sample(np.arange(n), np.zeros(n, np.float32))
        drawn = np.searchsorted(self._up_to, rng.random(self._size) * self._up_to[-1], side="right")
        rows, times = np.unique(drawn, return_counts=True)
        return Sample(rows, np.log(times / (self._size * self._share[rows])).astype(np.float32))


def gradients(
    queries: _Floats,
    positives: csr_matrix,
    candidates: _Floats,
    negatives: _Floats,
    log_weights: _Floats,
    temperature: float,
) -> tuple[_Floats, csr_matrix]:
    """The gradient of the loss with respect to the cosines.

    Args:
        queries: unit vectors, shape (b, dim).
        positives: weights, csr, shape (b, p).
        candidates: unit vectors of the columns of `positives`, shape (p, dim).
        negatives: unit vectors, shape (m, dim).
        log_weights: of the negatives, shape (m,).

    Returns:
        Of the cosines with the negatives, float32, shape (b, m); and of those with the positives, csr like `positives`.
    """
    rows = _rows(positives)
    cosines = np.einsum("ij,ij->i", queries[rows], candidates[positives.indices])
    of_negatives, of_positives = _of_cosines(queries, positives, cosines, negatives, log_weights, temperature)
    return of_negatives, type(positives)((of_positives, positives.indices, positives.indptr), shape=positives.shape)


def history_gradients(
    histories: csr_matrix,
    weights: _Floats,
    candidates: _Floats,
    negatives: _Floats,
    log_weights: _Floats,
    temperature: float,
) -> tuple[_Floats, _Floats]:
    """The gradient of the loss for users whose vectors are made of the vectors of their items.

    A user's vector is ``h / |h|`` with h the weighted sum of their items' vectors. All of a user's items are their
    positives, and the cosine of a positive is that with the sum of the others: with itself in the sum, an item would be
    found because it is there (as in FISM: Kabbur, Ning & Karypis, KDD 2013). Of an item v with the weight w that is::

        (h - w v) · v / |h - w v|   where   |h - w v|² = |h|² - 2 w h·v + w²

    so that its gradients are multiples of h and v, and no vector is made for each pair. The only item of a user is
    predicted from nothing, so it has no part in the loss.

    Args:
        histories: weights in the sums, positive, csr, shape (b, p), no empty row.
        weights: of the positives, shape (entries of `histories`,).
        candidates: unit vectors of the columns of `histories`, shape (p, dim).
        negatives: unit vectors, shape (m, dim).
        log_weights: of the negatives, shape (m,).

    Returns:
        With respect to the candidates, float32, shape (p, dim), except along each of them, which does not
        turn it; and with respect to the negatives, shape (m, dim).
    """
    matrix, rows, w = type(histories), _rows(histories), histories.data
    sums = np.asarray(histories @ candidates, np.float32)
    lengths = np.linalg.norm(sums, axis=1)
    dots = np.einsum("ij,ij->i", sums[rows], candidates[histories.indices])
    # The length without the item; where next to nothing is left there is no direction.
    left = np.sqrt(np.maximum(np.square(lengths)[rows] - 2 * w * dots + w * w, 0))
    there = left > _LEAST_LENGTH * w
    inverse = np.divide(1, left, out=np.zeros_like(left), where=there)
    cosines = (dots - w) * inverse

    users = unit(sums)
    positives = matrix((weights * there, histories.indices, histories.indptr), shape=histories.shape)
    of_negatives, of_positives = _of_cosines(users, positives, cosines, negatives, log_weights, temperature)

    # With respect to h: through the negatives, by the user's own direction; through each positive, by the rest's.
    of_users = of_negatives @ negatives
    of_users -= np.einsum("ij,ij->i", of_users, users)[:, None] * users
    of_users *= np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > _LEAST_LENGTH)[:, None]
    shrunk = of_positives * cosines * np.square(inverse)
    pull = matrix((of_positives * inverse + w * shrunk, histories.indices, histories.indptr), shape=histories.shape)
    of_users += pull @ candidates
    of_users -= np.bincount(rows, shrunk, len(sums)).astype(np.float32)[:, None] * sums
    of_candidates = np.asarray(pull.T @ sums + histories.T @ of_users, np.float32)
    return of_candidates, np.asarray(of_negatives.T @ users, np.float32)


def batch_gradient(
    items: _Floats, histories: csr_matrix, totals: _Floats, sample: Sample, temperature: float
) -> tuple[npt.NDArray[np.int64], _Floats]:
    """The gradient of the loss of some users, see `history_gradients`, by the items that it depends on.

    Args:
        items: unit vectors, shape (n_items, dim).
        histories: weights of the users' items, csr, shape (b, n_items), no empty row.
        totals: the sum of each row of `histories`, shape (b,): a user counts as the root of it.
        sample: the negatives.
        temperature: see above.

    Returns:
        The rows of these items, distinct, ascending, shape (t,), and the gradient, float32, shape (t, dim).
    """
    touched, places = np.unique(np.concatenate([sample.rows, histories.indices]), return_inverse=True)
    drawn, columns = places[: len(sample.rows)], places[len(sample.rows) :]
    weights = histories.data / np.sqrt(np.repeat(totals, np.diff(histories.indptr)))
    histories = type(histories)((histories.data, columns, histories.indptr), shape=(len(totals), len(touched)))
    candidates = items[touched]
    gradient, of_negatives = history_gradients(
        histories, weights, candidates, candidates[drawn], sample.log_weights, temperature
    )
    gradient[drawn] += of_negatives
    return touched, gradient


_LEAST_LENGTH = np.float32(1e-3)  # of a sum: below, its direction is rounding


def _rows(matrix: csr_matrix) -> npt.NDArray[np.intp]:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def _of_cosines(
    queries: _Floats,
    positives: csr_matrix,
    cosines: _Floats,
    negatives: _Floats,
    log_weights: _Floats,
    temperature: float,
) -> tuple[_Floats, _Floats]:
    """See `gradients`; `cosines` are of the entries of `positives`, and so is the second result."""
    scale, rows = np.float32(1 / temperature), _rows(positives)
    logits = np.asarray((queries * scale) @ negatives.T + log_weights, np.float32)
    highest = logits.max(axis=1, keepdims=True)
    logits -= highest
    of_negatives = np.exp(logits, out=logits)
    total = of_negatives.sum(axis=1)
    # 1 minus the softmax probability of the positive.
    with np.errstate(over="ignore"):  # exp of much is infinity, and one over that is 0
        error = 1 / (1 + np.exp(cosines * scale - (np.log(total) + highest[:, 0])[rows]))
    of_positives = -(positives.data * error * scale)
    of_rows = np.bincount(rows, of_positives, len(queries)).astype(np.float32)
    of_negatives *= (-of_rows / total)[:, None]
    return of_negatives, of_positives.astype(np.float32)
