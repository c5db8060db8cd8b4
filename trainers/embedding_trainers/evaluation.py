"""How well factors rank the items that users turned to later, beside ranking by popularity alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedding_trainers.trainer import Factors

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["K", "evaluate", "top_k"]

K = 20
_BLOCK_SCORES = 1 << 24  # scores held at a time, 64 MiB

_Scores = npt.NDArray[np.float32]


def evaluate(factors: Factors, train: csr_matrix, test: csr_matrix) -> dict[str, float]:
    """Rank all items for every test user, without those seen in training, and look for the test items.

    ``recall@20`` is the share of a user's test items among the first 20 (as in LightGCN, He et al., SIGIR
    2020, arXiv:2002.02126); ``ndcg@20`` has gain 1 for a test item, discount log₂(1 + rank), and as ideal all
    of the first min(20, test items) ranks (Järvelin & Kekäläinen, TOIS 2002). Both are means over the users
    with a test item. ``popular_recall@20`` and ``popular_ndcg@20`` are the same for one ranking of all items
    by their number of users in training: the floor for anything personal.

    Args:
        factors: in the numbering of `train`.
        train: csr, shape (n_users, n_items); its pairs are masked.
        test: csr, same shape, disjoint from `train`.

    Returns:
        The four metrics, 0 to 1, higher is better; empty if there is no test user.
    """
    users = np.flatnonzero(np.diff(test.indptr))
    if not len(users):
        return {}
    # Places in the ranking instead of counts: no ties.
    popularity = np.bincount(train.indices, minlength=train.shape[1])
    popular = np.empty(train.shape[1], np.float32)
    popular[np.argsort(-popularity, kind="stable")] = -np.arange(train.shape[1])

    totals = np.zeros(4)
    size = max(1, _BLOCK_SCORES // train.shape[1])
    for start in range(0, len(users), size):
        block = users[start : start + size]
        scores = factors.user_factors[block] @ factors.item_factors.T + factors.item_bias
        seen, relevant = train[block], test[block]
        totals[:2] += _summed(scores, seen, relevant)
        totals[2:] += _summed(np.tile(popular, (len(block), 1)), seen, relevant)
    names = (f"recall@{K}", f"ndcg@{K}", f"popular_recall@{K}", f"popular_ndcg@{K}")
    return dict(zip(names, (totals / len(users)).tolist(), strict=True))


def top_k(scores: _Scores, k: int) -> npt.NDArray[np.int64]:
    """Columns of the k highest scores of each row, highest first; of equal scores the lower column first.

    Args:
        scores: shape (rows, columns), without NaN.
        k: at most the number of columns.

    Returns:
        int64, shape (rows, k).
    """
    top = np.argpartition(scores, scores.shape[1] - k, axis=1)[:, -k:]
    edge = np.take_along_axis(scores, top, axis=1).min(axis=1, keepdims=True)
    # Where more than k columns reach the k-th score, argpartition picks arbitrary ones of them.
    tied = np.flatnonzero((scores >= edge).sum(axis=1) > k)
    above, level = scores[tied] > edge[tied], scores[tied] == edge[tied]
    room = k - above.sum(axis=1, keepdims=True)
    top[tied] = np.nonzero(above | (level & (level.cumsum(axis=1) <= room)))[1].reshape(-1, k)
    top.sort(axis=1)
    best = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, best, axis=1)


def _summed(scores: _Scores, seen: csr_matrix, relevant: csr_matrix) -> Any:
    """Recall and NDCG, each summed over the rows. Overwrites the scores of seen items."""
    scores[_pairs(seen)] = -np.inf
    top = top_k(scores, min(K, scores.shape[1]))
    is_relevant = np.zeros(scores.shape, dtype=bool)
    is_relevant[_pairs(relevant)] = True
    hits = np.take_along_axis(is_relevant, top, axis=1)
    n_relevant = np.diff(relevant.indptr)
    discounts = 1 / np.log2(np.arange(2, K + 2))
    ideal = np.cumsum(discounts)[np.minimum(n_relevant, K) - 1]
    recall = hits.sum(axis=1) / n_relevant
    ndcg = hits @ discounts[: hits.shape[1]] / ideal
    return recall.sum(), ndcg.sum()


def _pairs(matrix: csr_matrix) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)), matrix.indices
