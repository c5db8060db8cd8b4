"""The prior in the vectors of trained rows, where validation says that it helps.

A trained row keeps its length and its bias, which say how popular it is, and better than content could. Content turns
it, most where the other side tells least: along the j-th principal direction of that side, of variance g_j relative to
the mean, behaviour counts n g_j / (n g_j + τ). That is where least squares with the prior in the equations put it,
(A + τ I) x = b + τ m with A about n g, for any trainer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedding_trainers.content.prior import Trained
from embedding_trainers.trainer import Folded

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["choose_strength", "with_prior"]

_STRENGTHS = (2.0, 4.0, 8.0, 16.0)
_TAIL = 20  # interactions: with fewer a row can gain
_K = 20
_MOST_USERS = 2000
_MOST_LOST = 0.005  # of the hits among all rows
_NOISE = 1.0  # standard errors: what users find more by chance, as in a race of trainers

_Floats = npt.NDArray[np.float32]


def with_prior(trained: Trained, said: Folded, strength: float) -> Folded:
    """Turn trained rows towards what content says of them.

    Args:
        trained: the rows.
        said: what content alone says of each.
        strength: τ.
    """
    known = trained.known.factors
    gram = sum(
        (part.T @ part for part in np.array_split(known.astype(np.float64), 1 + len(known) // (1 << 16))),
        np.zeros((known.shape[1],) * 2),
    )
    variances, directions = np.linalg.eigh(gram)
    variances = (variances.clip(0) / max(variances.mean(), np.finfo(float).tiny)).astype(np.float32)
    directions = directions.astype(np.float32)
    n = np.diff(trained.interactions.indptr).astype(np.float32)[:, None]
    share = n * variances / (n * variances + np.float32(strength))
    lengths = np.linalg.norm(trained.vectors, axis=1, keepdims=True)
    mean = _of_length(said.factors, lengths)
    mixed = (share * (trained.vectors @ directions) + (1 - share) * (mean @ directions)) @ directions.T
    return Folded(np.ascontiguousarray(mixed, np.float32), trained.bias)


def choose_strength(
    trained: Trained, said: Folded, asked: csr_matrix, seen: csr_matrix, users: npt.NDArray[np.bool_] | None = None
) -> float | None:
    """The τ with which users find most of the trained items of few interactions; None if none finds more than chance.

    Args:
        trained: items.
        said: what content alone says of each.
        asked: what users did in a part of the log that the training did not see, shape (n_users, n_items).
        seen: what they did in the training.
        users: which of the known side these are; None if all.
    """
    rows = np.flatnonzero(np.diff(asked.indptr))[:_MOST_USERS]
    known = trained.known.factors if users is None else trained.known.factors[users]
    vectors, asked, seen = known[rows], asked[rows], seen[rows]
    few = np.flatnonzero(np.diff(trained.interactions.indptr) <= _TAIL)
    if not asked[:, few].nnz:
        return None
    every = np.arange(trained.vectors.shape[0])

    def found(items: Folded, numbers: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        scores = vectors @ items.factors[numbers].T + items.bias[numbers]
        return _share_found(scores, asked[:, numbers], seen[:, numbers])

    own = Folded(trained.vectors, trained.bias)
    without, least = found(own, few), (1 - _MOST_LOST) * found(own, every).mean()
    best, most = None, 0.0
    for strength in _STRENGTHS:
        mixed = with_prior(trained, said, strength)
        gain = found(mixed, few) - without
        noise = _NOISE * gain.std() / np.sqrt(len(gain))
        if gain.mean() > max(most, noise) and found(mixed, every).mean() >= least:
            best, most = strength, gain.mean()
    return best


def _of_length(vectors: _Floats, lengths: _Floats) -> _Floats:
    own = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors * np.divide(lengths, own, out=np.zeros_like(own), where=own > 0), np.float32)


def _share_found(scores: _Floats, asked: csr_matrix, seen: csr_matrix) -> npt.NDArray[np.float64]:
    """The share of min(20, all) of a user's asked items among the first 20, for each user who has one."""
    scores = np.where(seen.toarray() > 0, np.float32(-np.inf), scores)
    k = min(_K, scores.shape[1])
    first = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    wanted = asked.toarray() > 0
    n = wanted.sum(axis=1)
    hits = np.take_along_axis(wanted, first, axis=1).sum(axis=1)
    return np.asarray(hits[n > 0] / np.minimum(n, k)[n > 0])
