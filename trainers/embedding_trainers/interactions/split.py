"""Hold interactions back, to see whether a model that never saw them predicts them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.interactions.log import Interactions
from embedding_trainers.interactions.split_parts import Split, assemble
from feast_embeddings.errors import InputError
from feast_embeddings.times import to_microseconds

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = [
    "MIN_TEST_USERS",
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
BY_TIME = f"newest {TIME_SHARE:.0%} of the interactions"

_Mask = npt.NDArray[np.bool_]
_Numbers = npt.NDArray[np.integer]


def split_interactions(interactions: Interactions, *, seed: int, include_seen: bool = False) -> Split:
    """Split by time if the log has times and enough users return, else by user.

    By time, the newest 10 % of the rows are the test: this matches serving, and no future leaks into the
    training part. With fewer than 100 test users the mean over them says little, and then it is `split_by_user`.

    Users and items that are only in the test, and pairs that are in both parts, are no part of the test. With
    `include_seen` pairs that are in both are, and the split is by time.

    Raises:
        MissingExtraError: scipy is not installed.
        InputError: `include_seen`, and the log has no times.
    """
    if include_seen:
        return split_by_time(interactions, include_seen=True)
    if interactions.timestamps is not None:
        split = split_by_time(interactions)
        if split.n_test_users >= MIN_TEST_USERS:
            return split
    return split_by_user(interactions, seed=seed)


def by_user(has_times: bool) -> str:
    """Name the method of `split_by_user`."""
    return f"{'newest' if has_times else 'random'} {USER_SHARE:.0%} of each user's items"


def split_by_time(interactions: Interactions, at: datetime | None = None, *, include_seen: bool = False) -> Split:
    """Train on what happened up to an instant, test on what came later.

    Args:
        interactions: with times.
        at: the instant, with a time zone; None takes the one after which 10 % of the rows are. Rows of equal time stay
            together, on the training side.
        include_seen: test on pairs of the training part too.

    Raises:
        InputError: the log has no times, or they are all on one side of `at`.
    """
    times = _times(interactions)
    if at is None:
        cut = int(np.quantile(times, 1 - TIME_SHARE, method="lower"))
        return _split(interactions, times > cut, BY_TIME, include_seen=include_seen)
    later = times > to_microseconds(at)
    if later.all() or not later.any():
        raise InputError(f"all interactions are {'after' if later.all() else 'not after'} {at}; choose another time")
    return _split(interactions, later, f"interactions after {at:%Y-%m-%d %H:%M:%S} UTC", include_seen=include_seen)


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


def split_against(
    users: pa.Array,
    items: pa.Array,
    train: csr_matrix,
    test: Interactions,
    method: str,
    *,
    include_seen: bool = False,
) -> Split:
    """Test on interactions that come from elsewhere. Ids are compared as text: 7 and "7" are the same.

    Args:
        users: ids of the rows of `train`.
        items: ids of its columns.
        train: csr, sorted indices.
        test: the interactions to predict.
        method: in words, for the result.
        include_seen: test on pairs of `train` too.

    Raises:
        InputError: no row of `test` is a target, or `train` knows none of the users or none of the items of `test`.
    """
    if test.targets is not None:
        if not test.targets.any():
            raise InputError(f"nothing to predict in {method}: no row is one of the test events")
        test = test.where(test.targets)
    positions = []
    for kind, known, asked in (("users", users, test.users), ("items", items, test.items)):
        found = pc.index_in(asked.cast(pa.string()), value_set=known.cast(pa.string()))
        if found.null_count == len(found):
            raise InputError(
                f"none of the {kind} to test on (e.g. {asked[0].as_py()!r}) is in the training "
                f"(e.g. {known[0].as_py()!r}); check that both use the same ids"
            )
        positions.append(pc.fill_null(found, -1).to_numpy())
    rows, columns = positions
    return assemble(
        *(train, users, items, (test.user_numbers, rows), (test.item_numbers, columns), method),
        include_seen=include_seen,
    )


def _times(interactions: Interactions) -> npt.NDArray[np.int64]:
    if interactions.timestamps is None:
        raise InputError("the log has no times, so it cannot be split by them; name their column")
    return interactions.timestamps


def _held_out_per_user(
    interactions: Interactions,
    n_held: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]],
    seed: int,
) -> _Mask:
    """Which rows belong to held-out pairs, `n_held` of each user's items; a pair has the time of its first row.

    Only rows that are targets count, but all rows of a held-out pair are held out.
    """
    if interactions.timestamps is None:
        by_age = np.random.default_rng(seed).permutation(len(interactions))
    else:
        by_age = np.argsort(interactions.timestamps, kind="stable")
    pair_of_row = interactions.user_numbers.astype(np.int64) * len(interactions.items) + interactions.item_numbers
    if interactions.targets is not None:
        by_age = by_age[interactions.targets[by_age]]
    pairs, age = np.unique(pair_of_row[by_age], return_index=True)
    pair_users = pairs // len(interactions.items)
    n_items = np.bincount(pair_users, minlength=len(interactions.users))
    # Pairs by user and then newest first, so that a pair's place less its user's start is its rank.
    order = np.lexsort((-age, pair_users))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(n_items) - n_items, n_items)
    held = np.sort(pairs[order[rank < n_held(n_items)[pair_users[order]]]])
    found: _Mask = np.append(held, -1)[np.searchsorted(held, pair_of_row)] == pair_of_row
    return found


def _split(interactions: Interactions, held_back: _Mask, method: str, *, include_seen: bool = False) -> Split:
    # The training part gets numbers of its own, so that a trainer sees it as it would see a whole log.
    training = replace(interactions, timestamps=None, targets=None).where(~held_back)
    train, users, items = training.to_csr(), training.users, training.items
    del training  # its rows are as large as the matrix
    test = held_back if interactions.targets is None else held_back & interactions.targets
    split = assemble(
        train,
        users,
        items,
        (interactions.user_numbers[test], _positions(users, interactions.users)),
        (interactions.item_numbers[test], _positions(items, interactions.items)),
        method,
        include_seen=include_seen,
    )
    return replace(split, held_back=held_back)


def _positions(known: pa.Array, ids: pa.Array) -> _Numbers:
    """The place of each id among the known ones, which are some of them in the same order; -1 for none."""
    among = pc.is_in(ids, value_set=known).to_numpy(zero_copy_only=False)
    return np.where(among, np.cumsum(among) - 1, -1)
