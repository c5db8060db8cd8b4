"""The SQLite file of a model: what came after the training, durable before the answer, for any process."""

from __future__ import annotations

import os
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import tenacity

from feast_embeddings.errors import EmbeddingsError
from feast_embeddings.files import writer_lock

__all__ = ["ModelFile", "columns_of"]

# Ids have no declared type, which would turn the text 007 into a number.
_TABLES = """
CREATE TABLE IF NOT EXISTS events (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id NOT NULL, item_id NOT NULL, timestamp INTEGER NOT NULL, weight REAL NOT NULL, event_id TEXT UNIQUE,
    type TEXT, own_weight REAL
);
CREATE INDEX IF NOT EXISTS events_of_user ON events (user_id, timestamp);
CREATE INDEX IF NOT EXISTS events_of_item ON events (item_id, timestamp);
CREATE INDEX IF NOT EXISTS events_by_time ON events (timestamp);
CREATE TABLE IF NOT EXISTS read_files (
    name TEXT PRIMARY KEY, size INTEGER NOT NULL, modified INTEGER NOT NULL, sha256 TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (name TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attributes (
    entity TEXT NOT NULL, id NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL, value TEXT NOT NULL,
    set_at INTEGER NOT NULL, pending INTEGER NOT NULL, PRIMARY KEY (entity, id, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS attributes_by_time ON attributes (entity, set_at);
CREATE INDEX IF NOT EXISTS attributes_pending ON attributes (entity) WHERE pending;
"""
# Columns of events that files of an earlier release lack until something is written to them.
_ADDED = {"type": "TEXT", "own_weight": "REAL"}
_WAIT_SECONDS = 10.0
# SQLite forbids a process even to close what its parent opened.
_OF_PARENTS: list[sqlite3.Connection] = []
# The holder may be writing a large collection again.
_LOCK_SECONDS = 600.0


class ModelFile:
    """The file of one model; safe to use from many threads and processes.

    Made by the first write. Until then it is empty, and reading creates nothing.

    Raises:
        EmbeddingsError: from every method: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept = threading.local()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock on attributes and on forgetting, over the file and Qdrant together."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with writer_lock(self.path.with_suffix(".lock"), timeout=_LOCK_SECONDS):
            yield

    def copy_to(self, path: Path) -> None:
        """Write the content as of now into a new file, which needs no other file next to it; writers may go on."""
        with self._opened("ro") as connection:
            # A statement of SQLite: all of it is of one moment.
            connection.execute("VACUUM INTO ?", (str(path),))

    def replace_by(self, path: Path | None) -> None:
        """Replace the content by the content of a file from `copy_to`, in one transaction; empty it if that is None."""
        if path is None and not self.path.exists():
            return
        # Not by renaming files: SQLite would apply the old file's log of changes to the new one.
        with self._making() as connection, closing(sqlite3.connect(":memory:" if path is None else path)) as other:
            if path is None:
                other.executescript(_TABLES)
            other.backup(connection)

    @contextmanager
    def _making(self) -> Iterator[sqlite3.Connection]:
        """Open the file to write to; make it and its tables if they are missing."""
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                self._make()
        with self._opened("rwc") as connection:
            _log_ahead(connection)
            connection.executescript(_TABLES)
            for name in _ADDED.keys() - columns_of(connection):
                # Another process may have added it meanwhile.
                with suppress(sqlite3.OperationalError):
                    connection.execute(f"ALTER TABLE events ADD COLUMN {name} {_ADDED[name]}")
            yield connection
            # Readers keep the file open, so that closing it does not do this: a copy of the file alone is complete, and
            # who deletes the file leaves nothing that SQLite would apply to the next one. It does not wait for readers.
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _make(self) -> None:
        """Make the file with its tables; no process sees it without them."""
        new = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}")
        try:
            with closing(sqlite3.connect(new)) as connection:
                _log_ahead(connection)
                connection.executescript(_TABLES)
            with suppress(FileExistsError):  # another process made it meanwhile
                os.link(new, self.path)
        finally:
            new.unlink(missing_ok=True)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """Open the file to read once, or None without a file, by a connection that the thread keeps.

        To open it for each query takes longer than the query. It is opened again if another file took its place.
        """
        with self._errors():
            try:
                found = self.path.stat()
            except FileNotFoundError:
                yield None
                return
            identity = os.getpid(), found.st_dev, found.st_ino
            if getattr(self._kept, "identity", None) != identity:
                if getattr(self._kept, "identity", (0,))[0] not in (0, os.getpid()):
                    _OF_PARENTS.append(self._kept.connection)
                if not os.access(self.path.parent, os.W_OK):
                    # Opened as it is now, and so of no use for the next query.
                    with self._opened("ro") as connection:
                        yield connection
                    return
                self._kept.connection, self._kept.identity = self._open("rw"), identity
            yield self._kept.connection

    @contextmanager
    def _opened(self, mode: str) -> Iterator[sqlite3.Connection]:
        with self._errors():
            connection = self._open(mode)
            try:
                yield connection
            finally:
                connection.close()

    def _open(self, mode: str) -> sqlite3.Connection:
        address = f"{self.path.absolute().as_uri()}?mode={mode}"
        # SQLite would make files next to it even to read; where it cannot, the file has to be complete by itself.
        if mode == "ro" and not os.access(self.path.parent, os.W_OK) and not Path(f"{self.path}-wal").exists():
            address += "&immutable=1"
        connection = sqlite3.connect(address, uri=True, timeout=_WAIT_SECONDS)
        try:
            # A commit returns when the event is on the disk.
            connection.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise EmbeddingsError(f"the events in {self.path} cannot be used: {error}") from error


def columns_of(connection: sqlite3.Connection) -> set[str]:
    """Return the names of the columns of events."""
    return {name for _, name, *_ in connection.execute("PRAGMA table_info(events)")}


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_BUSY


@tenacity.retry(
    retry=tenacity.retry_if_exception(_is_busy),
    stop=tenacity.stop_after_delay(_WAIT_SECONDS),
    wait=tenacity.wait_random(max=0.02),
    reraise=True,
)
def _log_ahead(connection: sqlite3.Connection) -> None:
    """Let readers and a writer work at the same time. SQLite's own timeout does not cover this change of a new file."""
    connection.execute("PRAGMA journal_mode = WAL")
