"""What users have seen, as the lists of an artifact: items, and in their order weights and times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.artifact.seen import NEXT_TO_SEEN, SEEN_TIMES, SEEN_WEIGHTS

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["SeenItems", "latest_times", "newest_last"]

_CHUNK_BYTES = 1 << 30
_LATEST_ROWS = 1 << 20


class SeenItems:
    """The lists of some users at a time, so that they need not all be in memory.

    The items of a user are in the order of their ids; with times the newest is last, and items of one time are in the
    order of their ids.

    Args:
        user_items: weights of the pairs, csr with sorted indices, shape (n_users, n_items).
        items: ids of the columns.
        latest: int64 microseconds of the pairs in the order of their entries, shape (nnz,); or None.
        newest: how many items of a user to keep; None keeps all. It needs times.
    """

    def __init__(
        self, user_items: csr_matrix, items: pa.Array, latest: npt.NDArray[np.int64] | None, newest: int | None = None
    ) -> None:
        self._pairs, self._ids, self._latest, self._newest = user_items, items, latest, newest
        self._longest = 8 if items.type == pa.int64() else max(1, pc.max(pc.binary_length(items)).as_py())
        # Of the users that were asked for last: three columns have the same order.
        self._last: tuple[slice, list[_Chunk]] = slice(0, 0), []

    def items(self, users: slice) -> pa.ChunkedArray:
        """The ids of the items."""
        return self._lists(
            users, pa.list_(self._ids.type), lambda places: self._ids.take(pa.array(self._pairs.indices[places]))
        )

    def weights(self, users: slice) -> pa.ChunkedArray:
        """The weight of each."""
        return self._lists(users, NEXT_TO_SEEN[SEEN_WEIGHTS], lambda places: self._pairs.data[places])

    def times(self, users: slice) -> pa.ChunkedArray:
        """The time of the newest interaction with each."""
        assert self._latest is not None  # noqa: S101 (else the column is not there)
        latest = self._latest
        return self._lists(users, NEXT_TO_SEEN[SEEN_TIMES], lambda places: latest[places])

    def _lists(self, users: slice, dtype: pa.DataType, values: Any) -> pa.ChunkedArray:
        if self._last[0] != users:
            self._last = users, self._chunks(users)
        return pa.chunked_array(
            [
                pa.ListArray.from_arrays(pa.array(offsets), pa.array(values(places)).cast(dtype.value_type))
                for offsets, places in self._last[1]
            ],
            dtype,
        )

    def _chunks(self, users: slice) -> list[_Chunk]:
        """As many as it takes for Arrow's 32-bit offsets not to overflow."""
        most, ends = max(1, _CHUNK_BYTES // self._longest), self._pairs.indptr
        chunks, start = [], users.start
        while start < users.stop:
            end = max(start + 1, int(np.searchsorted(ends, int(ends[start]) + most, side="right")) - 1)
            end = min(end, users.stop)
            chunks.append(self._chunk(ends[start : end + 1]))
            start = end
        return chunks

    def _chunk(self, ends: npt.NDArray[np.integer]) -> _Chunk:
        first, last = int(ends[0]), int(ends[-1])
        offsets = (ends - ends[0]).astype(np.int32)
        if self._latest is None:
            return _Chunk(offsets, slice(first, last))
        offsets, places = newest_last(offsets, self._latest[first:last], self._newest)
        return _Chunk(offsets, places + first)


class _Chunk(NamedTuple):
    """Lists of some users: the int32 offsets, and the places of their values among all pairs."""

    offsets: npt.NDArray[np.int32]
    places: slice | npt.NDArray[np.int64]


def latest_times(
    pairs: csr_matrix,
    rows: npt.NDArray[np.integer],
    columns: npt.NDArray[np.integer],
    times: npt.NDArray[np.int64] | None,
) -> npt.NDArray[np.int64] | None:
    """The time of the newest interaction of each pair; None without times.

    Args:
        pairs: with sorted indices.
        rows, columns: the pair of each interaction, shape (n,).
        times: of each interaction, shape (n,).

    Returns:
        In the order of the entries of `pairs`, shape (pairs.nnz,).
    """
    if times is None:
        return None
    # The place of each entry as its value: scipy then finds the places of interactions, some at a time.
    places = np.arange(pairs.nnz, dtype=np.int32 if pairs.nnz < 1 << 31 else np.int64)
    of_pair = type(pairs)((places, pairs.indices, pairs.indptr), shape=pairs.shape, copy=False)
    latest = np.full(pairs.nnz, np.iinfo(np.int64).min)
    for start in range(0, len(rows), _LATEST_ROWS):
        some = slice(start, start + _LATEST_ROWS)
        np.maximum.at(latest, np.asarray(of_pair[rows[some], columns[some]]).ravel(), times[some])
    return latest


def newest_last(
    offsets: npt.NDArray[np.int32], times: npt.NDArray[np.int64], newest: int | None = None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Order each list by time, keep its newest values, and return its offsets and the places of its values.

    Args:
        offsets: from 0, shape (n_lists + 1,).
        times: of all values, shape (n,). Values of one time keep their order.
        newest: how many of each list to keep; None keeps all.
    """
    lengths = np.diff(offsets)
    rows = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    order = np.lexsort((times, rows))
    if newest is None or (lengths <= newest).all():
        return offsets, order
    left = np.repeat(offsets[1:], lengths) - np.arange(len(rows), dtype=np.int32)  # from the end, which is 1
    kept = np.minimum(lengths, newest)
    return np.append(0, np.cumsum(kept)).astype(np.int32), order[left <= newest]
