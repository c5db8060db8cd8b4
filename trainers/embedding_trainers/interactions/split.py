"""Hold interactions back, to see whether a model that never saw them predicts them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.extra import import_extra
from embedding_trainers.interactions.log import Interactions
from feast_embeddings.errors import InputError
from feast_embeddings.times import to_microseconds

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = [
    "MIN_TEST_USERS",
    "LeftOut",
    "Split",
    "split_against",
    "split_by_time",
    "split_by_user",
    "split_interactions",
    "split_leave_last_out",
]

TIME_SHARE = 0.1
USER_SHARE = 0.2
MIN_USER_ITEMS = 5
MIN_TEST_USERS = 100
_BLOCK_ENTRIES = 1 << 22
BY_TIME = f"newest {TIME_SHARE:.0%} of the interactions"

_Mask = npt.NDArray[np.bool_]
_Numbers = npt.NDArray[np.integer]


@dataclass(frozen=True)
class LeftOut:
    """What of the held back interactions cannot be predicted.

    Attributes:
        unknown_users: users that the training part does not have.
        unknown_items: items that it does not have.
        unknown_pairs: distinct pairs of user and item of which it lacks one or both.
        seen_pairs: distinct pairs that it has.
    """

    unknown_users: int
    unknown_items: int
    unknown_pairs: int
    seen_pairs: int

    def __str__(self) -> str:
        return (
            f"{self.unknown_pairs:,} pairs of {self.unknown_users:,} users and {self.unknown_items:,} items that "
            f"training did not see, {self.seen_pairs:,} pairs that it did"
        )


@dataclass(frozen=True)
class Split:
    """A training part and the test pairs that can be predicted from it.

    Attributes:
        train: csr float32, shape (users, items) of the training part, no empty row or column.
        test: csr float32 of the same shape, sorted indices; pairs not in `train`. A row without an entry is no test
            user.
        users: ids of the rows, string or int64.
        items: ids of the columns, string or int64.
        left_out: what was held back and is in neither.
        method: how it was split, in words.
        held_back: which rows of the log are not in the training part; None if the test came from elsewhere.
    """

    train: csr_matrix
    test: csr_matrix
    users: pa.Array
    items: pa.Array
    left_out: LeftOut
    method: str
    held_back: _Mask | None = None

    @property
    def n_test_users(self) -> int:
        """How many users have a test pair."""
        return int((np.diff(self.test.indptr) > 0).sum())


def split_interactions(interactions: Interactions, *, seed: int) -> Split:
    """Split by time if the log has times and enough users return, else by user.

    By time, the newest 10 % of the rows are the test: it is what serving does, and no future leaks into the
    training part. With fewer than 100 test users the mean over them says little, and then it is `split_by_user`.

    Users and items that are only in the test, and pairs that are in both parts, are no part of the test.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    if interactions.timestamps is not None:
        split = split_by_time(interactions)
        if split.n_test_users >= MIN_TEST_USERS:
            return split
    return split_by_user(interactions, seed=seed)


def by_user(has_times: bool) -> str:
    """Name the method of `split_by_user`."""
    return f"{'newest' if has_times else 'random'} {USER_SHARE:.0%} of each user's items"


def split_by_time(interactions: Interactions, at: datetime | None = None) -> Split:
    """Train on what happened up to an instant, test on what came later.

    Args:
        interactions: with times.
        at: the instant, with a time zone; None takes the one after which 10 % of the rows are. Rows of equal time stay
            together, on the training side.

    Raises:
        InputError: the log has no times, or they are all on one side of `at`.
    """
    times = _times(interactions)
    if at is None:
        cut = int(np.quantile(times, 1 - TIME_SHARE, method="lower"))
        return _split(interactions, times > cut, BY_TIME)
    later = times > to_microseconds(at)
    if later.all() or not later.any():
        raise InputError(f"all interactions are {'after' if later.all() else 'not after'} {at}; choose another time")
    return _split(interactions, later, f"interactions after {at:%Y-%m-%d %H:%M:%S} UTC")


def split_leave_last_out(interactions: Interactions) -> Split:
    """Test on the newest item of each user with at least two (leave-one-out: He et al., WWW 2017, arXiv:1708.05031).

    An item's time is the time of the user's first interaction with it, as it cannot be predicted twice.

    Raises:
        InputError: the log has no times.
    """
    _times(interactions)
    held = _held_out_per_user(interactions, lambda n_items: (n_items >= 2).astype(np.int64), seed=0)
    return _split(interactions, held, "newest item of each user")


def split_by_user(interactions: Interactions, *, seed: int) -> Split:
    """Test on the newest 20 % of each user's items, random ones by seed in a log without times.

    Only users with at least 5 items are tested. An item's time is the time of the user's first interaction with it.
    """

    def share(n_items: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.where(n_items >= MIN_USER_ITEMS, (n_items * USER_SHARE).astype(np.int64), 0)

    method = by_user(interactions.timestamps is not None)
    return _split(interactions, _held_out_per_user(interactions, share, seed), method)


def split_against(users: pa.Array, items: pa.Array, train: csr_matrix, test: Interactions, method: str) -> Split:
    """Test on interactions that come from elsewhere. Ids are compared as text: 7 and "7" are the same.

    Args:
        users: ids of the rows of `train`.
        items: ids of its columns.
        train: csr, sorted indices.
        test: the interactions to predict.
        method: in words, for the result.

    Raises:
        InputError: `train` knows none of the users or none of the items of `test`.
    """
    positions = []
    for kind, known, asked in (("users", users, test.users), ("items", items, test.items)):
        found = pc.index_in(asked.cast(pa.string()), value_set=known.cast(pa.string()))
        if found.null_count == len(found):
            raise InputError(
                f"none of the {kind} to test on (e.g. {asked[0].as_py()!r}) is among those of the training "
                f"(e.g. {known[0].as_py()!r}); check that both use the same ids"
            )
        positions.append(pc.fill_null(found, -1).to_numpy())
    rows, columns = positions
    return _assemble(train, users, items, (test.user_numbers, rows), (test.item_numbers, columns), method)


def _is_entry(matrix: csr_matrix, rows: _Numbers, columns: _Numbers) -> _Mask:
    """Whether each pair is an entry of the matrix, whose indices are sorted; some pairs at a time."""
    found = np.zeros(len(rows), dtype=bool)
    order, n_columns = np.argsort(rows, kind="stable"), matrix.shape[1]
    start = 0
    while start < len(order):
        # Of the rows from here on as many as have about a block of entries.
        first = int(rows[order[start]])
        end = int(matrix.indptr[first]) + _BLOCK_ENTRIES
        last = max(first, int(np.searchsorted(matrix.indptr, end, side="right")) - 2)
        stop = int(np.searchsorted(rows, last, side="right", sorter=order))
        here, inside = order[start:stop], slice(matrix.indptr[first], matrix.indptr[last + 1])
        in_row = np.repeat(np.arange(last - first + 1), np.diff(matrix.indptr[first : last + 2]))
        entries = in_row * n_columns + matrix.indices[inside]
        asked = (rows[here] - first) * n_columns + columns[here]
        places = np.searchsorted(entries, asked)
        found[here] = np.append(entries, -1)[places] == asked
        start = stop
    return found


def _times(interactions: Interactions) -> npt.NDArray[np.int64]:
    if interactions.timestamps is None:
        raise InputError("the log has no times, so it cannot be split by them; name their column")
    return interactions.timestamps


def _held_out_per_user(
    interactions: Interactions,
    n_held: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]],
    seed: int,
) -> _Mask:
    """Which rows belong to held-out pairs, `n_held` of each user's items; a pair has the time of its first row."""
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
    # Pairs by user and then newest first, so that a pair's place less its user's start is its rank.
    order = np.lexsort((-age, pair_users))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(n_items) - n_items, n_items)
    held = np.zeros(len(pairs), dtype=bool)
    held[order] = rank < n_held(n_items)[pair_users[order]]
    rows = np.zeros(len(interactions), dtype=bool)
    rows[by_age] = held[pair_of_row]
    return rows


def _split(interactions: Interactions, test: _Mask, method: str) -> Split:
    # The training part gets numbers of its own, so that a trainer sees it as it would see a whole log.
    training = replace(interactions, timestamps=None).where(~test)
    train, users, items = training.to_csr(), training.users, training.items
    del training  # its rows are as large as the matrix
    split = _assemble(
        train,
        users,
        items,
        (interactions.user_numbers[test], _positions(users, interactions.users)),
        (interactions.item_numbers[test], _positions(items, interactions.items)),
        method,
    )
    return replace(split, held_back=test)


def _positions(known: pa.Array, ids: pa.Array) -> _Numbers:
    """The place of each id among the known ones, which are some of them in the same order; -1 for none."""
    among = pc.is_in(ids, value_set=known).to_numpy(zero_copy_only=False)
    return np.where(among, np.cumsum(among) - 1, -1)


def _assemble(
    train: csr_matrix,
    users: pa.Array,
    items: pa.Array,
    test_users: tuple[_Numbers, _Numbers],
    test_items: tuple[_Numbers, _Numbers],
    method: str,
) -> Split:
    """The split whose test are rows that are numbered in their own way.

    The tuples are the number of each row, and for each number the position in `train`, -1 for none.
    """
    (user_numbers, user_rows), (item_numbers, item_columns) = test_users, test_items
    pairs = np.unique(user_numbers.astype(np.int64) * len(item_columns) + item_numbers)
    pair_users, pair_items = np.divmod(pairs, len(item_columns))
    rows, columns = user_rows[pair_users], item_columns[pair_items]
    known = (rows >= 0) & (columns >= 0)
    rows, columns = rows[known], columns[known]
    seen = _is_entry(train, rows, columns)
    test = import_extra("scipy.sparse").csr_matrix(
        (np.ones(int((~seen).sum()), np.float32), (rows[~seen], columns[~seen])), shape=train.shape
    )
    test.sort_indices()
    left_out = LeftOut(
        unknown_users=int((user_rows[np.unique(pair_users)] < 0).sum()),
        unknown_items=int((item_columns[np.unique(pair_items)] < 0).sum()),
        unknown_pairs=int((~known).sum()),
        seen_pairs=int(seen.sum()),
    )
    return Split(train, test, users, items, left_out, method)
