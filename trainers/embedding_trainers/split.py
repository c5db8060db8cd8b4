"""Hold interactions back, to see whether a model that never saw them foretells them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedding_trainers.extra import import_extra
from embedding_trainers.interactions import Interactions

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["MIN_TEST_USERS", "Split", "split_interactions"]

TIME_SHARE = 0.1
USER_SHARE = 0.2
MIN_USER_ITEMS = 5
MIN_TEST_USERS = 100

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Split:
    """A training part and the test pairs that can be foretold from it.

    Attributes:
        train: csr float32, shape (users, items) of the training part, no empty row or column.
        test: csr float32 of the same shape; pairs not in `train`. A row without an entry is no test user.
        method: how it was split, in words.
    """

    train: csr_matrix
    test: csr_matrix
    method: str

    @property
    def n_test_users(self) -> int:
        """How many users have a test pair."""
        return int((np.diff(self.test.indptr) > 0).sum())


def split_interactions(interactions: Interactions, *, seed: int) -> Split:
    """Split by time if the log has times and enough users return, else by user.

    By time, the newest 10 % of the rows are the test: it is what serving does, and no future leaks into the
    training part. With fewer than 100 test users the mean over them says little, and then the newest 20 % of
    each user's items are the test, for users with at least 5 (random ones by seed for a log without times).

    Users and items that are only in the test, and pairs that are in both parts, are no part of the test.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    if interactions.timestamps is not None:
        # Rows of equal time stay together, on the training side of the cut.
        cut = np.quantile(interactions.timestamps, 1 - TIME_SHARE, method="lower")
        split = _split(interactions, interactions.timestamps > cut, f"newest {TIME_SHARE:.0%} of the interactions")
        if split.n_test_users >= MIN_TEST_USERS:
            return split
    which = "random" if interactions.timestamps is None else "newest"
    return _split(
        interactions, _held_out_per_user(interactions, seed), f"{which} {USER_SHARE:.0%} of each user's items"
    )


def _held_out_per_user(interactions: Interactions, seed: int) -> _Mask:
    """Which rows belong to the pairs held out; a pair's time is that of its first row."""
    if interactions.timestamps is None:
        by_age = np.random.default_rng(seed).permutation(len(interactions))
    else:
        by_age = np.argsort(interactions.timestamps, kind="stable")
    users, items = interactions.user_numbers[by_age], interactions.item_numbers[by_age]
    pairs, age, pair_of_row = np.unique(
        users.astype(np.int64) * len(interactions.items) + items, return_index=True, return_inverse=True
    )
    pair_users = pairs // len(interactions.items)
    n_items = np.bincount(pair_users, minlength=len(interactions.users))
    n_held = np.where(n_items >= MIN_USER_ITEMS, (n_items * USER_SHARE).astype(np.int64), 0)
    # Pairs by user and then newest first, so that a pair's place less its user's start is its rank.
    order = np.lexsort((-age, pair_users))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(n_items) - n_items, n_items)
    held = np.zeros(len(pairs), dtype=bool)
    held[order] = rank < n_held[pair_users[order]]
    rows = np.zeros(len(interactions), dtype=bool)
    rows[by_age] = held[pair_of_row]
    return rows


def _split(interactions: Interactions, test: _Mask, method: str) -> Split:
    matrix = import_extra("scipy.sparse").csr_matrix
    users, items = interactions.user_numbers, interactions.item_numbers
    weights = np.ones(len(interactions), np.float32) if interactions.weights is None else interactions.weights
    # The training part gets numbers of its own, so that a trainer sees it as it would see a whole log.
    known_users, train_users = np.unique(users[~test], return_inverse=True)
    known_items, train_items = np.unique(items[~test], return_inverse=True)
    shape = (len(known_users), len(known_items))
    train = matrix((weights[~test], (train_users, train_items)), shape=shape)
    train.sort_indices()
    foretellable = test & np.isin(users, known_users) & np.isin(items, known_items)
    test_pairs = matrix(
        (
            np.ones(int(foretellable.sum()), np.float32),
            (
                np.searchsorted(known_users, users[foretellable]),
                np.searchsorted(known_items, items[foretellable]),
            ),
        ),
        shape=shape,
    )
    test_pairs.data[:] = 1
    new = test_pairs - test_pairs.multiply(train > 0)
    new.eliminate_zeros()
    new.sort_indices()
    return Split(train, new.tocsr(), method)
