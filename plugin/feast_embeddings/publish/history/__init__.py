"""Write a version into the tables that its feature views read, if the repo gave them its own sources.

Feast's point-in-time join then finds embeddings next to all other features, in the repo's own offline store. A version
is complete there before it goes live. Each row is written once, also if a publish is repeated or was killed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from feast import FeatureStore, FileSource

from feast_embeddings._feast.offline_store import is_postgres
from feast_embeddings.artifact import Manifest
from feast_embeddings.artifact.table_files import TableFiles
from feast_embeddings.errors import InputError
from feast_embeddings.files import writer_lock
from feast_embeddings.model.sides import Side
from feast_embeddings.model.views import reads_given_source
from feast_embeddings.publish.history.files import FileTable
from feast_embeddings.publish.history.offline_store import OfflineStoreTable
from feast_embeddings.publish.history.postgres import PostgresTable
from feast_embeddings.publish.history.rows import HistoryRows, history_rows

__all__ = ["History", "HistoryTable", "history_tables", "write_history"]

# feast: into the tables of the views' sources; none: nowhere; None: feast for views with a source of the repo's.
History = Literal["feast", "none"] | None

_LOCK_SECONDS = 3600.0
_POSTGRES = "postgres"


class HistoryTable(Protocol):
    """A table that gets the rows of one side of a version."""

    name: str

    def check(self) -> None:
        """Check that the rows can be written; raise `InputError` if not. Changes nothing."""

    def write(self) -> int:
        """Write the rows that the table lacks, and return how many; raise `EngineError` if that fails."""


def history_tables(
    feature_store: FeatureStore,
    manifest: Manifest,
    sides: Iterable[tuple[Side, TableFiles]],
    history: History = None,
) -> list[HistoryTable]:
    """Return the tables that a version has to be written to, after checking that it can be.

    Raises:
        InputError: one cannot hold the version, or its store cannot write; or there is none, but `history` is feast.
    """
    given = [(side, files) for side, files in sides if reads_given_source(side.view)]
    if history == "feast" and not given:
        raise InputError(
            f"history feast: the views of model {manifest.model!r} read the files that training writes, so there is no "
            "table to write; give embedding_views a user_source or an item_source, and run feast apply"
        )
    if history == "none":
        return []
    tables = [_table(feature_store, history_rows(side, files, manifest)) for side, files in given]
    for table in tables:
        table.check()
    return tables


def write_history(tables: Sequence[HistoryTable], folder: Path) -> int:
    """Write what the tables lack, and return how many rows that were.

    Args:
        folder: of the model; publishes from it write one after the other.
    """
    if not tables:
        return 0
    with writer_lock(folder / "history.lock", timeout=_LOCK_SECONDS):
        return sum(table.write() for table in tables)


def _table(feature_store: FeatureStore, rows: HistoryRows) -> HistoryTable:
    source, store = rows.source, feature_store.config.offline_store.type
    if isinstance(source, FileSource):
        return FileTable(feature_store, rows, source)
    if not is_postgres(source):
        return OfflineStoreTable(feature_store, rows)
    if store != _POSTGRES:
        raise InputError(
            f"the source of feature view {rows.view.name!r} is a PostgreSQLSource, which the offline store of this "
            f"repo, {store}, cannot read; set offline_store.type to postgres. Nothing was changed"
        )
    return PostgresTable(feature_store, rows)
