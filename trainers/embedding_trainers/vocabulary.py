"""Ids and numbers: an id is what the caller calls a user or item, a number is its row in the factors."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["IdNumbering", "Numbers", "exact_cast"]

Numbers = npt.NDArray[np.int32]

# Ids of pieces wait until there are this many times as many as are known, so that each is hashed about twice.
_WAITING = 2
_MERGING = threading.Lock()


class IdNumbering:
    """Numbers the distinct ids of a column that comes in pieces, in sorted order (text by its UTF-8 bytes).

    Of a piece's text only the distinct ids are kept. Rows are encoded together with the known ids while those are
    fewer, which hashes no row more than twice; else by themselves, and their distinct ids are merged with the known
    ones once enough of them wait.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._known: pa.Array | None = None
        self._waiting: list[tuple[pa.Array, Numbers]] = []
        self._n_waiting = 0
        self._numbers: list[Numbers] = []

    def add(self, *ids: pa.Array) -> None:
        """Take the next rows: string or int64, without nulls. Few calls with many rows cost less than many with few."""
        rows = sum(map(len, ids))
        self._rows += rows
        if not rows:
            return
        together = self._known is not None and not self._waiting and len(self._known) <= rows
        known = [self._known] if together else []
        # One table of ids goes through all chunks, so the last dictionary is that of all of them.
        encoded = pa.chunked_array([*known, *ids]).dictionary_encode()
        numbers = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks[len(known) :]])
        distinct = encoded.chunks[-1].dictionary
        if self._known is None or together:
            self._known = distinct
            self._numbers.append(numbers)
            return
        self._waiting.append((distinct, numbers))
        self._n_waiting += len(distinct)
        if self._n_waiting > _WAITING * len(self._known):
            self._known = self._merged(self._known)

    def finish(self, *, whole: bool = False) -> tuple[pa.Array, Numbers]:
        """End the column.

        Args:
            whole: make text whole numbers, if all of them fit 64 bits.

        Returns:
            The vocabulary, distinct and ascending, string or int64, shape (n,); and for each row the number of
            its id, so that ``vocabulary[numbers]`` is the column again.
        """
        assert self._known is not None  # noqa: S101 (a source has rows)
        known, self._known = self._merged(self._known), None
        if whole and (numbers_of := exact_cast(known, pa.int64())) is not None:
            known = numbers_of
        order = pc.sort_indices(known)
        vocabulary = known.take(order)
        ranks = np.empty(len(vocabulary), dtype=np.int32)
        ranks[order.to_numpy()] = np.arange(len(vocabulary), dtype=np.int32)
        numbers = np.empty(self._rows, dtype=np.int32)
        end = self._rows
        while self._numbers:  # Freed one by one: together they are as large as the result.
            part = self._numbers.pop()
            numbers[end - len(part) : end] = ranks[part]
            end -= len(part)
        return vocabulary, numbers

    def _merged(self, known: pa.Array) -> pa.Array:
        """The known ids and those that wait; the numbers of the known ones stay, as encoding keeps the order."""
        if not self._waiting:
            return known
        # One column at a time: this is when most memory is used.
        with _MERGING:
            merged = pa.chunked_array([known, *(distinct for distinct, _ in self._waiting)]).dictionary_encode()
        for places, (_, part) in zip(merged.chunks[1:], self._waiting, strict=True):
            self._numbers.append(places.indices.to_numpy()[part])
        self._waiting, self._n_waiting = [], 0
        return merged.chunks[-1].dictionary


def exact_cast(values: pa.Array | pa.ChunkedArray, dtype: pa.DataType) -> pa.Array | pa.ChunkedArray | None:
    """The values in another type, if each is written there as it is here (007 is not 7); or None."""
    try:
        cast = values.cast(dtype)
    except pa.ArrowInvalid:
        return None
    return cast if cast.cast(values.type).equals(values) else None
