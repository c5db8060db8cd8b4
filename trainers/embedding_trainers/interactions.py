"""Interactions: who did something with what, how much, and when."""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.extra import import_extra
from embedding_trainers.growing import GrowingArray
from embedding_trainers.preparation import Preparation, core, decay, event_weights, first_of_each
from embedding_trainers.vocabulary import IdNumbering, Numbers
from feast_embeddings.errors import InputError
from feast_embeddings.reading import IdType, OnBadRows, Rules, Scan, Source, Wanted, source_name
from feast_embeddings.times import from_microseconds, future_starts, to_microseconds

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = [
    "Columns",
    "Interactions",
    "LogReport",
    "Reading",
    "read_interactions",
    "read_log",
    "read_raw",
]

_TIMESTAMP = "timestamp"
_FINGERPRINT_ROWS = 1 << 20
# So many batches of rows may wait until their ids are numbered.
_WAITING_BATCHES = 16


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
        return None if self.timestamps is None else from_microseconds(int(self.timestamps.max()))

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


@dataclass(frozen=True)
class Reading:
    """How the values of a log are understood; see docs/input.md.

    Attributes:
        user_ids, item_ids: make ids ``text`` or ``int``; None takes text as text and whole numbers as such.
        time_format: strptime's pattern for times; None takes ISO 8601 and numbers since 1970.
        allow_future: keep rows that are more than a day ahead of the clock.
        on_bad_rows: refuse a log with rows that cannot be used, or leave them out and count them.
    """

    user_ids: IdType | None = None
    item_ids: IdType | None = None
    time_format: str | None = None
    allow_future: bool = False
    on_bad_rows: OnBadRows = "error"


@dataclass
class LogReport:
    """What became of the rows of a log.

    Attributes:
        rows: how many there were.
        bad: rows that cannot be used, by what is wrong with them.
        n_bad: how many these are; a row may be bad in two ways.
        left_out: rows that were not to be used, by why.
    """

    rows: int = 0
    n_bad: int = 0
    bad: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, why: str, rows: int) -> None:
        """Count rows that are left out."""
        if rows:
            self.left_out[why] = self.left_out.get(why, 0) + rows

    def lines(self) -> list[str]:
        """What was dropped and what left out, a line each to read; none where all rows count."""
        lines = []
        if self.n_bad:
            kinds = "; ".join(f"{count:,} {kind}" for kind, count in self.bad.items())
            lines.append(f"{self.n_bad:,} of {self.rows:,} rows cannot be used and were dropped: {kinds}")
        if self.left_out:
            reasons = ", ".join(f"{count:,} {why}" for why, count in self.left_out.items())
            lines.append(f"of {self.rows:,} rows left out: {reasons}")
        return lines


def read_interactions(
    source: Source,
    columns: Columns | None = None,
    preparation: Preparation | None = None,
    reading: Reading | None = None,
) -> Interactions:
    """Read an interaction log and prepare it for training; see `read_log`."""
    return read_log(source, columns, preparation, reading)[0]


def read_log(
    source: Source,
    columns: Columns | None = None,
    preparation: Preparation | None = None,
    reading: Reading | None = None,
) -> tuple[Interactions, LogReport]:
    """Read an interaction log and prepare it for training.

    Rows of weight 0 are no interactions and are left out; ids that occur in no other row go with them.

    Args:
        source: a file, a folder or a glob of Parquet, CSV or JSON, or a table in memory that speaks Arrow's C stream
            interface (Arrow, pandas, polars, DuckDB); see docs/input.md.
        columns: what the columns are called.
        preparation: which rows count, and how much; all of them and the same by default.
        reading: how values are understood, and what is done about bad rows.

    Returns:
        The interactions, and what became of the rows.

    Raises:
        InputError: the source cannot be read, lacks a column, or has rows that cannot be used: a null or empty id,
            something that is not a time, an event type without a weight, or a weight that is null, negative or not
            finite; or no row remains.
    """
    columns, preparation, reading = columns or Columns(), preparation or Preparation(), reading or Reading()
    if preparation.event_weights and columns.event is None:
        raise InputError("there are weights of event types, but no event column is named (--event-column)")
    log, events, report = read_raw(source, columns, reading, preparation)
    name = source_name(source)
    if events is not None:
        of_event = event_weights(*events, preparation.event_weights, f"{name}: column {columns.event!r}")
        log = replace(log, weights=of_event if log.weights is None else log.weights * of_event)
    return _prepare(log, preparation, name, report), report


def read_raw(
    source: Source, columns: Columns, reading: Reading, preparation: Preparation
) -> tuple[Interactions, tuple[pa.Array, Numbers] | None, LogReport]:
    """The good rows of a log as they are, before anything is left out.

    Returns:
        The rows; the event types, distinct and ascending, and the number of each row's, if a column of events is
        named; and what became of the rows.

    Raises:
        InputError: see `read_log`.
    """
    timestamp = columns.timestamp or _TIMESTAMP
    wanted = [
        Wanted(columns.user, "id", id_type=reading.user_ids),
        Wanted(columns.item, "id", id_type=reading.item_ids),
        Wanted(timestamp, "time", required=columns.timestamp is not None),
    ]
    if columns.weight is not None:
        wanted.append(Wanted(columns.weight, "number"))
    if columns.event is not None:
        wanted.append(Wanted(columns.event, "text", known=tuple(preparation.event_weights)))
    if twice := next((c.name for c in wanted if [w.name for w in wanted].count(c.name) > 1), None):
        raise InputError(f"the column {twice!r} is named for two purposes; name one for each")
    latest = None if reading.allow_future else to_microseconds(future_starts())
    with Scan(source, wanted, Rules(reading.time_format, latest)) as scan:
        if timestamp not in scan.columns and (setting := preparation.needs_times):
            raise InputError(f"{scan.name} has no column {timestamp!r}, which {setting} needs; name the column")
        numberings, rest = _read(scan, columns)
    faults = scan.faults
    if not faults.rows:
        raise InputError(f"{scan.name} has no rows")
    faults.settle(scan.name, reading.on_bad_rows)
    (users, user_numbers), (items, item_numbers), *events = numberings
    weights = rest.get(columns.weight or "")
    log = Interactions(users, items, user_numbers, item_numbers, weights, rest.get(timestamp))
    return log, events[0] if events else None, LogReport(faults.rows, faults.bad, dict(faults.counts))


def _read(scan: Scan, columns: Columns) -> tuple[list[tuple[pa.Array, Numbers]], dict[str, npt.NDArray[Any]]]:
    """Vocabulary and numbers of users, items and, if there are any, event types; and the other columns."""
    numbered = [name for name in (columns.user, columns.item, columns.event) if name is not None]
    kept = {
        name: GrowingArray(np.float32 if name == columns.weight else np.int64)
        for name in scan.columns
        if name not in numbered
    }
    with ExitStack() as stack:
        # A thread for each column of ids: Arrow lets others run while it hashes.
        pools = {name: stack.enter_context(ThreadPoolExecutor(1)) for name in numbered}
        numberings = {name: IdNumbering() for name in numbered}
        pending: deque[Future[None]] = deque()
        for batch in scan:
            for name, values in kept.items():
                values.append(batch.column(name).to_numpy())
            pending += [pools[name].submit(numberings[name].add, batch.column(name)) for name in numbered]
            while len(pending) > _WAITING_BATCHES * len(numbered):
                pending.popleft().result()
        while pending:
            pending.popleft().result()
        if scan.faults.bad == scan.faults.rows:
            empty = (pa.array([], pa.string()), np.empty(0, np.int32))
            return [empty] * len(numbered), {}
        ended = [pools[name].submit(numberings[name].finish, whole=name in scan.wholes) for name in numbered]
        vocabularies = [future.result() for future in ended]
    rest = {name: values.joined() for name, values in kept.items()}
    pa.default_memory_pool().release_unused()
    return vocabularies, rest


def _prepare(log: Interactions, preparation: Preparation, name: str, report: LogReport) -> Interactions:
    if log.weights is not None:
        counted = log.where(log.weights > 0)
        report.leave_out("of weight 0", len(log) - len(counted))
        log = counted
        if not len(log):
            raise InputError(f"{name}: all weights are 0, which leaves no interaction")
    since, until = preparation.since, preparation.until
    if log.timestamps is not None and (since or until):
        times = log.timestamps
        keep = np.ones(len(log), dtype=bool)
        if since:
            keep &= times >= to_microseconds(since)
        if until:
            keep &= times <= to_microseconds(until)
        report.leave_out("outside of --since and --until", int((~keep).sum()))
        log = log.where(keep)
        if not len(log):
            window = " ".join(f"{word} {instant}" for word, instant in (("since", since), ("until", until)) if instant)
            raise InputError(
                f"{name} has no interactions {window}; the first is at {from_microseconds(int(times.min()))}, "
                f"the last at {from_microseconds(int(times.max()))}"
            )
    if preparation.drop_duplicates:
        alike: list[npt.NDArray[Any]] = [log.user_numbers, log.item_numbers]
        alike += [values for values in (log.timestamps, log.weights) if values is not None]
        keep = first_of_each(alike)
        report.leave_out("that repeat another", int((~keep).sum()))
        log = log.where(keep)
    if (most := preparation.max_user_interactions) is not None:
        keep = (np.bincount(log.user_numbers) <= most)[log.user_numbers]
        report.leave_out(f"of users with more than {most:,}", int((~keep).sum()))
        log = log.where(keep)
        if not len(log):
            raise InputError(f"{name}: every user has more than {most:,} interactions; allow more")
    least = preparation.min_user_interactions, preparation.min_item_interactions
    if max(least) > 1:
        enough = log.where(core(log.user_numbers, log.item_numbers, *least))
        report.leave_out("of users or items with too few", len(log) - len(enough))
        log = enough
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
