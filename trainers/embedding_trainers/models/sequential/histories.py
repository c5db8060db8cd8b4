"""What each user had, in order: distinct items, each at its latest time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from embedding_trainers.trainer import TrainingLog

__all__ = ["Histories"]

_Numbers = npt.NDArray[np.int64]


class Histories:
    """Lists of items, the newest last.

    Args:
        log: by time; in its order without times.
        n_users: rows of the matrix.
    """

    def __init__(self, log: TrainingLog, n_users: int) -> None:
        log = log.by_time()
        n_items = int(log.item_columns.max(initial=-1)) + 1
        # Of a pair's interactions the last: the first from behind.
        pairs = log.user_rows.astype(np.int64) * n_items + log.item_columns
        _, from_behind = np.unique(pairs[::-1], return_index=True)
        latest = np.sort(len(pairs) - 1 - from_behind)
        latest = latest[np.argsort(log.user_rows[latest], kind="stable")]
        self._items = log.item_columns[latest].astype(np.int64)
        self._ends = np.cumsum(np.bincount(log.user_rows[latest], minlength=n_users))

    def newest(self, length: int, most: int) -> Iterator[tuple[_Numbers, _Numbers]]:
        """Users, some at a time, with their newest items.

        Args:
            length: how many items of a user, at most.
            most: how many users at a time.

        Yields:
            Rows of users, shape (n,); and their items, shape (n, longest), the newest last, with -1 before the first of
            a shorter history.
        """
        lengths = np.minimum(np.diff(self._ends, prepend=0), length)
        # Those of one length together, so that little is filled.
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), most):
            rows = order[start : start + most]
            yield rows, self._padded(self._ends[rows], lengths[rows])

    def pieces(self, length: int, size: int, rng: np.random.Generator) -> Iterator[_Numbers]:
        """All histories in pieces, in random order: each item but a user's first is one that follows others once.

        Args:
            length: of a piece, at most, without the item that follows its last.
            size: how many pieces at a time.

        Yields:
            Items, shape (n, longest), as of `newest`; of pieces of two items or more.
        """
        # Neighbouring pieces share an item, which ends the one and begins the other.
        lengths = np.diff(self._ends, prepend=0)
        counts = -(-np.maximum(lengths - 1, 0) // length)
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        ends = np.repeat(self._ends, counts) - number * length
        left = np.repeat(lengths, counts) - number * length
        order = rng.permutation(len(ends))
        for start in range(0, len(order), size):
            some = order[start : start + size]
            yield self._padded(ends[some], np.minimum(left[some], length + 1))

    def _padded(self, ends: _Numbers, lengths: _Numbers) -> _Numbers:
        places = ends[:, None] + np.arange(-lengths.max(initial=1), 0)
        is_item = places >= (ends - lengths)[:, None]
        return np.where(is_item, self._items[np.where(is_item, places, 0)], -1)
