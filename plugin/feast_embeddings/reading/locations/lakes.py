"""Tables of Delta Lake and Iceberg, whose files alone do not say which rows are current; and queries of files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb

from feast_embeddings.errors import InputError, import_extra
from feast_embeddings.reading.faults import first_line
from feast_embeddings.reading.files import DataFile
from feast_embeddings.reading.relation import ArrowStream

__all__ = ["METADATA_FILE", "is_delta", "open_delta", "open_iceberg", "query_files"]

METADATA_FILE = ".metadata.json"
"""How the name of an Iceberg table's metadata file ends."""
_BATCH_ROWS = 1 << 17


def is_delta(path: Path) -> bool:
    """Return whether a path is a folder with a Delta table: its Parquet files include rows that were deleted."""
    return (path / "_delta_log").is_dir()


def open_delta(name: str, place: str) -> ArrowStream:
    """Stream the newest version of a Delta table in a folder or an object store.

    Raises:
        InputError: there is none.
        MissingExtraError: deltalake is not installed.
    """
    delta = import_extra("deltalake", f"reading {name}", "lake")
    try:
        reader: ArrowStream = delta.DeltaTable(place).to_pyarrow_dataset().scanner().to_reader()
    except (delta.exceptions.DeltaError, OSError, ValueError) as error:
        raise InputError(f"{name} cannot be read as a Delta table: {first_line(error)}") from None
    return reader


def open_iceberg(name: str, table: str) -> ArrowStream:
    """Stream the newest snapshot of an Iceberg table.

    Args:
        table: ``[CATALOG.]NAMESPACE.TABLE``, with catalogs as pyiceberg is configured; or the table's metadata file.

    Raises:
        InputError: there is none.
        MissingExtraError: pyiceberg is not installed.
    """
    failures = (ValueError, OSError, import_extra("pyiceberg.exceptions", f"reading {name}", "lake").NoSuchTableError)
    try:
        if table.endswith(METADATA_FILE):
            found: Any = import_extra("pyiceberg.table", f"reading {name}", "lake").StaticTable.from_metadata(table)
        else:
            catalogs = import_extra("pyiceberg.catalog", f"reading {name}", "lake")
            catalog, _, rest = table.partition(".")
            parts = (catalog, rest) if rest.count(".") else ("default", table)
            found = catalogs.load_catalog(parts[0]).load_table(parts[1])
        reader: ArrowStream = found.scan().to_arrow_batch_reader()
    except failures as error:
        raise InputError(f"{name} cannot be read as an Iceberg table: {first_line(error)}") from None
    return reader


def query_files(files: Sequence[DataFile], query: str, exits: ExitStack) -> ArrowStream:
    """Stream a query of DuckDB over Parquet files, which it calls ``log``.

    Raises:
        InputError: a file is of another format, whose types a query would have to guess; or the query is wrong.
    """
    if other := next((file for file in files if file.format != "parquet"), None):
        raise InputError(f"--query reads Parquet, whose columns have types, but {other} is {other.format}")
    connection = exits.enter_context(duckdb.connect(config={"memory_limit": "1GB"}))
    try:
        statements = connection.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise InputError("--query: expected one SELECT, as a query of files only reads")
        connection.execute("SET TimeZone = 'UTC'")
        paths = [str(file.path) for file in files]
        connection.read_parquet(paths, union_by_name=True, hive_partitioning=True).create_view("log")
        reader: ArrowStream = connection.sql(query).to_arrow_reader(_BATCH_ROWS)
    except duckdb.Error as error:
        raise InputError(f"--query: {first_line(error)}") from None
    return reader
