"""Metrics of ranked lists, each cited where it is defined. docs/evaluation.md is the overview.

Everywhere: rank 1 is first, an item is relevant or not, n is the number of a user's relevant items. Lists may be
shorter than k, where a user has fewer items left; the ranks that are not there are misses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedding_trainers.evaluation.ranking import Ranking

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = [
    "average_popularity",
    "average_precision",
    "coverage",
    "find_hits",
    "gini",
    "hit_rate",
    "ndcg",
    "recall",
    "reciprocal_rank",
]

Hits = npt.NDArray[np.bool_]
"""Shape (n_users, ranks): is the item at this rank of this user's list relevant?"""
PerUser = npt.NDArray[np.float64]


def find_hits(ranking: Ranking, relevant: csr_matrix) -> Hits:
    """Which items of the lists are relevant.

    Args:
        ranking: shape (n, ranks).
        relevant: csr, sorted indices, shape (n, n_items).
    """
    n, n_items = relevant.shape
    rows = np.arange(n)
    keys = np.repeat(rows, np.diff(relevant.indptr)) * n_items + relevant.indices
    wanted = rows[:, None] * n_items + ranking
    place = np.searchsorted(keys, wanted)
    hits: Hits = (ranking >= 0) & (np.append(keys, -1)[place] == wanted)
    return hits


def recall(hits: Hits, n_relevant: npt.NDArray[np.int64], k: int) -> PerUser:
    """Hits among the first k ÷ n, below 1 for n > k; as in LightGCN (He et al., SIGIR 2020, arXiv:2002.02126)."""
    recalled: PerUser = hits[:, :k].sum(axis=1) / n_relevant
    return recalled


def ndcg(hits: Hits, n_relevant: npt.NDArray[np.int64], k: int) -> PerUser:
    """The sum of 1 ÷ log₂(1 + rank) over hits among the first k ÷ the same sum for hits at the first min(k, n) ranks.

    Järvelin & Kekäläinen, TOIS 2002, with gain 1 and the discount of Burges et al., ICML 2005.
    """
    discounts = 1 / np.log2(np.arange(2, 2 + min(k, max(hits.shape[1], n_relevant.max()))))
    ideal = np.cumsum(discounts)[np.minimum(n_relevant, k) - 1]
    first = hits[:, :k]
    share: PerUser = (first @ discounts[: first.shape[1]]) / ideal
    return share


def average_precision(hits: Hits, n_relevant: npt.NDArray[np.int64], k: int) -> PerUser:
    """The sum of precision at each hit among the first k ÷ min(k, n); its mean over users is MAP@k.

    Truncated as in the Million Song Dataset Challenge (McFee et al., WWW 2012 Companion).
    """
    first = hits[:, :k]
    precision = np.cumsum(first, axis=1) / np.arange(1, first.shape[1] + 1)
    summed: PerUser = (precision * first).sum(axis=1)
    return summed / np.minimum(n_relevant, k)


def hit_rate(hits: Hits, k: int) -> PerUser:
    """1 with a hit among the first k, else 0 (Deshpande & Karypis, TOIS 2004)."""
    found: PerUser = np.max(hits[:, :k], axis=1).astype(np.float64)
    return found


def reciprocal_rank(hits: Hits, k: int) -> PerUser:
    """1 ÷ the rank of the first hit, 0 without one among the first k; its mean is MRR@k (Voorhees, TREC-8, 1999)."""
    first = hits[:, :k]
    return np.where(first.any(axis=1), 1 / (first.argmax(axis=1) + 1), 0.0)


def average_popularity(ranking: Ranking, popularity: npt.NDArray[np.int64], k: int) -> PerUser:
    """Mean popularity of the first k items; its mean over users is ARP@k (Yin et al., PVLDB 5(9), 2012).

    Args:
        ranking: shape (n, ranks), a list for each user, not empty.
        popularity: how many users have the item in training, shape (n_items,).
        k: ranks to look at.
    """
    first = ranking[:, :k]
    there = first >= 0
    means: PerUser = np.where(there, popularity[first], 0).sum(axis=1) / there.sum(axis=1)
    return means


def coverage(ranking: Ranking, n_items: int, k: int) -> float:
    """Share of the catalogue that is among anybody's first k (catalogue coverage: Ge et al., RecSys 2010)."""
    return float((_times_listed(ranking, n_items, k) > 0).mean())


def gini(ranking: Ranking, n_items: int, k: int) -> float:
    """How unequally often items are among users' first k: 0 all the same, 1 always one item; 0 for a single item.

    With p₁ ≤ … ≤ pₙ the items' shares of all that was listed it is Σ (2j - n - 1) pⱼ ÷ (n - 1): Shani & Gunawardana,
    Evaluating Recommendation Systems, in Recommender Systems Handbook, Springer 2011.
    """
    if n_items == 1:
        return 0.0
    listed = np.sort(_times_listed(ranking, n_items, k))
    weights = 2 * np.arange(1, n_items + 1) - n_items - 1
    return float(weights @ listed / listed.sum() / (n_items - 1))


def _times_listed(ranking: Ranking, n_items: int, k: int) -> npt.NDArray[np.int64]:
    first = ranking[:, :k]
    return np.bincount(first[first >= 0], minlength=n_items)
