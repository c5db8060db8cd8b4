"""Ids and numbers: an id is the caller's name of a user or item, a number is its row in the factors."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.interactions.growing import GrowingArray
from embedding_trainers.interactions.uuids import pack_uuids, unpack_uuids

__all__ = ["IdNumbering", "Numbers", "count_numbers", "exact_cast"]

Numbers = npt.NDArray[np.int32]

# Ids are numbered this many at a time: they are hashed together with the known ones.
_PIECE_ROWS = 3 << 21
# Ids of pieces wait until there are this many times as many as are known, so that each is hashed about twice.
_WAITING = 2
_MERGING = threading.Lock()


def count_numbers(numbers: Numbers, n: int) -> npt.NDArray[np.int64]:
    """How often each number below `n` occurs, shape (n,).

    A piece at a time: NumPy makes all numbers 64 bits wide before it counts them.
    """
    counts = np.zeros(n, dtype=np.int64)
    for start in range(0, len(numbers), _PIECE_ROWS):
        counts += np.bincount(numbers[start : start + _PIECE_ROWS], minlength=n)
    return counts


class IdNumbering:
    """Numbers the distinct ids of a column that comes in parts, in sorted order (text by its UTF-8 bytes).

    Parts are held until they make a piece, and of that only the distinct ids are kept. Rows are encoded together with
    the known ids while those are fewer, which hashes no row more than twice; else by themselves, and their distinct
    ids are merged with the known ones once enough of them wait.
    """

    def __init__(self) -> None:
        self._held: list[pa.Array] = []
        self._n_held = 0
        self._known: pa.Array | None = None
        self._waiting: list[tuple[pa.Array, Numbers]] = []
        self._n_waiting = 0
        self._numbers = GrowingArray(np.int32)
        # Whether all ids so far are UUIDs, which are held as such.
        self._packed = True

    def add(self, ids: pa.Array) -> None:
        """Take the next rows: string or int64, without nulls."""
        if not len(ids):
            return
        if self._packed:
            packed = pack_uuids(ids)
            if packed is None:
                self._unpack()
            else:
                ids = packed
        self._held.append(ids)
        self._n_held += len(ids)
        if self._n_held >= _PIECE_ROWS:
            self._encode()

    def _unpack(self) -> None:
        self._packed = False
        self._held = [unpack_uuids(ids) for ids in self._held]
        self._known = None if self._known is None else unpack_uuids(self._known)
        self._waiting = [(unpack_uuids(distinct), numbers) for distinct, numbers in self._waiting]

    def _encode(self) -> None:
        """Number the ids that are held."""
        together = self._known is not None and not self._waiting and len(self._known) <= self._n_held
        known = [self._known] if together else []
        # One table of ids goes through all chunks, so the last dictionary covers all of them.
        encoded = pa.chunked_array([*known, *self._held]).dictionary_encode()
        self._held, self._n_held = [], 0
        numbers = [chunk.indices.to_numpy() for chunk in encoded.chunks[len(known) :]]
        distinct = encoded.chunks[-1].dictionary
        if self._known is None or together:
            self._known = distinct
            for part in numbers:
                self._numbers.append(part)
            return
        self._waiting.append((distinct, np.concatenate(numbers)))
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
        if self._held:
            self._encode()
        assert self._known is not None  # noqa: S101 (a source has rows)
        known, self._known = self._merged(self._known), None
        if whole and not self._packed and (numbers_of := exact_cast(known, pa.int64())) is not None:
            known = numbers_of
        order = pc.sort_indices(known)
        vocabulary = known.take(order)
        ranks = np.empty(len(vocabulary), dtype=np.int32)
        ranks[order.to_numpy()] = np.arange(len(vocabulary), dtype=np.int32)
        numbers = self._numbers.joined()
        for start in range(0, len(numbers), _PIECE_ROWS):
            part = slice(start, start + _PIECE_ROWS)
            numbers[part] = ranks[numbers[part]]
        return unpack_uuids(vocabulary) if self._packed else vocabulary, numbers

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
