"""A training part of a log, and the pairs that can be predicted from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedding_trainers.extra import import_extra
from embedding_trainers.interactions.log import Interactions
from embedding_trainers.trainer import TrainingLog
from feast_embeddings.artifact import Entity

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["LeftOut", "Split", "assemble"]

_BLOCK_ENTRIES = 1 << 22

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
        test: csr float32 of the same shape, sorted indices; pairs not in `train`, but for `include_seen`. A row
            without an entry is no test user.
        users: ids of the rows, string or int64.
        items: ids of the columns, string or int64.
        left_out: what was held back and is in neither.
        method: how it was split, in words.
        held_back: which rows of the log are not in the training part; None if the test came from elsewhere.
        include_seen: repeats count: pairs of `train` may be in `test`, and rankings have them.
        log: what `train` sums up, for trainers that read it; None unless `with_log` added it.
    """

    train: csr_matrix
    test: csr_matrix
    users: pa.Array
    items: pa.Array
    left_out: LeftOut
    method: str
    held_back: _Mask | None = None
    include_seen: bool = False
    log: TrainingLog | None = None

    @property
    def masked(self) -> csr_matrix:
        """The pairs that rankings leave out, of the shape of `train`."""
        return type(self.train)(self.train.shape, dtype=np.float32) if self.include_seen else self.train

    @property
    def n_test_users(self) -> int:
        """How many users have a test pair."""
        return int((np.diff(self.test.indptr) > 0).sum())

    def with_log(self, log: Interactions, attributes: Mapping[Entity, pa.Table | None] | None = None) -> Split:
        """The same with the interactions of the training part, and none of those that are held back.

        Args:
            log: what was split; what is tested on may come from elsewhere.
            attributes: of its users and items, in the order of its ids.
        """
        part = log if self.held_back is None else log.where(~self.held_back)
        return replace(self, log=part.training_log(log.attributes_of(part, attributes)))


def assemble(
    train: csr_matrix,
    users: pa.Array,
    items: pa.Array,
    test_users: tuple[_Numbers, _Numbers],
    test_items: tuple[_Numbers, _Numbers],
    method: str,
    *,
    include_seen: bool = False,
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
    seen = np.zeros(len(rows), dtype=bool) if include_seen else _is_entry(train, rows, columns)
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
    return Split(train, test, users, items, left_out, method, include_seen=include_seen)


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
