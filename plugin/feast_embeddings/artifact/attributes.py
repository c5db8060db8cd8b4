"""Attribute columns: which types of a user's or item's table Feast and Qdrant support, and their types there.

One table of types serves the artifact (Arrow), the feature views (Feast) and the payload (Qdrant), so that a
column accepted at training can be served and filtered on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.artifact.plain_columns import plain, plain_type
from feast_embeddings.artifact.seen import NEXT_TO_SEEN, SEEN
from feast_embeddings.errors import InputError

__all__ = [
    "BEHAVIOUR",
    "BOTH",
    "CONTENT",
    "CONTENT_EMBEDDING",
    "RESERVED_COLUMNS",
    "SOURCE",
    "TIMESTAMP",
    "feast_type_name",
    "normalise_attributes",
]

SOURCE = "source"
"""The attribute that says what a vector was made of, where content makes some: one of the three below."""
BEHAVIOUR, CONTENT, BOTH = "behaviour", "content", "both"
CONTENT_EMBEDDING = "content_embedding"
"""The column of what content alone says: vectors of length 1, null where it says nothing."""

# Columns of the data contract; an attribute may not take one of these names.
RESERVED_COLUMNS = frozenset(
    {
        "user_id",
        "item_id",
        "embedding",
        CONTENT_EMBEDDING,
        "bias",
        "n_interactions",
        SEEN,
        *NEXT_TO_SEEN,
        "event_timestamp",
        "created_timestamp",
        "version",
        "space",
    }
)

TIMESTAMP = pa.timestamp("us", tz="UTC")
# The range of Python's datetime.
_FIRST_TIME = pa.scalar(datetime.min).cast(pa.int64())
_LAST_TIME = pa.scalar(datetime.max).cast(pa.int64())


@dataclass(frozen=True)
class _AttributeType:
    feast: str
    """Name of the type in `feast.types`, e.g. ``Float64`` or ``Array(String)``."""
    accepts: Callable[[pa.DataType], bool]


def _is_text(dtype: pa.DataType) -> bool:
    # A column without values has Arrow's null type; text is the least surprising choice for it.
    return bool(pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_null(dtype))


def _is_list_of(accepts: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    def check(dtype: pa.DataType) -> bool:
        return bool((pa.types.is_list(dtype) or pa.types.is_large_list(dtype)) and accepts(dtype.value_type))

    return check


# Stored Arrow type -> its Feast type, and the Arrow types that are cast to it.
_TYPES: dict[pa.DataType, _AttributeType] = {
    pa.string(): _AttributeType("String", _is_text),
    pa.int64(): _AttributeType("Int64", pa.types.is_integer),
    pa.float64(): _AttributeType("Float64", lambda t: pa.types.is_floating(t) or pa.types.is_decimal(t)),
    pa.bool_(): _AttributeType("Bool", pa.types.is_boolean),
    TIMESTAMP: _AttributeType("UnixTimestamp", lambda t: pa.types.is_timestamp(t) or pa.types.is_date(t)),
    pa.list_(pa.string()): _AttributeType("Array(String)", _is_list_of(_is_text)),
    pa.list_(pa.int64()): _AttributeType("Array(Int64)", _is_list_of(pa.types.is_integer)),
}


def feast_type_name(dtype: pa.DataType) -> str:
    """Return the name in `feast.types` of a column's type in an artifact."""
    return next(spec.feast for spec in _TYPES.values() if spec.accepts(dtype))


def normalise_attributes(attributes: pa.Table, *, source: str) -> pa.Table:
    """Cast every attribute column to one of the types that can be served.

    Args:
        attributes: one row per user or item, without the id column.
        source: name of the table in errors, e.g. a file name.

    Raises:
        InputError: a column has a reserved name or a type that cannot be served.
    """
    columns = {}
    if len(set(attributes.column_names)) < attributes.num_columns:
        raise InputError(f"{source}: two columns have the same name; rename one")
    for name, column in zip(attributes.column_names, attributes.columns, strict=True):
        if name in RESERVED_COLUMNS or name.startswith("_"):
            raise InputError(
                f"{source}: the column name {name!r} is reserved "
                f"(reserved: {', '.join(sorted(RESERVED_COLUMNS))}, and names that start with '_'); rename it"
            )
        if not name:
            raise InputError(f"{source}: a column has no name (a CSV file with a row index?); name it or drop it")
        columns[name] = _cast(_plain(column), f"{source}: column {name!r}")
    return pa.table(columns)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([plain(chunk) for chunk in column.chunks], plain_type(column.type))


def _cast(column: pa.ChunkedArray, what: str) -> pa.ChunkedArray:
    if pa.types.is_uint64(column.type) or (pa.types.is_decimal(column.type) and column.type.scale <= 0):
        column = _whole_numbers(column)
    for target, spec in _TYPES.items():
        if not spec.accepts(column.type):
            continue
        try:
            if target == TIMESTAMP:
                return _times(column, what)
            if target == pa.float64() and column.type != pa.float64():
                # Via text: a float32 of 0.3 is 0.30000001192… as a float64, and Arrow converts a decimal 19.99 to
                # 19.990000000000002.
                return (
                    column.cast(pa.float32() if pa.types.is_float16(column.type) else column.type)
                    .cast(pa.string())
                    .cast(target)
                )
            if pa.types.is_list(target):
                _refuse_nulls_within(column, what)
            return column.cast(target)
        except pa.ArrowInvalid as error:
            raise InputError(f"{what} does not fit {target}: {error}; correct it, or leave the column out") from None
    raise InputError(
        f"{what} has type {column.type}, which cannot be served; expected text, a whole or real number, "
        "true/false, a date or time, or a list of text or whole numbers; convert it or leave it out"
    )


def _times(column: pa.ChunkedArray, what: str) -> pa.ChunkedArray:
    """Convert to whole seconds in UTC, rounded down: Feast's type holds no more, and values must be the same online
    and offline. A time without a zone is UTC, as everywhere in Feast.
    """
    zone = column.type.tz if pa.types.is_timestamp(column.type) else None
    is_finer = column.type == pa.timestamp("ns", zone)
    times = column.cast(pa.timestamp("us", zone), safe=not is_finer).cast(pa.int64())
    outside = pc.or_(pc.less(times, _FIRST_TIME), pc.greater(times, _LAST_TIME))
    if (place := pc.index(outside, True).as_py()) >= 0:
        raise InputError(
            f"{what}: {pc.sum(outside).as_py():,} times before the year 1 or after the year 9999, first in row "
            f"{place + 1}; correct them, or leave the column out"
        )
    return pc.floor_temporal(times.cast(TIMESTAMP), unit="second")


def _whole_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert to whole numbers, or to their text if one has more than 64 bits."""
    if pa.types.is_decimal(column.type) and column.type.scale < 0:
        # Otherwise their text would be 1.2E+3.
        column = column.cast(pa.decimal256(column.type.precision - column.type.scale, 0))
    text = column.cast(pa.string())
    try:
        return text.cast(pa.int64())
    except pa.ArrowInvalid:
        return text


def _refuse_nulls_within(column: pa.ChunkedArray, what: str) -> None:
    flat = pc.list_flatten(column)
    if flat.null_count:
        parents = pc.list_parent_indices(column)
        row = parents.filter(pc.is_null(flat))[0].as_py()
        raise InputError(
            f"{what}: {flat.null_count:,} nulls within lists, first in row {row + 1}; Feast's lists cannot hold "
            "nulls: leave them out, or write a placeholder"
        )
