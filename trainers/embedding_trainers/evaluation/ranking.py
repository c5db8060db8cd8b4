"""Which k items come first for each user: by a model, by popularity, or at random; seen items are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from embedding_trainers.trainer import Factors
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["Ranking", "factors_ranking", "popularity_ranking", "random_ranking", "top_k"]

_BLOCK_SCORES = 1 << 23  # scores held at a time, 32 MiB
_LEAST_USERS = 32  # of a block: with fewer, reading the items takes longer than multiplying them

Ranking = npt.NDArray[np.int32]
"""A row per user and a column per rank, best first: numbers of items, and -1 where no item is left."""


def factors_ranking(
    factors: Factors, seen: csr_matrix, users: npt.NDArray[np.intp], k: int, *, progress: bool
) -> Ranking:
    """Rank by the score ``user · item + bias``, in float32; of equal scores the lower item number comes first.

    Works through users in blocks of 8 million scores, or of 32 users if that is more, so that memory does not grow with
    their number.

    Args:
        factors: of all users and items.
        seen: csr, shape (n_users, n_items); its pairs are left out of the ranking.
        users: the users to rank for, shape (n,).
        k: ranks per user.
        progress: show a bar on standard error.

    Returns:
        int32, shape (n, min(k, n_items)).

    Raises:
        InputError: scores may exceed what float32 holds, as training diverged.
    """
    n_items = len(factors.item_factors)
    # The bias as an extra coordinate, as it is served.
    items = np.column_stack([factors.item_factors, factors.item_bias])
    of_users = np.column_stack([factors.user_factors[users], np.ones(len(users), np.float32)])
    longest = [np.sqrt(np.einsum("ij,ij->i", side, side, dtype=np.float64).max()) for side in (of_users, items)]
    if longest[0] * longest[1] > np.finfo(np.float32).max:
        raise InputError("scores exceed what float32 holds; lower the learning rate or raise the regularization")

    result = np.empty((len(users), min(k, n_items)), np.int32)
    size = max(_LEAST_USERS, _BLOCK_SCORES // n_items)
    buffer = np.empty((min(size, len(users)), n_items), np.float32)
    with tqdm(total=len(users), unit=" users", desc="rank", disable=not progress) as bar:
        for start in range(0, len(users), size):
            block = users[start : start + size]
            scores = np.matmul(of_users[start : start + size], items.T, out=buffer[: len(block)])
            rows, columns = _pairs(seen[block])
            scores[rows, columns] = -np.inf
            top = top_k(scores, result.shape[1])
            top[np.isneginf(np.take_along_axis(scores, top, axis=1))] = -1
            result[start : start + size] = top
            bar.update(len(block))
    return result


def top_k(scores: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.intp]:
    """Columns of the k highest scores of each row, highest first; of equal scores the lower column first.

    Args:
        scores: shape (rows, columns), C-contiguous, without NaN.
        k: at most the number of columns.

    Returns:
        Shape (rows, k).
    """
    n_rows, n_columns = scores.shape
    # The k-th highest of the maxima of groups is reached by k columns, so only columns that reach it can be among
    # the first k. They are few, and finding them so is several times faster than partitioning whole rows.
    group = max(1, n_columns // (8 * k))
    n_groups = n_columns // group
    maxima = scores[:, : group * n_groups].reshape(n_rows, group, n_groups).max(axis=1)
    enough = np.partition(maxima, n_groups - k, axis=1)[:, n_groups - k, None]
    candidates = np.flatnonzero(scores >= enough)
    rows, columns = np.divmod(candidates, n_columns)
    # Stable, and columns ascend within a row: of equal scores the lower column stays in front.
    order = np.lexsort((-scores.ravel()[candidates], rows))
    starts = np.searchsorted(rows, np.arange(n_rows))
    top: npt.NDArray[np.intp] = columns[order[starts[:, None] + np.arange(k)]]
    return top


def popularity_ranking(seen: csr_matrix, popularity: npt.NDArray[np.int64], k: int) -> Ranking:
    """Rank by popularity, for each user without the seen items; of equally popular items the lower number first.

    Args:
        seen: csr, shape (n, n_items): the users to rank for.
        popularity: of the items, shape (n_items,).
        k: ranks per user.

    Returns:
        int32, shape (n, min(k, n_items)).
    """
    n_items = len(popularity)
    order = np.argsort(-popularity, kind="stable").astype(np.int32)
    places = np.empty(n_items, np.int64)
    places[order] = np.arange(n_items)
    rows, columns = _pairs(seen)
    wanted = np.broadcast_to(np.arange(min(k, n_items)), (seen.shape[0], min(k, n_items)))
    return _unseen(rows, places[columns], wanted, order)


def random_ranking(seen: csr_matrix, k: int, rng: np.random.Generator) -> Ranking:
    """Draw an order of the unseen items for each user; all orders are equally likely.

    Args:
        seen: csr, shape (n, n_items): the users to rank for.
        k: ranks per user.
        rng: what draws.

    Returns:
        int32, shape (n, min(k, n_items)).
    """
    n, n_items = seen.shape
    k = min(k, n_items)
    n_unseen = n_items - np.diff(seen.indptr)
    # Floyd's way to draw k of n without repeats (Bentley & Floyd, CACM 1987), for all users at once. Who has fewer
    # than k unseen items starts below zero, which is no item.
    drawn = np.full((n, k), -1)
    for column in range(k):
        last = n_unseen - k + column
        candidate = np.where(last < 0, -1, np.floor(rng.random(n) * (last + 1)).astype(np.int64))
        taken = (drawn[:, :column] == candidate[:, None]).any(axis=1)
        drawn[:, column] = np.where(taken & (last >= 0), last, candidate)
    shuffled = np.argsort(np.where(drawn < 0, 2.0, rng.random((n, k))), axis=1)
    rows, columns = _pairs(seen)
    return _unseen(rows, columns.astype(np.int64), np.take_along_axis(drawn, shuffled, axis=1), np.arange(n_items))


def _unseen(
    rows: npt.NDArray[np.int64], places: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64], order: npt.NDArray[Any]
) -> Ranking:
    """In each row the items at the wanted positions of `order` after the seen ones are taken out of it.

    Args:
        rows: ascending, shape (m,).
        places: where in `order` the row's seen items are, shape (m,).
        wanted: positions, -1 for none, shape (n, k).
        order: all items, shape (n_items,).
    """
    n, n_items = len(wanted), len(order)
    places = places[np.lexsort((places, rows))]
    starts = np.searchsorted(rows, np.arange(n + 1))
    # How many unseen items precede each seen one. Position w is past a seen item if at most w do.
    before = places - (np.arange(len(rows)) - starts[rows])
    keys = rows * (n_items + 1) + before
    passed = np.searchsorted(keys, np.arange(n)[:, None] * (n_items + 1) + wanted, side="right") - starts[:-1, None]
    place = wanted + passed
    there = (wanted >= 0) & (place < n_items)
    return np.where(there, order[np.where(there, place, 0)], -1).astype(np.int32)


def _pairs(matrix: csr_matrix) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)), matrix.indices
