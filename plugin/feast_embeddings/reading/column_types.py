"""The types that columns of a table may have, and the conversion of text to them."""

from __future__ import annotations

from typing import Literal, get_args

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.artifact.table import WHOLE_NUMBER
from feast_embeddings.errors import InputError
from feast_embeddings.reading.expressions import iso_time
from feast_embeddings.reading.faults import shortened

ColumnType = Literal["text", "int", "float", "bool", "time"]
_COLUMN_TYPES: tuple[ColumnType, ...] = get_args(ColumnType)

_ARROW: dict[ColumnType, pa.DataType] = {
    "text": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "time": pa.timestamp("us", "UTC"),
}
_FEW_WORDS = 2  # next to numbers; more are a code, as a size of clothes
_NOUNS = {"int": "a whole number", "float": "a number", "bool": "true or false", "time": "a time in ISO 8601"}

# The spelling that makes a column of text numbers: only the canonical one, so that a zip code, an article code such as
# 4E3, a telephone number and an id of 20 digits stay text.
_WHOLE = f"^{WHOLE_NUMBER}$"
_REAL = r"^-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-][0-9]+)?$"
_BOOL = r"^(true|false|True|False|TRUE|FALSE)$"
_TIME = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?"
    r"( ?UTC|Z|[+-][0-9]{2}(:?[0-9]{2})?)?)?$"
)


def plainest(connection: duckdb.DuckDBPyConnection, column: pa.ChunkedArray) -> ColumnType:
    """Return the narrowest type that every value of a column of text is written in."""
    values = column.drop_null()
    if not len(values):
        return "text"

    def all_match(pattern: str) -> bool:
        return bool(pc.all(pc.match_substring_regex(values, pattern)).as_py())

    if all_match(_REAL):
        whole = values.filter(pc.match_substring_regex(values, _WHOLE))
        try:
            numbers = whole.cast(pa.int64())
        except pa.ArrowInvalid:
            return "text"  # too long for a number
        if len(whole) == len(values):
            return "int"
        exact = pc.all(pc.less_equal(pc.abs(numbers), 2**53)).as_py()
        return "text" if exact is False else "float"
    if all_match(_BOOL):
        return "bool"
    if not all_match(_TIME):
        return "text"
    connection.register("column", pa.table({"x": values}))
    found = connection.execute(f'SELECT bool_and(({iso_time("x")}) IS NOT NULL) FROM "column"').fetchall()  # noqa: S608
    return "time" if found[0][0] else "text"


def not_quite_numbers(column: pa.ChunkedArray) -> int | None:
    """Return the first row because of which a column of numbers is text: a word, as ``N/A``, or a decimal comma.

    None if no value is a number, if there are many words, or a value is neither, as in a column of codes.
    """
    values = column.fill_null("")

    def matching(pattern: str) -> npt.NDArray[np.bool_]:
        return np.asarray(pc.match_substring_regex(values, pattern))

    numbers, commas, empty = matching(_REAL), matching(r"^-?([0-9]{1,3}(\.[0-9]{3})*|[0-9]+),[0-9]+$"), matching("^$")
    words = ~empty & ~matching("[0-9]")
    if not (numbers | commas).any() or not (numbers | commas | empty | words).all():
        return None
    odd = np.flatnonzero(commas | words)
    few = pc.count_distinct(values.filter(pa.array(words))).as_py() <= _FEW_WORDS
    return int(odd[0]) if few and len(odd) else None


def converted(
    connection: duckdb.DuckDBPyConnection, column: pa.ChunkedArray, wanted: ColumnType, what: str
) -> pa.ChunkedArray:
    """Convert a column to a type; the error names the first value that does not fit."""
    if column.type == _ARROW[wanted]:
        return column
    connection.register("column", pa.table({"x": column}))
    target = {"text": "VARCHAR", "int": "BIGINT", "float": "DOUBLE", "bool": "BOOLEAN", "time": "TIMESTAMPTZ"}[wanted]
    is_text = pa.types.is_string(column.type)
    value = f"TRY_CAST(x AS {target})"
    if wanted == "time" and is_text:
        value = iso_time("x")
    if wanted in ("int", "float", "bool") and is_text:
        value = f"CASE WHEN NOT contains(x, '_') THEN {value} END"  # DuckDB reads 1_0 as 10
    if wanted == "int" and is_text:
        # DuckDB would round 1.5; pandas writes 1.0 for a whole number if another is missing.
        value = f"CASE WHEN regexp_full_match(x, '[+-]?[0-9]+(\\.0*)?') THEN {value} END"
    elif wanted == "int" and pa.types.is_floating(column.type):
        value = f"CASE WHEN x = trunc(x) THEN {value} END"
    converted = connection.sql(
        f'SELECT {value} AS y, CASE WHEN {value} IS NULL THEN CAST(x AS VARCHAR) END AS bad FROM "column"'  # noqa: S608
    ).to_arrow_table()
    bad = converted["bad"]
    if bad.null_count < len(bad):
        row = pc.index(pc.is_valid(bad), True).as_py()
        name = what.rpartition("column ")[2].strip("'")
        raise InputError(
            f"{what}: {len(bad) - bad.null_count:,} of {len(bad):,} values are not {_NOUNS.get(wanted, wanted)}, first "
            f"in row {row + 1}: {shortened(bad[row].as_py())!r}; correct them, or use --attribute-types {name}=text"
        )
    return converted["y"].cast(_ARROW[wanted])


def parse_types(text: str, option: str) -> dict[str, ColumnType]:
    """Read ``price=float,zip=text``.

    Raises:
        InputError: the text is malformed, repeats a name, or has an unknown type.
    """
    types: dict[str, ColumnType] = {}
    for part in text.split(","):
        name, _, word = part.rpartition("=")
        name, word = name.strip(), word.strip()
        if not name or word not in _COLUMN_TYPES:
            raise InputError(f"{option} {part!r}: expected NAME=TYPE, with a type of {', '.join(_COLUMN_TYPES)}")
        if name in types:
            raise InputError(f"{option} gives {name!r} twice")
        types[name] = word
    return types
