"""Build DuckDB expressions that convert a raw column to ids, times, numbers or text, and describe faults.

Each takes one column and returns SQL. A value that cannot be used becomes null, and its fault is text: the kind, a
separator, and the raw value.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from feast_embeddings.artifact.table import WHOLE_NUMBER
from feast_embeddings.errors import InputError

IdType = Literal["text", "int"]
IdKind = Literal["text", "int", "json", "null"]

SEPARATOR, RECORD = "\x1f", "\x1e"
# DuckDB's type of a column without a value.
NULL = '"NULL"'
UNITS = ("", "seconds", "milliseconds", "microseconds", "nanoseconds")

_NARROW = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_WIDE = ("UBIGINT", "HUGEINT", "UHUGEINT")
_MOST_SHOWN = 80

# 1990-01-01 in seconds. The range of a number gives its unit: seconds from 1990 to 5138, milliseconds likewise, and so
# on; numbers between these ranges, such as dates written as one number, have none.
FIRST_SECOND = 631_152_000
LAST_SECOND = 10**11
# The end of the year 9999, the last time of Python.
LAST_TIME = 253_402_300_799_999_999
# Dates and times in digits only would be milliseconds of the years 2600 to 2635.
IN_DIGITS = (19_900_101_000_000, 21_001_231_235_959)
_DIGITS = "(19|20)[0-9]{6}([0-9]{4}([0-9]{2})?)?"
# Dates as people write them: 31.01.2026, 1/31/26 10:13 PM, Sat, 31 Jan 2026.
_LOCAL = (
    "(?i)[0-9]{1,2}[./-][0-9]{1,2}[./-][0-9]{2,4}([^0-9].*)?"
    "|.*(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[ .,/-].*[0-9]{2}.*"
)
# The end of a time in capitals: a zone that means the same everywhere, or an offset that some clock has.
_ZONE = "[0-9. ](UTC|GMT|[A-Z]+/[A-Z0-9_/+-]+)$|[ T][0-9:.]+[+-](0?[0-9]|1[0-4])(:?[0-5][0-9]){0,2}$"
# In addition to DuckDB's own cast, which reads most of ISO 8601 with or without a zone.
_MORE_FORMS = (
    "%Y%m%dT%H%M%S%z",
    "%Y%m%dT%H%M%SZ",
    "%Y%m%dT%H%M%S",
    "%Y%m%dT%H%MZ",
    "%Y%m%dT%H%M",
    "%Y-%m-%d %H",
    "%Y-%m-%dT%H",
    "%Y-%m-%dT%HZ",
    "%G-W%V-%u",
    "%Y-%j",
)


@dataclass(frozen=True)
class Column:
    """A column of one file.

    Attributes:
        name: its name in the file.
        sql: an expression for it, cheap to repeat.
        result: the name of the converted value in expressions for faults.
        type: DuckDB's type; ``TEXT`` for untyped text, as in CSV; ``JSON``.
    """

    name: str
    sql: str
    type: str
    result: str

    @property
    def base(self) -> str:
        """DuckDB's type without its parameters."""
        return self.type.partition("(")[0]

    @property
    def text(self) -> str:
        """SQL for the raw value as text."""
        return f"({self.sql} ->> '$')" if self.type == "JSON" else f"CAST({self.sql} AS VARCHAR)"


@dataclass(frozen=True)
class Expression:
    """SQL for the values of a column.

    Attributes:
        value: the value, null if it cannot be used.
        bad: whether a value cannot be used, cheap for every row; uses the column's `result`.
        fault: the fault of such a value; uses the column's `sql` and `result`.
        extra: additional facts, if any: the unit of a time as an index of `UNITS`, or whether a JSON id is a number.
    """

    value: str
    bad: str
    fault: str
    extra: str | None = None


def id_kind(column: Column, what: str) -> tuple[IdKind, bool]:
    """Return the kind of ids in a column, and whether they may be too large for int64.

    Raises:
        InputError: they are neither text nor whole numbers.
    """
    base = column.base
    if base in ("TEXT", "VARCHAR", "UUID", "ENUM"):
        return "text", False
    if base == NULL:
        return "null", False
    if base == "JSON":
        return "json", True
    if base in _NARROW:
        return "int", False
    if base in _WIDE or base == "DECIMAL":
        return "int", True
    hint = ""
    if base in ("DOUBLE", "FLOAT"):
        hint = " (floats; pandas converts whole numbers to floats if one is missing: convert with astype('Int64'))"
    raise InputError(f"{what}: ids must be text or whole numbers, but the type is {column.type}{hint}")


def id_expression(column: Column, wanted: IdType | None, *, as_text: bool) -> Expression:
    """Build the expression for ids: exact text, or int64.

    Args:
        wanted: the type of the ids; None keeps the column's type.
        as_text: return whole numbers as text too, because they may be too large or mixed with text.
    """
    if column.base in _NARROW and not as_text:
        return Expression(f"CAST({column.sql} AS BIGINT)", f"{column.result} IS NULL", _absent(column))
    text, good = column.text, ""
    extra: str | None = None
    if column.base == "DECIMAL":
        text = f"regexp_replace({text}, '\\.0+$', '')"
        good = f"NOT contains({text}, '.')"
    elif column.base == "JSON":
        is_text = f"json_type({column.sql}) = 'VARCHAR'"
        extra = f"CAST(NOT ({is_text}) AS TINYINT)"
        good = f"({is_text} OR regexp_full_match({text}, '{WHOLE_NUMBER}'))"
    if wanted == "int":
        value = f"CASE WHEN regexp_full_match({text}, '{WHOLE_NUMBER}') THEN TRY_CAST({text} AS BIGINT) END"
        problem = f"whose {column.name} is not a whole number of 64 bits"
    else:
        value = f"nullif({text}, '')"
        value = f"CASE WHEN {good} THEN {value} END" if good else value
        problem = f"whose {column.name} is neither text nor a whole number"
    fault = _faults(
        (f"{text} IS NULL", _absent(column)),
        (f"{text} = ''", _fault(f"whose {column.name} is empty")),
        ("true", _fault(problem, column.text)),
    )
    return Expression(value, f"{column.result} IS NULL", fault, extra)


def time_expression(column: Column, form: str | None, latest: int | None) -> Expression:
    """Build the expression for times as microseconds since 1970 in UTC, int64.

    Args:
        form: strptime's pattern for text and numbers; None reads ISO 8601 and numbers since 1970.
        latest: the last microsecond that is not in the future; None for no limit.

    Raises:
        InputError: the column cannot hold times.
    """
    base, text, result = column.base, column.text, column.result
    unit: str | None = None
    if base in ("TIMESTAMP_NS", "TIMESTAMPTZ_NS"):
        # Do not use epoch_us, which rounds.
        value = f"epoch_ns({column.sql}) // 1000"
    elif base.startswith("TIMESTAMP"):
        value = _microseconds(column.sql)
    elif base == "DATE":
        value = _microseconds(f"CAST({column.sql} AS TIMESTAMP)")
    elif form is not None:
        value = _microseconds(f"try_strptime({text}, {quoted(form)})")
    elif base in (*_NARROW, *_WIDE) or column.type.endswith(",0)"):
        value, unit = _of_number(column.sql, "HUGEINT")
    elif base in ("FLOAT", "DOUBLE", "DECIMAL"):
        value, unit = _of_number(column.sql, "DOUBLE")
    elif base in ("TEXT", "VARCHAR", "ENUM", "JSON", NULL):
        value, unit = _of_text(text)
    else:
        raise InputError(
            f"column {column.name!r}: expected a timestamp, a date, ISO 8601 text or a number since 1970, but the "
            f"type is {column.type}"
        )
    of_form = "" if form is None else f" of the form {form}"
    absent = f"{text} IS NULL OR {text} = {quoted('nan' if base in ('FLOAT', 'DOUBLE') else '')}"
    in_digits, in_words = (
        f"whose {column.name} is a date {how} (give its format with --time-format, e.g. {example})"
        for how, example in (("in digits", "%Y%m%d"), ("of another form than ISO 8601", "'%d.%m.%Y %H:%M'"))
    )
    last = min(LAST_TIME, LAST_TIME if latest is None else latest)
    why = "after the year 9999" if last == LAST_TIME else "in the future (--allow-future keeps them)"
    future = f"{result} > {last}"
    fault = _faults(
        (f"{result} IS NULL AND ({absent})", _absent(column)),
        (f"{result} IS NULL AND {form is None} AND regexp_full_match({text}, '{_DIGITS}')", _fault(in_digits, text)),
        (f"{result} IS NULL AND {form is None} AND regexp_full_match({text}, '{_LOCAL}')", _fault(in_words, text)),
        (f"{result} IS NULL", _fault(f"whose {column.name} is not a time{of_form}", text)),
        (f"{result} <= 0", _fault(f"whose {column.name} is 1970-01-01 or before", text)),
        (future, _fault(f"whose {column.name} is {why}", text)),
    )
    return Expression(value, f"({result} IS NULL OR {result} <= 0 OR {future})", fault, unit)


def number_expression(column: Column) -> Expression:
    """Build the expression for weights: finite and not negative, float64.

    Raises:
        InputError: the column does not hold numbers.
    """
    base = column.base
    numbers = (*_NARROW, *_WIDE, "FLOAT", "DOUBLE", "DECIMAL")
    if base not in (*numbers, "TEXT", "JSON", "VARCHAR", "ENUM", NULL):
        raise InputError(f"column {column.name!r}: weights must be numbers, but the type is {column.type}")
    text, result = column.text, column.result
    # DuckDB reads 1_0 as 10.
    written = f"CASE WHEN NOT contains({text}, '_') THEN TRY_CAST({text} AS DOUBLE) END"
    value = f"CAST({column.sql} AS DOUBLE)" if base in numbers else written
    # Trainers use float32.
    kept = f"TRY_CAST({result} AS FLOAT)"
    outside = f"NOT isfinite({result}) OR {kept} IS NULL OR ({kept} = 0 AND {result} > 0)"
    bad = f"({result} IS NULL OR {result} < 0 OR {outside})"
    fault = _faults(
        (f"{result} IS NULL AND ({text} IS NULL OR {text} = '')", _absent(column)),
        (f"{result} IS NULL OR NOT isfinite({result})", _fault(f"whose {column.name} is not a finite number", text)),
        (f"{result} < 0", _fault(f"whose {column.name} is negative", text)),
        (f"{kept} IS NULL", _fault(f"whose {column.name} is too large for float32 (3.4e38)", text)),
        (f"{kept} = 0 AND {result} > 0", _fault(f"whose {column.name} is too small for float32 (1.4e-45)", text)),
    )
    return Expression(value, bad, fault)


def text_expression(column: Column, known: Collection[str]) -> Expression:
    """Build the expression for text with few distinct values.

    Args:
        known: the allowed values.
    """
    values = ", ".join(map(quoted, known))
    no_weight = f"whose {column.name} has no weight (--event-weights)"
    empty = f"{column.result} IS NULL OR {column.result} = ''"
    unknown = f"{column.result} NOT IN ({values})" if known else "false"
    fault = _faults((empty, _absent(column)), (unknown, _fault(no_weight, column.text)))
    return Expression(column.text, f"({empty} OR {unknown})", fault)


def quoted(text: str) -> str:
    """A SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A SQL name."""
    return '"' + name.replace('"', '""') + '"'


def _faults(*cases: tuple[str, str]) -> str:
    """Return the fault of the first case that holds."""
    branches = " ".join(f"WHEN {case} THEN {fault}" for case, fault in cases)
    return f"CASE {branches} END"


def _absent(column: Column) -> str:
    return _fault(f"without {column.name}")


def _fault(kind: str, text: str | None = None) -> str:
    # The value may contain the separators.
    shown = f" || translate(left({text}, {_MOST_SHOWN}), '{RECORD}{SEPARATOR}', '  ')" if text else ""
    return f"{quoted(kind + SEPARATOR)}{shown}"


def _microseconds(timestamp: str) -> str:
    return f"CASE WHEN isfinite({timestamp}) THEN epoch_us({timestamp}) END"


def _of_number(sql: str, dtype: str) -> tuple[str, str]:
    number = f"TRY_CAST({sql} AS {dtype})"
    values, units = "", ""
    for unit, name in enumerate(UNITS[1:], 1):
        scale = 1000 ** (unit - 1)
        last = f"AND {number} < {LAST_SECOND * scale}" if name != "nanoseconds" else f"AND {number} < {2**63}"
        if name == "milliseconds":
            last += f" AND {number} NOT BETWEEN {IN_DIGITS[0]} AND {IN_DIGITS[1]}"
        condition = f"WHEN {number} >= {FIRST_SECOND * scale} {last}"
        values += f"{condition} THEN TRY_CAST(round({number} * 1000000 / {scale}) AS BIGINT) "
        units += f"{condition} THEN {unit} "
    if dtype == "HUGEINT":
        values = values.replace("round(", "(").replace(" * 1000000 /", " * 1000000 //")
    return f"CASE {values} END", f"CAST(CASE {units} END AS TINYINT)"


def iso_time(text: str) -> str:
    """Return SQL for the time in a text, null if it is not ISO 8601 with ``Z``, ``UTC``, an offset, a place or none."""
    # Also accept a comma before the fraction, and a space before the offset.
    neat = f"regexp_replace(replace(upper(trim({text})), ',', '.'), ' ([+-][0-9:]+)$', '\\1')"
    forms = "[" + ", ".join(map(quoted, _MORE_FORMS)) + "]"
    parsed = (
        f"coalesce(TRY_CAST({text} AS TIMESTAMPTZ), TRY_CAST({neat} AS TIMESTAMPTZ), try_strptime({neat}, {forms}))"
    )
    # DuckDB takes BST for Bangladesh, and an offset of 99 hours as it is.
    has_zone = f"regexp_matches({neat}, '[A-Z]{{2,}}|[ T][0-9:.]+[+-]')"
    return f"CASE WHEN NOT {has_zone} OR regexp_matches({neat}, {quoted(_ZONE)}) THEN {parsed} END"


def _of_text(text: str) -> tuple[str, str]:
    iso = iso_time(text)
    whole, whole_unit = _of_number(f"TRY_CAST(regexp_extract(trim({text}), '^[0-9]+$') AS HUGEINT)", "HUGEINT")
    real, real_unit = _of_number(f"TRY_CAST(regexp_extract(trim({text}), '^[0-9]+[.][0-9]*$') AS DOUBLE)", "DOUBLE")
    unit = f"CASE WHEN {iso} IS NOT NULL THEN 0::TINYINT ELSE coalesce({whole_unit}, {real_unit}) END"
    return f"coalesce({_microseconds(iso)}, {whole}, {real})", unit
