"""Interactions: who did something with what, how much, and when."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.extra import import_extra
from embedding_trainers.preparation import Preparation, core, decay, event_weights
from embedding_trainers.source import Source, missing_column, read_pieces, source_name
from embedding_trainers.timestamps import as_datetime, as_microseconds, to_microseconds
from embedding_trainers.vocabulary import IdNumbering, Numbers
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["Columns", "Interactions", "read_interactions"]

_TIMESTAMP = "timestamp"
_FINGERPRINT_ROWS = 1 << 20


@dataclass(frozen=True)
class Columns:
    """Names of the columns of an interaction log.

    A `timestamp` of None takes the column ``timestamp`` if there is one; without, the log has no times.
    A `weight` of None weighs each interaction 1. An `event` column needs `Preparation.event_weights`.
    """

    user: str = "user_id"
    item: str = "item_id"
    timestamp: str | None = None
    weight: str | None = None
    event: str | None = None


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

    def where(self, keep: npt.NDArray[np.bool_]) -> Interactions:
        """These rows only, and the ids that occur in them."""
        if keep.all():
            return self
        users, user_numbers = _used(self.users, self.user_numbers[keep])
        items, item_numbers = _used(self.items, self.item_numbers[keep])
        weights = None if self.weights is None else self.weights[keep]
        timestamps = None if self.timestamps is None else self.timestamps[keep]
        return Interactions(users, items, user_numbers, item_numbers, weights, timestamps)

    def to_csr(self) -> csr_matrix:
        """Sum up the weights of each pair: float32, shape (n_users, n_items), sorted indices.

        Raises:
            MissingExtraError: scipy is not installed.
        """
        sparse = import_extra("scipy.sparse")

        def sum_up(rows: slice) -> Any:
            users, items = self.user_numbers[rows], self.item_numbers[rows]
            weights = np.ones(len(users), dtype=np.float32) if self.weights is None else self.weights[rows]
            return sparse.csr_matrix((weights, (users, items)), shape=(len(self.users), len(self.items)))

        middle = len(self) // 2
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(sum_up, (slice(0, middle), slice(middle, None)))
        matrix: csr_matrix = first + second
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


def read_interactions(
    source: Source, columns: Columns | None = None, preparation: Preparation | None = None
) -> Interactions:
    """Read an interaction log and prepare it for training.

    Rows of weight 0 are no interactions and are left out; ids that occur in no other row go with them.

    Args:
        source: a Parquet, CSV or JSON lines file, a folder of Parquet, or a table in memory that speaks Arrow's
            C stream interface (Arrow, pandas, polars, DuckDB).
        columns: what the columns are called.
        preparation: which rows count, and how much; all of them and the same by default.

    Raises:
        InputError: the source cannot be read, lacks a column, holds a null or empty id, a null time, an event type
            without a weight, or a weight that is null, negative or not finite; or no row remains.
    """
    columns, preparation = columns or Columns(), preparation or Preparation()
    if preparation.event_weights and columns.event is None:
        raise InputError("there are weights of event types, but no event column is named (--event-column)")
    name = source_name(source)
    numberings, rest = _read(source, columns, name)
    (users, user_numbers), (items, item_numbers), *events = numberings

    weights = timestamps = None
    if columns.weight is not None:
        weights = _weights(rest[columns.weight], f"{name}: column {columns.weight!r}")
    if events:
        of_event = event_weights(*events[0], preparation.event_weights, f"{name}: column {columns.event!r}")
        weights = of_event if weights is None else weights * of_event
    timestamp = columns.timestamp or _TIMESTAMP
    if timestamp in rest.column_names:
        timestamps = to_microseconds(rest[timestamp], f"{name}: column {timestamp!r}")
    elif setting := preparation.needs_times:
        raise InputError(f"{name} has no column {timestamp!r}, which {setting} needs; name the column")
    del rest
    pa.default_memory_pool().release_unused()

    log = Interactions(users, items, user_numbers, item_numbers, weights, timestamps)
    return _prepare(log, preparation, name)


def _read(source: Source, columns: Columns, name: str) -> tuple[list[tuple[pa.Array, Numbers]], pa.Table]:
    """Vocabulary and numbers of users, items and, if there are any, event types; and the other columns."""
    numbered = {columns.user: "id", columns.item: "id"} | ({columns.event: "event type"} if columns.event else {})
    others = [column for column in (columns.timestamp, columns.weight) if column is not None]
    optional = _TIMESTAMP if columns.timestamp is None else None

    def select(names: list[str]) -> list[str]:
        for column in (*numbered, *others):
            if column not in names:
                raise missing_column(source, column, names)
        if optional in names:
            others.append(optional)
        # A column may serve twice, but is read once.
        return list(dict.fromkeys([*numbered, *others]))

    numberings = {c: IdNumbering(f"{name}: column {c!r}", noun) for c, noun in numbered.items()}
    rest: list[pa.Table] = []
    with ExitStack() as stack:
        # A thread for each column, while this one reads the next piece.
        workers = {c: stack.enter_context(ThreadPoolExecutor(1)) for c in numberings}
        running: list[Future[None]] = []
        for piece in read_pieces(source, select=select, ids=numbered):
            before = running
            running = [workers[c].submit(n.add, piece[c]) for c, n in numberings.items()]
            rest.append(piece.select(list(dict.fromkeys(others))))
            del piece
            for work in before:
                work.result()
            # What earlier pieces took; Arrow's allocator would keep it.
            pa.default_memory_pool().release_unused()
        for work in running:
            work.result()
        ends = {c: workers[c].submit(n.finish) for c, n in numberings.items()}
        finished = {c: end.result() for c, end in ends.items()}
    return [finished[c] for c in (columns.user, columns.item, *filter(None, [columns.event]))], pa.concat_tables(rest)


def _prepare(log: Interactions, preparation: Preparation, name: str) -> Interactions:
    if log.weights is not None:
        log = log.where(log.weights > 0)
        if not len(log):
            raise InputError(f"{name}: every row has weight 0")
    since, until = preparation.since, preparation.until
    if log.timestamps is not None and (since or until):
        times = log.timestamps
        keep = np.ones(len(log), dtype=bool)
        if since:
            keep &= times >= as_microseconds(since)
        if until:
            keep &= times <= as_microseconds(until)
        log = log.where(keep)
        if not len(log):
            window = " ".join(f"{word} {instant}" for word, instant in (("since", since), ("until", until)) if instant)
            raise InputError(
                f"{name} has no interactions {window}; the first is at {as_datetime(int(times.min()))}, "
                f"the last at {as_datetime(int(times.max()))}"
            )
    least = preparation.min_user_interactions, preparation.min_item_interactions
    if max(least) > 1:
        log = log.where(core(log.user_numbers, log.item_numbers, *least))
        if not len(log):
            raise InputError(
                f"{name}: no interactions are left when each user has at least {least[0]} and each item at least "
                f"{least[1]}; ask for fewer"
            )
    if preparation.half_life is not None and log.timestamps is not None:
        weights = decay(log.timestamps, preparation.half_life)
        if log.weights is not None:
            # Not 0 even for what is very old: that would be no interaction.
            weights = np.maximum(weights * log.weights, np.finfo(np.float32).tiny)
        log = replace(log, weights=weights)
    return log


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


def _used(ids: pa.Array, numbers: Numbers) -> tuple[pa.Array, Numbers]:
    used = np.bincount(numbers, minlength=len(ids)) > 0
    return ids.filter(pa.array(used)), (np.cumsum(used, dtype=np.int32) - np.int32(1))[numbers]


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
