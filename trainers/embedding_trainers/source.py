"""Files with rows: Parquet, CSV, JSON lines, or a folder of Parquet, to one Arrow table."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.json

from feast_embeddings.errors import InputError

__all__ = ["missing_column", "read_table"]

_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")


def read_table(path: Path, *, select: Callable[[list[str]], Sequence[str]], ids: Collection[str]) -> pa.Table:
    """Read the columns that `select` picks from the names of the columns there are.

    Parquet and JSON know text from numbers. CSV does not, so there a column of `ids` holds whole numbers if
    each value is written as one in the plain way, and text otherwise (``007`` stays ``007``). An empty field
    of a CSV file is a null, nothing else is.

    Raises:
        InputError: no such file, not of its format, no columns or no rows; or what `select` raises.
    """
    kind, read = _reader(path)

    def select_once(names: list[str]) -> Sequence[str]:
        selected = select(names)
        if twice := next((name for name in selected if names.count(name) > 1), None):
            raise InputError(f"{path} has two columns {twice!r}; rename one")
        return selected

    try:
        table = read(path, select_once, ids)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        hint = "; expected one JSON object a line" if kind == "JSON lines" else ""
        raise InputError(f"{path} cannot be read as {kind}: {reason}{hint}") from None
    if table.num_rows == 0:
        raise InputError(f"{path} has no rows")
    return table


def missing_column(path: Path, name: str, names: Sequence[str]) -> InputError:
    """The error for a column that is not there; it names those that are."""
    close = difflib.get_close_matches(name, names, n=1)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    return InputError(f"{path} has no column {name!r}; its columns are {', '.join(map(repr, names))}{guess}")


_Select = Callable[[list[str]], Sequence[str]]
_Read = Callable[[Path, _Select, Collection[str]], pa.Table]


def _reader(path: Path) -> tuple[str, _Read]:
    if not path.exists():
        raise InputError(f"{path} does not exist")
    suffix = path.suffix.lower()
    if path.is_dir() or suffix == ".parquet":
        return "Parquet", _read_parquet
    if suffix == ".csv":
        return "CSV", _read_csv
    if suffix in _JSON_SUFFIXES:
        return "JSON lines", _read_json
    raise InputError(
        f"{path}: cannot tell the format from the name; expected .parquet, .csv, "
        f"{', '.join(_JSON_SUFFIXES)}, or a folder of .parquet files"
    )


def _read_parquet(path: Path, select: _Select, ids: Collection[str]) -> pa.Table:
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} is a folder without .parquet files")
    # partitioning=None: otherwise Arrow reads columns out of folder names such as "day=1".
    dataset = pa.dataset.dataset([str(file) for file in files], format="parquet", partitioning=None)
    return dataset.to_table(columns=list(select(dataset.schema.names)))


def _read_csv(path: Path, select: _Select, ids: Collection[str]) -> pa.Table:
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    with pa.csv.open_csv(path, parse_options=parse) as header:
        columns = list(select(header.schema.names))
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


def _read_json(path: Path, select: _Select, ids: Collection[str]) -> pa.Table:
    table = pa.json.read_json(path)
    return table.select(list(select(table.column_names)))


def _whole_numbers_if_all_are(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        numbers = column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column
    return numbers if numbers.cast(pa.string()).equals(column) else column
