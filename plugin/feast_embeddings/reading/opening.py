"""Open the files of a source as relations of one DuckDB connection, and name them in errors."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from feast_embeddings.errors import InputError
from feast_embeddings.reading.delimited import DelimitedRelation
from feast_embeddings.reading.expressions import NULL, quoted
from feast_embeddings.reading.faults import first_line
from feast_embeddings.reading.files import DataFile, Format
from feast_embeddings.reading.jsonl import JsonRelation
from feast_embeddings.reading.locations import Location, opened
from feast_embeddings.reading.relation import ArrowStream, ParquetRelation, Relation, StreamRelation

Source: TypeAlias = "Path | str | Location | ArrowStream"

_MEMORY = "1GB"
_FORMATS: dict[Format, type[ParquetRelation | DelimitedRelation | JsonRelation]] = {
    "parquet": ParquetRelation,
    "csv": DelimitedRelation,
    "json": JsonRelation,
}


def column_of(relation: Relation, file: DataFile | None, name: str) -> tuple[str, str] | None:
    """Return type and SQL of a column of a file or its folders; None if it has no such column."""
    if dtype := relation.type_of(name):
        return dtype, relation.sql_of(name)
    if file is not None and name in file.partitions:
        value = file.partitions[name]
        return "TEXT", "NULL::VARCHAR" if value is None else quoted(value)
    return None


def connect(scratch: Path) -> duckdb.DuckDBPyConnection:
    """Open DuckDB with limited memory, and UTC for times without a zone.

    Args:
        scratch: a folder for data that does not fit into memory.
    """
    threads = max(1, min(4, os.cpu_count() or 1))
    connection = duckdb.connect(
        config={"threads": threads, "memory_limit": _MEMORY, "temp_directory": str(scratch / "spill")}
    )
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def open_relations(
    connection: duckdb.DuckDBPyConnection, source: Source, scratch: Path, exits: ExitStack
) -> list[tuple[Relation, DataFile | None]]:
    """Open the files of a source.

    Args:
        scratch: a folder for copies, and for data that does not fit into memory.
        exits: closes what stays open while the relations are read.

    Raises:
        InputError: there is no such file, or it does not have its format.
    """
    if not isinstance(source, Path | str | Location):
        return [(StreamRelation(connection, source, source_name(source)), None)]
    found = opened(source, scratch, exits)
    if not isinstance(found, list):
        return [(StreamRelation(connection, found, source_name(source)), None)]
    relations: list[tuple[Relation, DataFile | None]] = []
    for file in found:
        with read_errors(str(file), _FORMATS[file.format].format):
            if file.format == "parquet":
                relation: Relation = _parquet(connection, file, exits)
            elif file.format == "csv":
                relation = DelimitedRelation(connection, file, scratch)
            else:
                relation = JsonRelation(connection, file, scratch)
        relations.append((relation, file))
    return relations


@contextmanager
def read_errors(name: str, form: str) -> Iterator[None]:
    """Convert errors of DuckDB, Arrow and the disk during a read to an `InputError` that names the source."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise InputError(f"{name} cannot be read as {form}: {first_line(error)}") from None


def refuse_twins(relation: Relation, column: str) -> None:
    """Raise `InputError` if two columns have this name."""
    if list(relation.names).count(column) > 1:
        raise InputError(f"{relation.name} has two columns {column!r}; rename one")


def refuse_contradiction(
    connection: duckdb.DuckDBPyConnection, relation: Relation, file: DataFile | None, column: str
) -> None:
    """Raise `InputError` if a column of a file has another value than the folder of the same name."""
    if file is None or column not in file.partitions or (dtype := relation.type_of(column)) in (None, NULL):
        return
    value = file.partitions[column]
    said = "NULL::VARCHAR" if value is None else quoted(value)
    own = relation.sql_of(column)
    if dtype == "JSON":
        own = f"({own} ->> '$')"
    elif dtype != "TEXT":
        said = f"TRY_CAST({said} AS {dtype})"
    with read_errors(relation.name, relation.format):
        other = connection.execute(
            f"SELECT number, CAST(own AS VARCHAR) FROM (SELECT row_number() OVER () AS number, {own} AS own "  # noqa: S608
            f"FROM {relation.source([column])}) WHERE own IS DISTINCT FROM {said} ORDER BY number LIMIT 1"
        ).fetchone()
    if other:
        raise InputError(
            f"{relation.name} row {other[0]}: column {column!r} is {other[1]!r:.80}, but the folder says "
            f"{value!r:.80}; correct one of them, or leave the column out of the file"
        )


def _parquet(connection: duckdb.DuckDBPyConnection, file: DataFile, exits: ExitStack) -> Relation:
    parquet = exits.enter_context(pq.ParquetFile(file.path))
    schema = parquet.schema_arrow
    # DuckDB reads these as floats and as whole numbers.
    if not any(pa.types.is_decimal256(dtype) or pa.types.is_duration(dtype) for dtype in schema.types):
        parquet.close()
        return ParquetRelation(connection, file, schema.names, is_empty=not parquet.metadata.num_rows)
    batches = pa.RecordBatchReader.from_batches(schema, parquet.iter_batches())
    return StreamRelation(connection, batches, str(file))


def source_name(source: Source) -> str:
    """Return the name of a source for errors."""
    return str(source) if isinstance(source, Path | str | Location) else f"the {type(source).__name__}"


def missing_column(source: str, name: str, names: Sequence[str]) -> InputError:
    """Return the error for a missing column; it lists the existing ones."""
    if not names:
        return InputError(
            f"{source} has no columns; expected {name!r}: of JSON in objects, one per line or all in an array; of a "
            "query in its answer"
        )
    plain = {re.sub("[^a-z0-9]", "", known.lower()): known for known in names}
    close = [plain[key] for key in difflib.get_close_matches(re.sub("[^a-z0-9]", "", name.lower()), plain, n=1)]
    guess = f"; did you mean {close[0]!r}?" if close else ""
    columns = ", ".join(map(repr, names))
    return InputError(f"{source} has no column {name!r}; its columns are {columns}{guess}")
