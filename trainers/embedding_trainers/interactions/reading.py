"""Read an interaction log: from a file or a table to users, items and numbers."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedding_trainers.interactions.growing import GrowingArray
from embedding_trainers.interactions.log import Interactions, LogReport
from embedding_trainers.interactions.memory import release_freed_memory
from embedding_trainers.interactions.preparation import Preparation, event_weights, prepare
from embedding_trainers.interactions.vocabulary import IdNumbering, Numbers
from feast_embeddings.errors import InputError
from feast_embeddings.reading import IdType, OnBadRows, Rules, Scan, Source, Wanted, source_name
from feast_embeddings.times import future_starts, to_microseconds

__all__ = ["Columns", "Reading", "read_interactions", "read_log", "read_raw"]

_TIMESTAMP = "timestamp"
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

    @property
    def times(self) -> str:
        """The column of times, which need not exist if it is not named."""
        return self.timestamp or _TIMESTAMP

    def check(self, preparation: Preparation) -> None:
        """Check that the names make sense.

        Raises:
            InputError: one is named for two purposes, or the column is missing that a setting is about.
        """
        if preparation.event_weights and self.event is None:
            raise InputError("there are weights of event types, but no event column is named (--event-column)")
        names = [name for name in (self.user, self.item, self.times, self.weight, self.event) if name is not None]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"the column {twice!r} is named for two purposes; name one for each")

    def check_test_events(self, preparation: Preparation, test_events: Collection[str]) -> None:
        """Check that a test can consist of these types of events.

        Raises:
            InputError: one has no weight or weight 0, so that none of its rows is an interaction.
        """
        if test_events and self.event is None:
            raise InputError("test events need the column that has the types of events; name it (--event-column)")
        counted = [event for event, weight in preparation.event_weights.items() if weight > 0]
        if unknown := next((event for event in test_events if event not in counted), None):
            raise InputError(
                f"the test event {unknown!r} has no weight above 0; those with one are {', '.join(counted) or 'none'} "
                "(--event-weights)"
            )

    def refuse_without_times(self, preparation: Preparation, log: str) -> None:
        """Refuse settings that need times, for a log without.

        Raises:
            InputError: there is one.
        """
        if setting := preparation.needs_times:
            raise InputError(f"{log} has no column {self.times!r}, which {setting} needs; name the column")


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
    test_events: Collection[str] = (),
) -> tuple[Interactions, LogReport]:
    """Read an interaction log and prepare it for training.

    Rows of weight 0 are no interactions and are left out; ids that occur in no other row go with them.

    Args:
        source: a file, a folder or a glob of Parquet, CSV or JSON, or a table in memory that speaks Arrow's C stream
            interface (Arrow, pandas, polars, DuckDB); see docs/input.md.
        columns: what the columns are called.
        preparation: which rows count, and how much; all of them and the same by default.
        reading: how to read values, and what to do with bad rows.
        test_events: the types of events that a test may consist of; all if empty.

    Returns:
        The interactions, and what became of the rows.

    Raises:
        InputError: the source cannot be read, lacks a column, or has rows that cannot be used: a null or empty id,
            something that is not a time, an event type without a weight, or a weight that is null, negative or not
            finite; or no row remains.
    """
    columns, preparation, reading = columns or Columns(), preparation or Preparation(), reading or Reading()
    columns.check_test_events(preparation, test_events)
    log, events, report = read_raw(source, columns, reading, preparation)
    name = source_name(source)
    if events is not None:
        of_event = event_weights(*events, preparation.event_weights, f"{name}: column {columns.event!r}")
        log = replace(log, weights=of_event if log.weights is None else log.weights * of_event)
        if test_events:
            types, numbers = events
            log = replace(log, targets=np.isin(types.cast(pa.string()).to_pylist(), list(test_events))[numbers])
    return prepare(log, preparation, name, report), report


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
    columns.check(preparation)
    timestamp = columns.times
    wanted = [
        Wanted(columns.user, "id", id_type=reading.user_ids),
        Wanted(columns.item, "id", id_type=reading.item_ids),
        Wanted(timestamp, "time", required=columns.timestamp is not None),
    ]
    if columns.weight is not None:
        wanted.append(Wanted(columns.weight, "number"))
    if columns.event is not None:
        wanted.append(Wanted(columns.event, "text", known=tuple(preparation.event_weights)))
    latest = None if reading.allow_future else to_microseconds(future_starts())
    with Scan(source, wanted, Rules(reading.time_format, latest)) as scan:
        if timestamp not in scan.columns:
            columns.refuse_without_times(preparation, scan.name)
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
    release_freed_memory()
    return vocabularies, rest
