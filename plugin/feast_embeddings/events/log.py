"""The events of a model: each event id once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from feast_embeddings.arguments import Id
from feast_embeddings.errors import EmbeddingsError
from feast_embeddings.events.event import Event
from feast_embeddings.events.file import ModelFile, columns_of

__all__ = ["Added", "Backlog", "EventLog", "Position", "ReadFile", "Since", "event_log_of"]

_BATCH = 10_000
_NEWEST = 1_000
# SQLite accepts 32,766 parameters of one statement.
_ASKED = 10_000


class Added(NamedTuple):
    """How many events were new, how many were there already, and how many are of a type that weighs 0."""

    added: int
    duplicates: int
    without_weight: int = 0


class Backlog(NamedTuple):
    """What a version was not trained on.

    Attributes:
        events: how many events are newer than the version's cut-off.
        newest: the time of the newest event, in microseconds since 1970; None if there are none.
    """

    events: int
    newest: int | None


class Since(NamedTuple):
    """What was added to the log after a position in it.

    Attributes:
        users: whose events these are, each once.
        items: with what, each once.
        position: of the newest event; 0 if there is none.
    """

    users: list[Id]
    items: list[Id]
    position: int


class ReadFile(NamedTuple):
    """A file whose events are in the log.

    Attributes:
        name: without its folder; a name stands for one file only.
        size: in bytes.
        modified: nanoseconds since 1970.
        sha256: of its bytes, in hexadecimal digits.
    """

    name: str
    size: int
    modified: int
    sha256: str


class Position(NamedTuple):
    """How far a table has been read.

    Attributes:
        name: of the table, with its database and schema.
        position: all rows up to this id are in the log, or are no interactions.
    """

    name: str
    position: int


class EventLog(ModelFile):
    """The events of one model."""

    def add(self, events: Sequence[Event], source: ReadFile | Position | None = None) -> Added:
        """Append events, all or none; when it returns they survive a crash of the machine.

        Args:
            events: those with an event id that is there already are not added again.
            source: the file that they came from, which is then in `read_files`; or how far a table has been read, which
                `position` then returns, unless it was further.
        """
        with self._making() as connection, connection:
            before = connection.total_changes
            connection.executemany(
                "INSERT INTO events (user_id, item_id, timestamp, weight, event_id, type, own_weight) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (event_id) DO NOTHING",
                events,
            )
            added = connection.total_changes - before
            if isinstance(source, Position):
                connection.execute(
                    "INSERT INTO positions (name, position) VALUES (?, ?) "
                    "ON CONFLICT (name) DO UPDATE SET position = max(position, excluded.position)",
                    source,
                )
            elif source is not None:
                connection.execute(
                    "INSERT INTO read_files (name, size, modified, sha256) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT (name) DO NOTHING",
                    source,
                )
        return Added(added, len(events) - added)

    def read_files(self) -> dict[str, ReadFile]:
        """Return the files whose events are here, by name."""
        if not self.path.exists():
            return {}
        with self._opened("ro") as connection:
            if not _has_table(connection, "read_files"):
                return {}
            rows = connection.execute("SELECT name, size, modified, sha256 FROM read_files")
            return {row[0]: ReadFile(*row) for row in rows}

    def position(self, name: str) -> int | None:
        """Return the id up to which a table has been read; None if it has not."""
        if not self.path.exists():
            return None
        with self._opened("ro") as connection:
            if not _has_table(connection, "positions"):
                return None
            row = connection.execute("SELECT position FROM positions WHERE name = ?", [name]).fetchone()
        return None if row is None else int(row[0])

    def of_users(self, user_ids: Sequence[Id]) -> Mapping[Id, list[Event]]:
        """Return the events of each of these users that has some, oldest first."""
        return self._of("user_id", user_ids)

    def of_items(self, item_ids: Sequence[Id]) -> Mapping[Id, list[Event]]:
        """Return the events with each of these items that has some, oldest first."""
        return self._of("item_id", item_ids)

    def _of(self, column: Literal["user_id", "item_id"], ids: Sequence[Id]) -> Mapping[Id, list[Event]]:
        found: dict[Id, list[Event]] = {}
        with self._reading() as connection:
            if connection is None:
                return found
            for start in range(0, len(ids), _ASKED):
                asked = list(ids[start : start + _ASKED])
                among = f"WHERE {column} IN ({', '.join('?' * len(asked))})"
                for row in connection.execute(f"{_select(connection)} {among} ORDER BY timestamp, position", asked):
                    event = Event(*row)
                    found.setdefault(getattr(event, column), []).append(event)
        return found

    def since(self, position: int) -> Since:
        """Return who and what the events name that were added after a position; 0 is before the first."""
        if not self.path.exists():
            return Since([], [], 0)
        with self._opened("ro") as connection:
            connection.execute("BEGIN")  # all of it of one moment
            (newest,) = connection.execute("SELECT MAX(position) FROM events").fetchone()
            after = "FROM events WHERE position > ?"
            users, items = (
                [id for (id,) in connection.execute(f"SELECT DISTINCT {column} {after}", [position])]
                for column in ("user_id", "item_id")
            )
        return Since(users, items, newest or 0)

    def newest_items(self) -> Iterator[list[tuple[Id, int]]]:
        """Return the items of all events with the time of the newest of each, in µs, in batches, newest first."""
        if not self.path.exists():
            return
        with self._opened("ro") as connection:
            cursor = connection.execute(
                "SELECT item_id, MAX(timestamp) FROM events GROUP BY item_id ORDER BY 2 DESC, MAX(position) DESC"
            )
            while rows := cursor.fetchmany(_NEWEST):
                yield rows

    def backlog(self, since: int) -> Backlog:
        """Count the events with a time after this one, in microseconds since 1970."""
        if not self.path.exists():
            return Backlog(0, None)
        with self._opened("ro") as connection:
            # Two queries, as SQLite uses the index on the time for a single aggregate only.
            (newest,) = connection.execute("SELECT MAX(timestamp) FROM events").fetchone()
            (events,) = connection.execute("SELECT COUNT(*) FROM events WHERE timestamp > ?", (since,)).fetchone()
        return Backlog(events, newest)

    def batches(self) -> Iterator[list[Event]]:
        """Return all events in the order in which they came."""
        if not self.path.exists():
            return
        with self._opened("ro") as connection:
            cursor = connection.execute(f"{_select(connection)} ORDER BY position")
            while rows := cursor.fetchmany(_BATCH):
                yield [Event(*row) for row in rows]

    def count(self, user_ids: Sequence[Id], item_ids: Sequence[Id]) -> int:
        """Return the number of events of these users, or with these items."""
        if not self.path.exists():
            return 0
        with self._opened("ro") as connection:
            found: set[int] = set()
            for condition, asked in _conditions(user_ids, item_ids):
                found.update(row for (row,) in connection.execute(f"SELECT position FROM events {condition}", asked))  # noqa: S608 - ours
        return len(found)

    def forget(self, user_ids: Sequence[Id], item_ids: Sequence[Id]) -> int:
        """Delete the events of these users and with these items, and return how many; delete their set attributes.

        The bytes of the files do not have them any more.

        Raises:
            EmbeddingsError: another process reads for so long that the old bytes cannot be deleted now.
        """
        if not self.path.exists():
            return 0
        with self._making() as connection:
            # Deleted content is overwritten with zeros; without it the bytes stay in free pages.
            connection.execute("PRAGMA secure_delete = ON")
            with connection:
                before = connection.total_changes
                for condition, asked in _conditions(user_ids, item_ids):
                    connection.execute(f"DELETE FROM events {condition}", asked)  # noqa: S608 - ours
                deleted = connection.total_changes - before
                for entity, ids in (("user", user_ids), ("item", item_ids)):
                    rows = [(entity, id) for id in ids]
                    connection.executemany("DELETE FROM attributes WHERE entity = ? AND id = ?", rows)
            connection.execute("VACUUM")
            # The log of changes still has the old pages.
            if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise EmbeddingsError(
                    f"the events are deleted from {self.path}, but another process still reads it, so the file "
                    f"{self.path.name}-wal has their bytes: run it again"
                )
        return deleted


def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    """Return whether there is a table; a file of an earlier release lacks some until something is written to it."""
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", [name])
    return known.fetchone() is not None


def _select(connection: sqlite3.Connection) -> str:
    there = columns_of(connection)
    return f"SELECT {', '.join(name if name in there else 'NULL' for name in Event._fields)} FROM events"  # noqa: S608 - ours


def _conditions(user_ids: Sequence[Id], item_ids: Sequence[Id]) -> Iterator[tuple[str, list[Id]]]:
    for column, ids in (("user_id", user_ids), ("item_id", item_ids)):
        for start in range(0, len(ids), _ASKED):
            asked = list(ids[start : start + _ASKED])
            yield f"WHERE {column} IN ({', '.join('?' * len(asked))})", asked


def event_log_of(data: Path, model: str) -> EventLog:
    """Return the events of a model in a repo's folder of versions."""
    return EventLog(data / f"{model}.events.sqlite")
