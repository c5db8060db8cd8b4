"""Follow a table of PostgreSQL: rows are read by their ids, also rows that are committed after larger ids.

A row gets its id when it is written, and is seen when its transaction commits, so a smaller id can appear after a
larger one. A writer holds the table's lock ROW EXCLUSIVE from before it gets an id until it has committed. So all rows
up to an id are there once all who held that lock after the id was seen have ended. Up to that id the table is finished,
and only that is noted; rows above it are read at once, and again after a start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from feast_embeddings.errors import EmbeddingsError, InputError, import_extra
from feast_embeddings.events import Event, EventLog, Position
from feast_embeddings.following.form import EVENT_ID, Batch, Form
from feast_embeddings.following.message import message_event
from feast_embeddings.following.pausing import pause
from feast_embeddings.reading import Location, missing_column
from feast_embeddings.reading.locations.databases import said

__all__ = ["Table", "follow_table"]

_SCHEMES = ("postgresql", "postgres")
_INTEGERS = ("smallint", "integer", "bigint")
# Tables and partitioned ones; others have no rows of their own, or none whose writers can be seen.
_KINDS = ("r", "p")
# Below any id that a table may have.
_BEFORE = -(2**63) + 1


@dataclass(frozen=True)
class Table:
    """A table of PostgreSQL.

    Attributes:
        place: ``postgresql://user@host/database``; ``${NAME}`` stands for a variable of the environment.
        name: as in SQL, perhaps with its schema: ``clicks``, ``shop.clicks``, ``"Clicks"``.
        position: the column that numbers the rows, by a sequence or as an identity.
    """

    place: Location
    name: str
    position: str = "id"

    @classmethod
    def parse(cls, address: str, name: str | None, position: str | None) -> Table:
        """Take what the command line has.

        Raises:
            InputError: no table is named.
        """
        place = Location(address)
        if not name:
            raise InputError(f"{place}: expected the name of a table, with --table")
        return cls(place, name, position or cls.position)

    @staticmethod
    def is_address(text: str) -> bool:
        """Whether it is of a PostgreSQL server."""
        return text.partition("://")[0] in _SCHEMES


class _Fence(NamedTuple):
    """The largest id at some time, and the transactions that may have had smaller ones that were not committed."""

    head: int
    writers: frozenset[str]


def follow_table(
    table: Table, log: EventLog, form: Form, *, batch: int, once: bool, stopped: Callable[[], bool]
) -> Iterator[Batch]:
    """Add the events of a table's rows to the log, and yield what became of each batch.

    A batch's events, and the id up to which the table is finished, are written in one transaction. Rows above that id
    are read again after a start, and their events are found to be there: an event's id is its ``event_id``, or else
    ``database.schema.table:id``. One without a time happened when it was read.

    Args:
        batch: the most rows of a batch.
        once: end when all committed rows have been read; otherwise look for more each second.
        stopped: asked between batches, and while there are none.

    Raises:
        InputError: there is no such table, its rows are not numbered by whole numbers in order, or a row is no event;
            then those before it are added.
        EmbeddingsError: the server cannot be reached, or refuses.
        MissingExtraError: the extra sql is not installed.
    """
    with _Rows(table, form) as rows:
        done = noted if (noted := log.position(rows.name)) is not None else _BEFORE
        fence: _Fence | None = None
        read: set[int] = set()  # ids above `done`
        while not stopped():
            fence = fence or rows.fence()
            finished = done
            if rows.have_ended(fence.writers):
                # All up to its head is committed before the next read.
                finished, fence = fence.head, None
            behind, at = rows.count(done) - len(read), done
            while not stopped() and (found := rows.after(at, batch)):
                new = [row for row in found if row[0] not in read]
                at, behind = found[-1][0], behind - len(new)
                if new or at <= finished:
                    counted = _add(new, Position(rows.name, min(at, finished)), log, form)
                    read.update(id for id, _ in new)
                    if new:
                        yield counted._replace(behind=max(0, behind))
            if not stopped():
                done = max(done, finished)
            read = {id for id in read if id > done}
            if once:
                return
            pause(stopped)


def _add(rows: list[tuple[int, str]], until: Position, log: EventLog, form: Form) -> Batch:
    """Add the events of rows, and note how far the table is finished; if one is no event, only those before it."""
    events: list[Event] = []
    without_weight = dropped = 0
    now = datetime.now(UTC)
    refused: InputError | None = None
    for id, row in rows:
        try:
            event = message_event(row, form, now, f"{until.name}:{id}")
        except InputError as error:
            if form.on_bad_rows == "error":
                refused = InputError(f"{until.name}, row {id}: {error}; leave such rows out with --on-bad-rows drop")
                until = until._replace(position=min(until.position, id - 1))
                break
            dropped += 1
        else:
            if event is None:
                without_weight += 1
            else:
                events.append(event)
    added = log.add(events, until)
    if refused is not None:
        raise refused
    return Batch(until.name, added.added, added.duplicates, without_weight, dropped, 0)


class _Rows:
    """A connection that reads one table."""

    def __init__(self, table: Table, form: Form) -> None:
        self._table = table
        self._uri = table.place.expanded
        driver = import_extra("adbc_driver_postgresql.dbapi", f"following {table.place}", "sql")
        self._driver = driver
        self._exits = ExitStack()
        try:
            # Each statement sees the rows committed by then.
            connection = driver.connect(self._uri, autocommit=True)
        except driver.Error as error:
            raise self._failed(error) from None
        self._connection = self._exits.enter_context(closing(connection))
        try:
            self._look(form)
        except BaseException:
            self._exits.close()
            raise

    def __enter__(self) -> _Rows:
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def fence(self) -> _Fence:
        """Return the largest id, and then who writes."""
        # In this order: who got a smaller id, and has not ended, is among the writers.
        ((head,),) = self._ask(f"SELECT coalesce(max({self._id}), {_BEFORE})::bigint FROM {self._from}")  # noqa: S608 - quoted
        return _Fence(head, self._writers())

    def have_ended(self, writers: frozenset[str]) -> bool:
        """Return whether none of these writes any more."""
        if not writers:
            return True
        now = self._writers()
        # A transaction that is prepared for two-phase commit has another name than before.
        return not (writers & now) and not any(writer.startswith("-") for writer in now)

    def count(self, id: int) -> int:
        """Return how many rows there are above an id."""
        ((found,),) = self._ask(f"SELECT count(*) FROM {self._from} WHERE {self._id} > {id}")  # noqa: S608 - quoted
        return int(found)

    def after(self, id: int, count: int) -> list[tuple[int, str]]:
        """Return the next rows above an id, up to a limit: their ids, and their values as JSON objects."""
        return self._ask(
            f"SELECT {self._id}::bigint, {self._object}::text FROM {self._from} "  # noqa: S608 - quoted
            f"WHERE {self._id} > {id} ORDER BY {self._id} LIMIT {count}"
        )

    def _look(self, form: Form) -> None:
        """Find the table, and refuse one that cannot be followed."""
        table = self._table
        found = self._ask(
            "SELECT c.oid::bigint, c.relkind::text, current_database()::text, n.nspname::text, c.relname::text, "
            "pg_is_in_recovery() FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.oid = to_regclass($1)",
            table.name,
        )
        if not found:
            raise InputError(
                f"{table.place} has no table {table.name}; expected one that this user can see, written as in SQL: "
                "a name with upper case in double quotes"
            )
        ((self._oid, kind, database, schema, name, is_standby),) = found
        self.name = f"{database}.{schema}.{name}"
        if kind not in _KINDS:
            raise InputError(f"{self.name} is not a table; expected one, since of others it is not known who writes")
        if is_standby:
            raise InputError(f"{table.place} is a standby, where it is not known who writes; name the primary server")
        columns = self._ask(
            "SELECT attname::text, format_type(atttypid, NULL)::text, attnotnull FROM pg_attribute "
            "WHERE attrelid = $1::bigint AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            self._oid,
        )
        types = {column: (type, not_null) for column, type, not_null in columns}
        needed = [form.user, form.item, *(n for n in (form.timestamp, form.weight, form.event) if n is not None)]
        for column in [table.position, *needed]:
            if column not in types:
                raise missing_column(self.name, column, list(types))
        self._id, self._from = _name(table.position), f"{_name(schema)}.{_name(name)}"
        self._check_position(*types[table.position])
        wanted = [column for column in dict.fromkeys([*needed, form.times, EVENT_ID]) if column in types]
        self._object = f"json_build_object({', '.join(f'{_text(each)}, {_name(each)}' for each in wanted)})"

    def _check_position(self, type: str, not_null: bool) -> None:
        column = self._table.position
        if type not in _INTEGERS:
            raise InputError(
                f"{self.name}: column {column!r} is {type}; expected one of whole numbers that grow, with "
                "--position-column"
            )
        if not not_null:
            raise InputError(
                f"{self.name}: column {column!r} may be NULL, and such rows would never be read: ALTER TABLE … ALTER "
                f"COLUMN {column} SET NOT NULL"
            )
        cached = self._ask(
            "SELECT seqcache FROM pg_sequence WHERE seqrelid = pg_get_serial_sequence($1, $2)::regclass",
            self._from,
            column,
        )
        if cached and cached[0][0] > 1:
            raise InputError(
                f"{self.name}: the sequence of column {column!r} gives each session {cached[0][0]} numbers at once, so "
                "smaller ones come later: ALTER SEQUENCE … CACHE 1, and begin new sessions"
            )

    def _writers(self) -> frozenset[str]:
        """Return the transactions that have written to the table, or a part of it, and have not ended."""
        rows = self._ask(
            "WITH RECURSIVE part AS (SELECT $1::bigint::oid AS oid "
            "UNION SELECT inhrelid FROM pg_inherits JOIN part ON inhparent = part.oid) "
            "SELECT DISTINCT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND granted "
            "AND mode = 'RowExclusiveLock' AND relation IN (SELECT oid FROM part) "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            self._oid,
        )
        return frozenset(writer for (writer,) in rows)

    def _ask(self, query: str, *values: str | int) -> list[Any]:
        try:
            with closing(self._connection.cursor()) as cursor:
                cursor.execute(query, values or None)
                return list(cursor.fetchall())
        except self._driver.ProgrammingError as error:
            raise InputError(f"{self._table.place}: {said(error, self._uri)}") from None
        except self._driver.Error as error:
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> EmbeddingsError:
        return EmbeddingsError(
            f"{self._table.place}: {said(error, self._uri)}; check that the server runs, and what this user may read"
        )


def _name(text: str) -> str:
    """Return a name as SQL."""
    return '"' + text.replace('"', '""') + '"'


def _text(text: str) -> str:
    """Return a text as SQL."""
    return "'" + text.replace("'", "''") + "'"
