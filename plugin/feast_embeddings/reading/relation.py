"""A file, or a table in memory, as DuckDB reads it: its columns, the FROM clause, and the rows that it skips."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import duckdb
import pyarrow as pa

from feast_embeddings.artifact.plain_columns import plain, plain_type
from feast_embeddings.errors import InputError
from feast_embeddings.reading.expressions import NULL, identifier, quoted
from feast_embeddings.reading.faults import first_line
from feast_embeddings.reading.files import DataFile

# The index that pandas writes in addition to the columns of a frame that was filtered or sorted.
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")


class ArrowStream(Protocol):
    """Arrow's PyCapsule interface: https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html"""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


@dataclass(frozen=True)
class BadRow:
    """A row that the reader of a format skips: its fault, place, and raw text."""

    kind: str
    place: str
    text: str


class Relation(Protocol):
    """One file, or a table in memory.

    Attributes:
        name: its name in errors.
        format: the format it is read as.
        names: its columns; for JSON the keys of the first objects.
    """

    @property
    def name(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def names(self) -> Sequence[str]: ...

    def type_of(self, column: str) -> str | None:
        """Return DuckDB's type, ``TEXT`` for untyped text, or ``JSON``; None for a missing column."""

    def sql_of(self, column: str) -> str:
        """Return SQL for an existing column."""

    def source(self, columns: Sequence[str]) -> str:
        """Return the FROM clause for these columns."""

    def bad_rows(self, rows: int) -> list[BadRow]:
        """Return the rows that the reader skipped in the last scan, which returned `rows` rows.

        Raises:
            InputError: rows are lost, and it is unknown which.
        """

    def row_of(self, row: int) -> int:
        """Return the number in the file of the `row`-th good row of the last scan, both counted from 1."""


class ParquetRelation:
    """A Parquet file.

    Args:
        names: its columns.
        is_empty: whether it has no rows.
    """

    format = "Parquet"

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, file: DataFile, names: Sequence[str], *, is_empty: bool
    ) -> None:
        self.name = str(file)
        self._source = f"read_parquet({path_literal(file.path)}, hive_partitioning = false)"
        # DuckDB renames columns whose names differ only in case, but keeps the order of the file.
        described = connection.execute(f"DESCRIBE SELECT * FROM {self._source}").fetchall()  # noqa: S608
        self._columns = {
            # The types of a part without rows are pandas' defaults.
            name: (identifier(known), NULL if is_empty else dtype)
            for name, (known, dtype, *_) in zip(names, described, strict=True)
            if not _PANDAS_INDEX.fullmatch(name)
        }
        # With names that occur twice, which are refused.
        self.names = [name for name in names if name in self._columns]

    def type_of(self, column: str) -> str | None:
        return self._columns[column][1] if column in self._columns else None

    def sql_of(self, column: str) -> str:
        return self._columns[column][0]

    def source(self, columns: Sequence[str]) -> str:
        return self._source

    def bad_rows(self, rows: int) -> list[BadRow]:
        return []

    def row_of(self, row: int) -> int:
        return row


class StreamRelation:
    """A table in memory with Arrow's C stream interface. It can be read once."""

    format = "an Arrow stream"

    def __init__(self, connection: duckdb.DuckDBPyConnection, stream: ArrowStream, name: str) -> None:
        if not hasattr(stream, "__arrow_c_stream__"):
            raise InputError(
                "expected a path, or a table of Arrow, pandas, polars or DuckDB (anything with __arrow_c_stream__), "
                f"but got {type(stream).__name__}"
            )
        self.name = name
        self._connection = connection
        try:
            self._reader = pa.RecordBatchReader.from_stream(stream)
        except (pa.ArrowException, ValueError, OverflowError, TypeError, duckdb.Error) as error:
            # Here pandas converts its object columns, and DuckDB runs its query.
            if isinstance(error, duckdb.Error):
                reason = first_line(error)
            else:
                said = str(error) if isinstance(error, UnicodeError) else " ".join(map(str, error.args))
                reason = f"{said.rstrip('.')}; give each column values of one type that Arrow supports, or leave it out"
            raise InputError(f"{self.name} cannot be read as {self.format}: {reason}") from None
        self.names = [name for name in self._reader.schema.names if not _PANDAS_INDEX.fullmatch(name)]

    def type_of(self, column: str) -> str | None:
        if column not in self.names:
            return None
        field = self._reader.schema.field(self._reader.schema.names.index(column))
        try:
            empty = pa.schema([("x", _readable(field.type))]).empty_table()
        except pa.ArrowNotImplementedError:
            return str(field.type)
        self._connection.register("empty", empty)
        dtype: str = self._connection.execute("DESCRIBE SELECT x FROM empty").fetchall()[0][1]
        return dtype

    def sql_of(self, column: str) -> str:
        return identifier(f"c{self.names.index(column)}")

    def source(self, columns: Sequence[str]) -> str:
        schema = self._reader.schema
        places = [schema.names.index(column) for column in columns]
        chosen = pa.schema(
            [
                (f"c{self.names.index(name)}", _readable(schema.field(place).type))
                for name, place in zip(columns, places, strict=True)
            ]
        )

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in self._reader:
                arrays = [batch.column(place) for place in places]
                arrays = [plain(array).cast(field.type) for array, field in zip(arrays, chosen, strict=True)]
                for name, array in zip(columns, arrays, strict=True):
                    _refuse_broken_text(name, array)
                yield pa.record_batch(arrays, schema=chosen)

        self._connection.register("stream", pa.RecordBatchReader.from_batches(chosen, batches()))
        return "stream"

    def bad_rows(self, rows: int) -> list[BadRow]:
        return []

    def row_of(self, row: int) -> int:
        return row


def path_literal(path: Path) -> str:
    """Quote a path as a SQL literal, with glob characters escaped, because DuckDB reads paths as globs."""
    return quoted(re.sub(r"([*?\[])", r"[\1]", str(path)))


def _refuse_broken_text(name: str, array: pa.Array) -> None:
    """Raise `pa.ArrowInvalid` if text is not UTF-8, which neither Arrow nor DuckDB check by default."""
    try:
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise pa.ArrowInvalid(f"column {name!r}: {error}") from None


def _readable(dtype: pa.DataType) -> pa.DataType:
    """Return the type, or a type with the same values that DuckDB supports."""
    dtype = plain_type(dtype)
    if pa.types.is_float16(dtype):
        return pa.float32()
    if pa.types.is_decimal(dtype) and dtype.scale < 0:
        digits = dtype.precision - dtype.scale
        return pa.decimal128(digits, 0) if digits <= 38 else pa.string()
    if pa.types.is_decimal256(dtype):
        # Real numbers must not look like text, which could be an id. More than 38 digits before the point are an error.
        is_real = 0 < dtype.scale < 38
        return pa.decimal128(min(38, dtype.precision), dtype.scale) if is_real or dtype.precision <= 38 else pa.string()
    return dtype
