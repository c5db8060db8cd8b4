"""The tables of a repo's own offline store: their columns, and how rows get into them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from feast import FeatureStore, FeatureView, FileSource
from feast.data_source import DataSource
from feast.infra.offline_stores.offline_store import OfflineStore
from feast.infra.offline_stores.offline_utils import cast_arrow_table_to_schema, get_pyarrow_schema_from_batch_source

__all__ = [
    "append_rows",
    "cast_rows",
    "file_system",
    "first_line",
    "is_postgres",
    "postgres_connection",
    "postgres_table",
    "rows_at",
    "source_schema",
    "why_no_append",
]

_SECRET = ("password", "secret", "token", "key", "credential")


def is_postgres(source: DataSource) -> bool:
    """Return whether a source is a table or query of Feast's store in PostgreSQL, which needs psycopg to import."""
    return type(source).__name__ == "PostgreSQLSource"


def postgres_table(source: DataSource) -> str:
    """Return the table of a source in PostgreSQL as Feast puts it into SQL; empty if the source is a query."""
    table: str = source._postgres_options._table  # type: ignore[attr-defined]
    return table


def postgres_connection(feature_store: FeatureStore) -> Any:
    """Connect to the PostgreSQL of the offline store, as Feast does."""
    connections = importlib.import_module("feast.infra.utils.postgres.connection_utils")
    return connections._get_conn(feature_store.config.offline_store)


def file_system(feature_store: FeatureStore, source: FileSource, path: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a path of the source, and the path on it; relative paths are relative to the repo."""
    uri = FileSource.get_uri_for_file_path(feature_store.config.repo_path, path)
    system, there = FileSource.create_filesystem_and_path(
        uri, source.s3_endpoint_override or "", source.resolve_credentials()
    )
    if system is None and "://" in there:
        system, there = pafs.FileSystem.from_uri(there)
    return system or pafs.LocalFileSystem(), there


def source_schema(feature_store: FeatureStore, source: DataSource) -> pa.Schema:
    """Return the columns of a source's table, with the types as which Feast reads them, in their order."""
    schema: pa.Schema = get_pyarrow_schema_from_batch_source(feature_store.config, source)[0]
    return schema


def why_no_append(feature_store: FeatureStore, view: FeatureView) -> str:
    """Say why Feast cannot write to the batch source of a view; empty if it can."""
    store, source = _offline_store(feature_store), view.batch_source
    if type(store).offline_write_batch is OfflineStore.offline_write_batch:
        return f"the offline store {type(store).__name__} does not write (it has no offline_write_batch)"
    # Feast 0.67 writes to the path of a Spark source only.
    if type(source).__name__ == "SparkSource" and not getattr(source, "path", ""):
        return "Feast writes to a SparkSource only if it has a path"
    return ""


def append_rows(feature_store: FeatureStore, view: FeatureView, rows: pa.Table) -> None:
    """Append rows to the table of a view's batch source; they have all of its columns, in its order."""
    _offline_store(feature_store).offline_write_batch(feature_store.config, view, rows, None)


def rows_at(feature_store: FeatureStore, source: DataSource, columns: list[str], time: datetime) -> pa.Table:
    """Read these columns of the rows whose event timestamp is this, and perhaps of more within a second of it."""
    second = timedelta(seconds=1)
    job = _offline_store(feature_store).pull_all_from_table_or_query(
        config=feature_store.config,
        data_source=source,
        join_key_columns=columns[:1],
        feature_name_columns=columns[1:],
        timestamp_field=source.timestamp_field,
        start_date=time - second,
        end_date=time + second,
    )
    table: pa.Table = job.to_arrow()
    return table


def cast_rows(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Cast rows to the types as which Feast reads the table."""
    table: pa.Table = cast_arrow_table_to_schema(rows, schema)
    return table


def first_line(feature_store: FeatureStore, error: BaseException) -> str:
    """Return the first line of an error of the offline store, without the secrets of its settings."""
    text = str(error).strip().partition("\n")[0] or type(error).__name__
    for secret in _secrets(feature_store.config.offline_store.model_dump()):
        text = text.replace(secret, "***")
    return text[:300]


def _secrets(settings: dict[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _secrets(value)
        elif value and any(part in name.lower() for part in _SECRET):
            yield str(getattr(value, "get_secret_value", lambda value=value: value)())


def _offline_store(feature_store: FeatureStore) -> OfflineStore:
    provider: Any = feature_store._get_provider()
    store: OfflineStore = provider.offline_store
    return store
