"""The values of a log's columns in Spark: what each becomes by the rules of docs/input.md, or why it cannot be used."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedding_trainers.spark.session import functions
from feast_embeddings.artifact.table import WHOLE_NUMBER
from feast_embeddings.errors import InputError
from feast_embeddings.reading import IdType
from feast_embeddings.reading.expressions import FIRST_SECOND, IN_DIGITS, LAST_SECOND, LAST_TIME

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

__all__ = ["Value", "event_value", "id_value", "time_value", "weight_value"]

_WHOLE = ("tinyint", "smallint", "int", "bigint")
_FLOAT_MAX = 3.4028234663852886e38  # trainers use float32


@dataclass(frozen=True)
class Value:
    """A column, converted.

    Attributes:
        raw: as it is in the log.
        value: null if it cannot be used.
        faults: kinds of faults with their conditions; the first that is true holds.
    """

    raw: Column
    value: Column
    faults: list[tuple[str, Column]]


def id_value(log: DataFrame, name: str, wanted: IdType | None) -> Value:
    """Make ids text or int64; None keeps what they are.

    Raises:
        InputError: the column holds neither text nor whole numbers.
    """
    F = functions()  # noqa: N806 (Spark's usual name)
    raw, dtype = _raw(log, name)
    is_text = dtype == "string" or dtype.startswith(("varchar", "char"))
    if not is_text and dtype not in _WHOLE:
        raise InputError(
            f"column {name!r}: ids must be text or whole numbers of 64 bits, but the type is {dtype}; cast it first"
        )
    if is_text and wanted == "int":
        value = F.when(raw.rlike(f"^({WHOLE_NUMBER})$"), raw.try_cast("bigint"))
    else:
        value = raw.cast("string" if is_text or wanted == "text" else "bigint")
    faults = [(f"without {name}", raw.isNull())]
    if is_text:
        faults.append((f"whose {name} is empty", raw == ""))
    return Value(raw, value, [*faults, (f"whose {name} is not a whole number of 64 bits", value.isNull())])


def time_value(log: DataFrame, name: str, latest: int | None) -> Value:
    """Make timestamps, dates or numbers since 1970 microseconds since 1970 in UTC.

    Args:
        latest: the last microsecond that is not in the future; None for no limit.

    Raises:
        InputError: the column holds something else.
    """
    F = functions()  # noqa: N806
    raw, dtype = _raw(log, name)
    if dtype == "timestamp":
        value = F.unix_micros(raw)
    elif dtype == "timestamp_ntz":
        # Not by a cast to timestamp, which would depend on the time zone of the session.
        since = (raw - F.expr("TIMESTAMP_NTZ'1970-01-01 00:00:00'")).cast("interval second")
        value = (since.cast("decimal(20, 6)") * 1_000_000).cast("bigint")
    elif dtype == "date":
        value = F.unix_date(raw).cast("bigint") * 86_400_000_000
    elif dtype in _WHOLE:
        value = _of_number(raw.cast("decimal(38, 0)"))
    else:
        raise InputError(
            f"column {name!r}: expected a timestamp, a date or a whole number since 1970, but the type is {dtype}; "
            "cast it first"
        )
    last = min(LAST_TIME, LAST_TIME if latest is None else latest)
    why = "after the year 9999" if last == LAST_TIME else "in the future (--allow-future keeps them)"
    faults = [
        (f"without {name}", raw.isNull()),
        (f"whose {name} is not a time", value.isNull()),
        (f"whose {name} is 1970-01-01 or before", value <= 0),
        (f"whose {name} is {why}", value > last),
    ]
    return Value(raw, value, faults)


def weight_value(log: DataFrame, name: str) -> Value:
    """Make weights float, finite and not negative.

    Raises:
        InputError: the column does not hold numbers.
    """
    F = functions()  # noqa: N806
    raw, dtype = _raw(log, name)
    if dtype not in (*_WHOLE, "float", "double") and not dtype.startswith("decimal"):
        raise InputError(f"column {name!r}: weights must be numbers, but the type is {dtype}; cast it first")
    value = raw.cast("double")
    faults = [
        (f"without {name}", raw.isNull()),
        (f"whose {name} is not a finite number", F.isnan(value) | (F.abs(value) > _FLOAT_MAX)),
        (f"whose {name} is negative", value < 0),
    ]
    return Value(raw, value.cast("float"), faults)


def event_value(log: DataFrame, name: str, known: Collection[str]) -> Value:
    """Make event types text, each with a weight."""
    raw, _ = _raw(log, name)
    value = raw.cast("string")
    faults = [
        (f"without {name}", value.isNull() | (value == "")),
        (f"whose {name} has no weight (--event-weights)", ~value.isin(list(known))),
    ]
    return Value(raw, value, faults)


def _raw(log: DataFrame, name: str) -> tuple[Column, str]:
    column = log["`" + name.replace("`", "``") + "`"]
    return column, dict(log.dtypes)[name]


def _of_number(number: Column) -> Column:
    """Seconds, milliseconds, microseconds or nanoseconds since 1970, by their range."""
    F = functions()  # noqa: N806

    def big(value: int) -> Column:  # a literal of Python has 64 bits
        literal: Column = F.lit(str(value)).cast("decimal(38, 0)")
        return literal

    value: Column = F.lit(None)
    for scale in (1, 1000, 1_000_000, 1_000_000_000):
        within = (number >= big(FIRST_SECOND * scale)) & (number < big(LAST_SECOND * scale))
        if scale == 1000:
            within &= ~number.between(*(big(limit) for limit in IN_DIGITS))
        micros = number * (1_000_000 // scale) if scale <= 1_000_000 else F.floor(number / 1000)
        value = F.when(within, micros.cast("bigint")).otherwise(value)
    return value
