"""Interactions: who did something with what, how much, and when."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.extra import import_extra
from embedding_trainers.source import missing_column, read_table
from embedding_trainers.timestamps import as_datetime, as_microseconds, to_microseconds
from embedding_trainers.vocabulary import Numbers, number_ids
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["Columns", "Interactions", "read_interactions"]

_FINGERPRINT_ROWS = 1 << 20


@dataclass(frozen=True)
class Columns:
    """Names of the columns of an interaction log.

    A `timestamp` of None takes the column ``timestamp`` if there is one; without, the log has no times.
    A `weight` of None weighs each interaction 1.
    """

    user: str = "user_id"
    item: str = "item_id"
    timestamp: str | None = None
    weight: str | None = None


@dataclass(frozen=True)
class Interactions:
    """An interaction log of n rows; a pair may occur in several of them.

    Attributes:
        users: the distinct user ids, ascending, string or int64, shape (n_users,).
        items: the distinct item ids, ascending, string or int64, shape (n_items,).
        user_numbers: int32, shape (n,); row r is by ``users[user_numbers[r]]``.
        item_numbers: int32, shape (n,); row r is about ``items[item_numbers[r]]``.
        weights: float32, shape (n,), positive; or None, which is 1 everywhere.
        timestamps: int64 microseconds since 1970 UTC, shape (n,); or None.
    """

    users: pa.Array
    items: pa.Array
    user_numbers: Numbers
    item_numbers: Numbers
    weights: npt.NDArray[np.float32] | None = None
    timestamps: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.user_numbers)

    @property
    def as_of(self) -> datetime | None:
        """Time of the newest interaction, in UTC; None for a log without times."""
        return None if self.timestamps is None else as_datetime(int(self.timestamps.max()))

    def to_csr(self) -> csr_matrix:
        """Sum up the weights of each pair: float32, shape (n_users, n_items), sorted indices.

        Raises:
            MissingExtraError: scipy is not installed.
        """
        weights = np.ones(len(self), dtype=np.float32) if self.weights is None else self.weights
        matrix = import_extra("scipy.sparse").csr_matrix(
            (weights, (self.user_numbers, self.item_numbers)), shape=(len(self.users), len(self.items))
        )
        matrix.sort_indices()
        return matrix

    def fingerprint(self) -> str:
        """SHA-256, in hex, that is equal for equal rows in whatever order.

        Each row is mixed to 128 bits and the rows are summed, as addition forgets the order; sorting 20
        million rows would take longer than reading them. It tells data sets apart, it does not defend
        against someone who makes two of them collide.
        """
        digest = hashlib.sha256(f"{len(self)} {self.users.type} {self.items.type}".encode())
        for ids in (self.users, self.items):
            for part in _id_bytes(ids):
                digest.update(part)
        sums = [0, 0]
        for start in range(0, len(self), _FINGERPRINT_ROWS):
            block = slice(start, start + _FINGERPRINT_ROWS)
            row = (self.user_numbers[block].astype(np.uint64) << np.uint64(32)) | self.item_numbers[block].astype(
                np.uint64
            )
            row = _mix(row)
            if self.weights is not None:
                row = _mix(row ^ self.weights[block].view(np.uint32))
            if self.timestamps is not None:
                row = _mix(row ^ self.timestamps[block].view(np.uint64))
            sums[0] += int(row.sum())
            sums[1] += int(_mix(row).sum())
        parts = (self.weights is not None, self.timestamps is not None, *(s % 2**64 for s in sums))
        digest.update(repr(parts).encode())
        return digest.hexdigest()


def read_interactions(path: Path, columns: Columns | None = None, *, until: datetime | None = None) -> Interactions:
    """Read an interaction log from Parquet, CSV, JSON lines, or a folder of Parquet.

    Rows of weight 0 are no interactions and are left out; ids that occur in no other row go with them.

    Args:
        path: the file or folder.
        columns: what the columns are called.
        until: leave out what happened after this instant (with a time zone).

    Raises:
        InputError: the file cannot be read, lacks a column, holds a null or empty id, a null time, or a
            weight that is null, negative or not finite; or no row remains.
    """
    columns = columns or Columns()
    optional = "timestamp" if columns.timestamp is None else None
    wanted = [c for c in (columns.user, columns.item, columns.timestamp, columns.weight) if c is not None]

    def select(names: list[str]) -> list[str]:
        for name in wanted:
            if name not in names:
                raise missing_column(path, name, names)
        # A column may serve twice, but is read once.
        return list(dict.fromkeys([*wanted, *(name for name in names if name == optional)]))

    table = read_table(path, select=select, ids=(columns.user, columns.item))

    weights = timestamps = None
    keep = np.ones(len(table), dtype=bool)
    if columns.weight is not None:
        weights = _weights(table[columns.weight], f"{path}: column {columns.weight!r}")
        keep &= weights > 0
        if not keep.any():
            raise InputError(f"{path}: every row has weight 0 in column {columns.weight!r}")
    timestamp = columns.timestamp or optional
    if timestamp in table.column_names:
        timestamps = to_microseconds(table[timestamp], f"{path}: column {timestamp!r}")
    if until is not None:
        if timestamps is None:
            raise InputError(f"{path} has no column 'timestamp', so it cannot be cut off at {until}; name the column")
        keep &= timestamps <= as_microseconds(until)
        if not keep.any():
            raise InputError(
                f"{path} has no interactions until {until}; the first is at {as_datetime(int(timestamps.min()))}"
            )
    if not keep.all():
        table = table.filter(pa.array(keep))
        weights = None if weights is None else weights[keep]
        timestamps = None if timestamps is None else timestamps[keep]

    users, user_numbers = number_ids(table[columns.user], f"{path}: column {columns.user!r}")
    items, item_numbers = number_ids(table[columns.item], f"{path}: column {columns.item!r}")
    return Interactions(users, items, user_numbers, item_numbers, weights, timestamps)


def _weights(column: pa.ChunkedArray, what: str) -> npt.NDArray[np.float32]:
    dtype = column.type
    if not (pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_decimal(dtype)):
        raise InputError(f"{what}: weights must be numbers, but the type is {dtype}")
    # Arrow turns nulls of a number column into NaN here.
    with np.errstate(over="ignore"):
        weights: npt.NDArray[np.float32] = column.cast(pa.float64(), safe=False).to_numpy().astype(np.float32)
    if bad := int((~np.isfinite(weights)).sum()):
        raise InputError(f"{what}: {bad:,} of {len(weights):,} weights are missing, NaN or infinite")
    if negative := int((weights < 0).sum()):
        raise InputError(f"{what}: {negative:,} of {len(weights):,} weights are negative")
    return weights


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread every input bit over all 64 output bits: one step of SplitMix64 (Steele et al., OOPSLA 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _id_bytes(ids: pa.Array) -> list[Any]:
    if ids.type == pa.int64():
        return [ids.to_numpy().tobytes()]
    lengths = pc.binary_length(ids).to_numpy().astype(np.int32)
    start, end = (int(np.frombuffer(ids.buffers()[1], np.int32)[ids.offset + i]) for i in (0, len(ids)))
    return [lengths.tobytes(), ids.buffers()[2][start:end]]
