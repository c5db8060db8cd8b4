"""Metrics of lists that do not ask whether the items are right, each cited where it is defined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedding_trainers.evaluation.metrics import PerUser, average_popularity
from embedding_trainers.evaluation.ranking import Ranking, factors_ranking
from embedding_trainers.extra import import_extra
from embedding_trainers.trainer import Factors

__all__ = ["beyond_accuracy", "diversity", "novelty", "popularity_lift"]

_BLOCK_VALUES = 1 << 23  # 32 MiB of vectors at a time
_MOST_ITEMS = 2_000


def beyond_accuracy(
    ranking: Ranking, factors: Factors, popularity: npt.NDArray[np.int64], n_users: int, cuts: Sequence[int]
) -> dict[str, PerUser]:
    """Return popularity, novelty and diversity of each user's list, by metric and cut-off."""
    return {
        f"{name}@{k}": values
        for k in cuts
        for name, values in (
            ("popularity", average_popularity(ranking, popularity, k)),
            ("novelty", novelty(ranking, popularity, n_users, k)),
            ("diversity", diversity(ranking, factors.item_factors, k)),
        )
    }


def novelty(ranking: Ranking, popularity: npt.NDArray[np.int64], n_users: int, k: int) -> PerUser:
    """Mean self-information -log₂(popularity ÷ users) of the first k items (Zhou et al., PNAS 107(10), 2010).

    0 for items that every user has; an item that no user has counts as one that a single user has.

    Args:
        ranking: shape (n, ranks), a list for each user, not empty.
        popularity: how many users have the item in training, shape (n_items,).
        n_users: users in training.
        k: ranks to look at.
    """
    first = ranking[:, :k]
    there = first >= 0
    information = -np.log2(np.maximum(popularity, 1) / n_users)
    means: PerUser = np.where(there, information[first], 0).sum(axis=1) / there.sum(axis=1)
    return means


def diversity(ranking: Ranking, item_factors: npt.NDArray[np.float32], k: int) -> PerUser:
    """1 - the mean cosine of all pairs among the first k items.

    Intra-list diversity: Smyth & McClave, ICCBR 2001; Ziegler et al., WWW 2005. 0 for a list of one item, which has no
    pair. A vector of zeros has cosine 0 with every other one.

    Args:
        ranking: shape (n, ranks), a list for each user, not empty.
        item_factors: shape (n_items, factors); a missing rank has none.
        k: ranks to look at.
    """
    unit = np.vstack([_unit(item_factors), np.zeros((1, item_factors.shape[1]), np.float32)])  # -1 is the last row
    square_norms = np.einsum("ij,ij->i", unit, unit)
    first = ranking[:, :k]
    n = (first >= 0).sum(axis=1)
    result: PerUser = np.zeros(len(first))
    size = max(1, _BLOCK_VALUES // (first.shape[1] * unit.shape[1]))
    for start in range(0, len(first), size):
        block = first[start : start + size]
        # The square of the sum of the vectors is each pair's product twice, and each vector's with itself.
        total = unit[block].sum(axis=1, dtype=np.float64)
        result[start : start + size] = np.einsum("ij,ij->i", total, total) - square_norms[block].sum(axis=1)
    pairs = n * (n - 1)
    return np.where(pairs > 0, 1 - result / np.maximum(pairs, 1), 0.0)


def popularity_lift(
    item_factors: npt.NDArray[np.float32], popularity: npt.NDArray[np.int64], cuts: Sequence[int]
) -> dict[int, float]:
    """Mean popularity of the k most similar items ÷ mean popularity of the items themselves, - 1.

    Popularity lift (Abdollahpouri et al., RecSys 2020), with an item in the place of a user's profile. Similar is by
    cosine, without the item itself; of more than 2,000 items a random 2,000 are asked about.

    Args:
        item_factors: shape (n_items, factors).
        popularity: how many users have the item in training, shape (n_items,).
        cuts: lengths of the lists.

    Returns:
        By length: 0 if similar items are as popular, 1 if twice; 0 for a single item.
    """
    n_items = len(popularity)
    if n_items == 1:
        return dict.fromkeys(cuts, 0.0)
    asked = np.arange(n_items)
    if n_items > _MOST_ITEMS:
        asked = np.sort(np.random.default_rng(0).choice(n_items, _MOST_ITEMS, replace=False))
    unit = _unit(item_factors)
    itself = import_extra("scipy.sparse").identity(n_items, np.float32, "csr")
    alike = Factors(unit, unit, np.zeros(n_items, np.float32))
    lists = factors_ranking(alike, itself, asked, max(cuts), progress=False)
    own = popularity[asked].mean()
    return {k: float(average_popularity(lists, popularity, k).mean() / own - 1) if own else 0.0 for k in cuts}


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The vectors with length 1, and zeros as they are."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
