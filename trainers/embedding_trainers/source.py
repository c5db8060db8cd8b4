"""Rows from files or frames as Arrow tables: Parquet, CSV, JSON lines, a folder of Parquet, or anything in memory
that speaks Arrow's C stream interface, as tables of Arrow, pandas, polars and DuckDB do."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from embedding_trainers.vocabulary import exact_cast
from feast_embeddings.errors import InputError

__all__ = ["ArrowStream", "Source", "missing_column", "read_pieces", "read_table", "source_name"]

PIECE_ROWS = 1 << 22
_BATCH_ROWS = 1 << 20
_READ_BYTES = 1 << 20
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")


class ArrowStream(Protocol):
    """Arrow's PyCapsule interface: https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html"""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


Source = Path | str | ArrowStream


def read_pieces(
    source: Source, *, select: Callable[[list[str]], Sequence[str]], ids: Collection[str]
) -> Iterator[pa.Table]:
    """Read the columns that `select` picks from the names of the columns there are, some million rows at a time.

    Parquet and streams are never in memory as a whole. Parquet and JSON know text from numbers. CSV does not,
    so there a column of `ids` holds whole numbers if each value is written as one in the plain way, and text
    otherwise (``007`` stays ``007``). An empty field of a CSV file is a null, nothing else is.

    Raises:
        InputError: no such file, not of its format, no columns or no rows; or what `select` raises.
    """
    name = source_name(source)

    def select_once(names: list[str]) -> list[str]:
        selected = list(select(names))
        if twice := next((column for column in selected if names.count(column) > 1), None):
            raise InputError(f"{name} has two columns {twice!r}; rename one")
        return selected

    kind, read = _reader(source)
    rows = 0
    try:
        for piece in _regroup(read(select_once, ids)):
            rows += len(piece)
            yield piece
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        hint = "; expected one JSON object a line" if kind == "JSON lines" else ""
        raise InputError(f"{name} cannot be read as {kind}: {reason}{hint}") from None
    if not rows:
        raise InputError(f"{name} has no rows")


def read_table(source: Source, *, select: Callable[[list[str]], Sequence[str]], ids: Collection[str]) -> pa.Table:
    """The same in one table."""
    return pa.concat_tables(read_pieces(source, select=select, ids=ids))


def source_name(source: Source) -> str:
    """What to call a source in an error."""
    return str(source) if isinstance(source, Path | str) else f"the {type(source).__name__}"


def missing_column(source: Source, name: str, names: Sequence[str]) -> InputError:
    """The error for a column that is not there; it names those that are."""
    close = difflib.get_close_matches(name, names, n=1)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    columns = ", ".join(map(repr, names))
    return InputError(f"{source_name(source)} has no column {name!r}; its columns are {columns}{guess}")


_Select = Callable[[list[str]], list[str]]
_Read = Callable[[_Select, Collection[str]], Iterable[pa.RecordBatch]]


def _reader(source: Source) -> tuple[str, _Read]:
    if not isinstance(source, Path | str):
        if not hasattr(source, "__arrow_c_stream__"):
            raise InputError(
                "expected a path, or a table of Arrow, pandas, polars or DuckDB (anything with __arrow_c_stream__), "
                f"but got {type(source).__name__}"
            )
        return "an Arrow stream", lambda select, ids: _read_stream(source, select)
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path} does not exist")
    suffix = path.suffix.lower()
    if path.is_dir() or suffix == ".parquet":
        return "Parquet", lambda select, ids: _read_parquet(path, select)
    if suffix == ".csv":
        return "CSV", lambda select, ids: _read_csv(path, select, ids).to_batches()
    if suffix in _JSON_SUFFIXES:
        return "JSON lines", lambda select, ids: _read_json(path, select).to_batches()
    raise InputError(
        f"{path}: cannot tell the format from the name; expected .parquet, .csv, "
        f"{', '.join(_JSON_SUFFIXES)}, or a folder of .parquet files"
    )


def _read_parquet(path: Path, select: _Select) -> Iterator[pa.RecordBatch]:
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} is a folder without .parquet files")
    schema: pa.Schema | None = None
    for file in files:
        # A file at a time through a small buffer: Arrow's dataset reads row groups ahead, 15 times the memory.
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=_READ_BYTES) as parquet:
            names = parquet.schema_arrow.names
            columns = select(names) if schema is None else schema.names
            if absent := [column for column in columns if column not in names]:
                raise missing_column(file, absent[0], names)
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
                batch = batch.select(columns)
                schema = schema or batch.schema
                yield batch.cast(schema)


def _read_stream(source: ArrowStream, select: _Select) -> Iterator[pa.RecordBatch]:
    reader = pa.RecordBatchReader.from_stream(source)
    columns = select(reader.schema.names)
    return (batch.select(columns) for batch in reader)


def _read_csv(path: Path, select: _Select, ids: Collection[str]) -> pa.Table:
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    with pa.csv.open_csv(path, parse_options=parse) as header:
        columns = select(header.schema.names)
    convert = pa.csv.ConvertOptions(
        include_columns=columns,
        column_types={name: pa.string() for name in ids if name in columns},
        null_values=[""],
        strings_can_be_null=True,
    )
    table = pa.csv.read_csv(path, parse_options=parse, convert_options=convert)
    for number, name in enumerate(table.column_names):
        if name in ids:
            table = table.set_column(number, name, _whole_numbers_if_all_are(table[name]))
    return table


def _read_json(path: Path, select: _Select) -> pa.Table:
    table = pa.json.read_json(path)
    return table.select(select(table.column_names))


def _regroup(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Small batches together and large ones in parts, so that each piece is worth its overhead and bounded."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        for start in range(0, len(batch), PIECE_ROWS):
            held.append(batch.slice(start, PIECE_ROWS))
            rows += len(held[-1])
            if rows >= PIECE_ROWS:
                yield pa.Table.from_batches(held)
                held, rows = [], 0
    if held:
        yield pa.Table.from_batches(held)


def _whole_numbers_if_all_are(column: pa.ChunkedArray) -> pa.ChunkedArray:
    numbers = exact_cast(column, pa.int64())
    return column if numbers is None else numbers
