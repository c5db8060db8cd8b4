"""Values of attributes as callers give them: checked against the type of the attribute, and as Arrow columns.

A value is kept in a form that JSON holds exactly: text, numbers, true or false, lists of text or whole numbers, and the
seconds since 1970 for a time.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from feast import ValueType

from feast_embeddings.errors import InputError
from feast_embeddings.times import to_microseconds

__all__ = ["as_type", "attribute_column", "checked_value", "expected_kind", "named_type", "parsed_text"]


_WHOLE = re.compile(r"-?[0-9]{1,19}")
_NUMBER = re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class _OtherTypeError(ValueError):
    pass


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _OtherTypeError
    value.encode()  # raises a ValueError for half a surrogate pair
    return str(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or not -(2**63) <= value < 2**63:
        raise _OtherTypeError
    return int(value)


def _real(value: Any) -> float | None:
    if isinstance(value, np.floating | Decimal):
        value = float(str(value))  # a float32 of 0.3 is 0.3, as in training
    elif isinstance(value, int | np.integer) and not isinstance(value, bool):
        if int(float(value)) != value:
            raise _OtherTypeError
        value = float(value)
    if not isinstance(value, float):
        raise _OtherTypeError
    return None if math.isnan(value) else value  # Feast reads NaN as null


def _truth(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise _OtherTypeError
    return bool(value)


def _seconds(value: Any) -> int:
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        raise _OtherTypeError
    return to_microseconds(value) // 1_000_000  # rounded down, as in training


def _list_of(element: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def check(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple | np.ndarray):
            raise _OtherTypeError
        return [element(each) for each in value]

    return check


# The names of types of added attributes, as those of `--attribute-types`, and lists.
_NAMES = {
    "text": ValueType.STRING,
    "int": ValueType.INT64,
    "float": ValueType.DOUBLE,
    "bool": ValueType.BOOL,
    "time": ValueType.UNIX_TIMESTAMP,
    "texts": ValueType.STRING_LIST,
    "ints": ValueType.INT64_LIST,
}

# Feast value type -> what a value is called in errors, its check, and the column of such values.
_KINDS: dict[ValueType, tuple[str, Callable[[Any], Any], pa.DataType]] = {
    ValueType.STRING: ("text", _text, pa.string()),
    ValueType.INT64: ("a whole number of 64 bits", _whole, pa.int64()),
    ValueType.DOUBLE: ("a number", _real, pa.float64()),
    ValueType.BOOL: ("true or false", _truth, pa.bool_()),
    ValueType.UNIX_TIMESTAMP: ("a time, in text in ISO 8601", _seconds, pa.timestamp("s", "UTC")),
    ValueType.STRING_LIST: ("a list of text", _list_of(_text), pa.list_(pa.string())),
    ValueType.INT64_LIST: ("a list of whole numbers of 64 bits", _list_of(_whole), pa.list_(pa.int64())),
}


def named_type(name: Any, what: str) -> ValueType:
    """Return a type of attributes by its name: ``text``, ``int``, ``float``, ``bool``, ``time``, ``texts``, ``ints``.

    Raises:
        InputError: there is no such type; the message begins with `what`.
    """
    if not isinstance(name, str) or name not in _NAMES:
        raise InputError(f"{what}: the type must be one of {', '.join(_NAMES)}, got {name!r:.80}")
    return _NAMES[name]


def expected_kind(value_type: ValueType) -> str:
    """Return what a value of an attribute has to be, in words."""
    return _KINDS[value_type][0]


def checked_value(value: Any, value_type: ValueType, where: str) -> Any:
    """Return a value in the form in which it is kept; None for a missing one, of pandas too.

    Raises:
        InputError: it is not of the type; the message calls it `where`.
    """
    if _is_missing(value):
        return None
    try:
        return _KINDS[value_type][1](value)
    except (ValueError, OverflowError):
        raise InputError(
            f"{where} has to be {expected_kind(value_type)} or null, got {value!r:.80} ({type(value).__name__})"
        ) from None


def _is_missing(value: Any) -> bool:
    unequal = value != value
    if isinstance(unequal, bool | np.bool_):
        return value is None or bool(unequal)
    return unequal is value  # pandas' NA; arrays compare to other arrays


def parsed_text(text: str, value_type: ValueType, where: str) -> Any:
    """Return what text of a file says for an attribute, for `checked_value`: a list is JSON, as ``["a", "b"]``.

    Raises:
        InputError: it does not have the form of the type; the message calls it `where`.
    """
    try:
        if value_type in (ValueType.STRING, ValueType.UNIX_TIMESTAMP):
            return text
        if value_type == ValueType.INT64 and _WHOLE.fullmatch(text):
            return int(text)
        if value_type == ValueType.DOUBLE and _NUMBER.fullmatch(text):
            return float(text)
        if value_type == ValueType.BOOL:
            return {"true": True, "false": False}[text.lower()]
        if value_type in (ValueType.STRING_LIST, ValueType.INT64_LIST):
            return json.loads(text)
    except (ValueError, KeyError, RecursionError):
        pass
    raise InputError(f"{where} has to be {expected_kind(value_type)} or empty, got {text!r:.80}")


def as_type(value: Any, kept: str, value_type: ValueType) -> tuple[bool, Any]:
    """Return whether a kept value of one type can be one of another, and that; a whole number can be any number."""
    if value is None or kept == value_type.name:
        return value_type in _KINDS, value
    try:
        is_number = (kept, value_type) == (ValueType.INT64.name, ValueType.DOUBLE)
        return (True, _real(value)) if is_number else (False, None)
    except ValueError:
        return False, None


def attribute_column(values: Sequence[Any] | Iterable[Any], value_type: ValueType) -> pa.Array:
    """Return kept values as a column that the codec can encode."""
    return pa.array(values, _KINDS[value_type][2])
