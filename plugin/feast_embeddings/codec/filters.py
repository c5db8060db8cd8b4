"""Translate Feast's filter tree to Qdrant's filter; `feast_embeddings.codec.filter_text` parses text to such trees.

The semantics are SQL's: a row whose value is null matches no comparison, not even ``!=`` and ``NOT IN``, only IS NULL.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import struct
import sys
from collections.abc import Collection, Mapping
from datetime import datetime
from fractions import Fraction
from typing import Any

from feast import ValueType
from feast.filter_models import ComparisonFilter, CompoundFilter, FilterTranslator, FilterType
from qdrant_client import models

from feast_embeddings.codec.filter_text import MAX_DEPTH, SURROGATE, ExtendedComparison
from feast_embeddings.codec.numbers import EXACT, float_bits, json_exact
from feast_embeddings.engines.payload import payload_key
from feast_embeddings.errors import FilterError
from feast_embeddings.times import to_microseconds

__all__ = ["QdrantFilterTranslator"]

_TEXT, _BOOL, _NUMBER, _TIME = "text", "TRUE or FALSE", "a number", "an ISO 8601 time or seconds since 1970"
_REAL, _WHOLE = {ValueType.FLOAT, ValueType.DOUBLE}, {ValueType.INT32, ValueType.INT64}
# Feast value type -> the kind of value it is compared with. Qdrant cannot compare the stored form of other types.
_COMPARED_WITH: dict[ValueType, str] = {
    **dict.fromkeys((ValueType.STRING, ValueType.STRING_LIST), _TEXT),
    **dict.fromkeys((ValueType.BOOL, ValueType.BOOL_LIST), _BOOL),
    **dict.fromkeys(_REAL | _WHOLE | {ValueType.INT32_LIST, ValueType.INT64_LIST}, _NUMBER),
    ValueType.UNIX_TIMESTAMP: _TIME,
}
_ORDERED = _REAL | _WHOLE | {ValueType.UNIX_TIMESTAMP}
_ORDERS = ("gt", "gte", "lt", "lte")
# Qdrant's ranges are 64-bit floats, and a server may read their last bit wrong over HTTP. Below this number the last
# bit is less than a half, so a bound between two whole numbers stays between them.
_EXACT = 2**51


class QdrantFilterTranslator(FilterTranslator):
    """Translates Feast's filters for a collection that holds the features of one feature view.

    A list feature equals a value if it contains it; Qdrant does not distinguish an empty list from null, so it matches
    nothing. A value compared with a Float32 feature is rounded to Float32 first.

    Args:
        types: Feast value type by name, of the join keys and features.
        aliases: other names of some of them.
        whole: the features that are stored as one value, so that no filter can look into them.
    """

    def __init__(
        self, types: Mapping[str, ValueType], aliases: Mapping[str, str] | None = None, whole: Collection[str] = ()
    ) -> None:
        self._types = types
        self._aliases = aliases or {}
        self._whole = whole

    def translate(self, filters: FilterType) -> models.Filter | None:
        """Translate a filter; None for None.

        Raises:
            FilterError: an unknown or unfilterable feature, a value of another type, or nothing to compare with.
        """
        if filters is None:
            return None
        level: list[Any] = [filters]
        for _ in range(2 * MAX_DEPTH):
            level = [f for compound in level if isinstance(compound, CompoundFilter) for f in compound.filters]
        if level:
            raise FilterError(f"the filter is nested too deeply, at most {2 * MAX_DEPTH} levels are supported")
        condition = self._dispatch(filters)
        return condition if isinstance(condition, models.Filter) else models.Filter(must=[condition])

    def translate_compound(self, f: CompoundFilter) -> models.Filter:
        """``must`` for AND, ``should`` for OR."""
        if not f.filters:
            raise FilterError(f"the filter has an {f.type.upper()} without conditions")
        conditions = [self._dispatch(operand) for operand in f.filters]
        return models.Filter(must=conditions) if f.type == "and" else models.Filter(should=conditions)

    def translate_comparison(self, f: ComparisonFilter) -> models.Condition:
        """Build a condition on one payload key that no null satisfies, unless it is the test for null."""
        f = f.model_copy(update={"key": self._aliases.get(f.key, f.key)})
        value_type, key = self._type(f.key), payload_key(f.key)
        if isinstance(f, ExtendedComparison):
            return _null(f, value_type) if f.type.endswith("_null") else _part(f, key, value_type)
        if f.type in _ORDERS:
            if value_type not in _ORDERED:
                raise FilterError(f"{f.key!r} is of type {value_type.name}, which Qdrant does not order; use = or IN")
            return _range(f, key, value_type)
        values = f.value if f.type in ("in", "nin") else [f.value]
        if not isinstance(values, list | tuple | set | frozenset) or not values:
            raise FilterError(f"IN of {f.key!r} needs at least one value in parentheses")
        match = _match(f.key, value_type, [_literal(f.key, value_type, value) for value in values])
        return match if f.type in ("eq", "in") else models.Filter(must_not=[match, _empty(key)])

    def _type(self, name: str) -> ValueType:
        value_type = self._types.get(name)
        if value_type in _COMPARED_WITH and name not in self._whole:
            return value_type
        names = sorted(n for n, t in self._types.items() if t in _COMPARED_WITH and n not in self._whole)
        if name in self._whole:
            what = f"feature {name!r} is stored as one value, which filters cannot look into"
        elif value_type is not None:
            what = f"feature {name!r} is of type {value_type.name}, which cannot be filtered on"
        else:
            close = difflib.get_close_matches(name, names, n=1)
            what = f"there is no feature {name[:80]!r}" + "".join(f", did you mean {c!r}?" for c in close)
        raise FilterError(f"{what}; filters can use: {', '.join(names) or 'none'}")


def _literal(name: str, value_type: ValueType, value: Any) -> Any:
    """Convert a value to the payload's unit: text, bool, or a number (exact seconds for a time)."""
    expected = _COMPARED_WITH[value_type]
    literal: Any = value
    if expected == _TIME and isinstance(value, str):
        with contextlib.suppress(ValueError):
            literal = Fraction(to_microseconds(datetime.fromisoformat(value)), 1_000_000)
    if isinstance(literal, bool | str):
        fits = expected == (_BOOL if isinstance(literal, bool) else _TEXT) and not SURROGATE.search(str(literal))
    elif isinstance(literal, int | float | Fraction):
        fits = expected in (_NUMBER, _TIME) and -sys.float_info.max <= literal <= sys.float_info.max
    else:
        fits = False
    if not fits:
        came = f"{type(value).__name__} {value!r:.60}"
        raise FilterError(f"{name!r} is of type {value_type.name} and is compared with {expected}, not with {came}")
    if value_type == ValueType.FLOAT:
        with contextlib.suppress(OverflowError):  # beyond any number that rounds to a float32
            return struct.unpack("<f", struct.pack("<f", literal))[0]
    return literal


def _match(name: str, value_type: ValueType, values: list[Any]) -> models.Condition:
    """Build the condition that the feature holds one of the values."""
    key, values = payload_key(name), list(dict.fromkeys(values))
    conditions: list[models.Condition]
    if value_type in _REAL:
        ranges = [_real_range(value_type, gte=value, lte=value) for value in map(float, values)]
        conditions = [models.FieldCondition(key=key, range=range) for range in ranges]
        conditions += _inexact(name, value_type, values)
    elif _COMPARED_WITH[value_type] == _BOOL:  # MatchAny accepts no booleans
        conditions = [models.FieldCondition(key=key, match=models.MatchValue(value=v)) for v in values]
    else:
        if _COMPARED_WITH[value_type] != _TEXT:
            values = [int(v) for v in values if v == int(v) and -(2**63) <= v < 2**63]
        # Without values, MatchAny matches nothing.
        conditions = [models.FieldCondition(key=key, match=models.MatchAny(any=values))]
    return conditions[0] if len(conditions) == 1 else models.Filter(should=conditions)


def _range(f: ComparisonFilter, key: str, value_type: ValueType) -> models.Condition:
    bound = _literal(f.key, value_type, f.value)
    if value_type in _REAL:
        condition = models.FieldCondition(key=key, range=_real_range(value_type, **{f.type: float(bound)}))
        inexact = _inexact(f.key, value_type, [bound]) if f.type in ("gte", "lte") else []
        return models.Filter(should=[condition, *inexact]) if inexact else condition
    # Move the bound to a number between two whole ones that gives the same result for stored whole numbers.
    upwards = f.type in ("gt", "lte")
    bound = math.floor(bound) if upwards else math.ceil(bound)
    if abs(bound) >= _EXACT:
        raise FilterError(f"{f.key!r} can only be ordered by numbers below 2**51, got {f.value!r:.60}")
    return models.FieldCondition(key=key, range=models.Range(**{f.type: bound + (0.5 if upwards else -0.5)}))


def _real_range(value_type: ValueType, **bounds: float) -> models.Range:
    """Build a range of stored numbers. Qdrant may have read one off by one in the last of 64 bits, see `json_exact`.

    For float32 that is far less than the gap to the next number, so the bounds of its range are put into the gap.
    """
    if value_type == ValueType.FLOAT:
        outwards = {"gt": 4, "gte": -4, "lt": -4, "lte": 4}
        bounds = {side: bound + outwards[side] * math.ulp(bound) for side, bound in bounds.items()}
    return models.Range(**bounds)


def _inexact(name: str, value_type: ValueType, values: list[Any]) -> list[models.Condition]:
    """Match, by their bits, the numbers that Qdrant may have read as a neighbouring number."""
    numbers = [float(value) for value in values]
    bits = [float_bits(n)[0] for n, exact in zip(numbers, json_exact(numbers, value_type), strict=True) if not exact]
    return [models.FieldCondition(key=payload_key(EXACT + name), match=models.MatchAny(any=bits))] if bits else []


def _null(f: ExtendedComparison, value_type: ValueType) -> models.Condition:
    """Build the condition that no value is stored; an infinite number only has the exact form."""
    forms = [f.key, EXACT + f.key] if value_type in _REAL else [f.key]
    missing = models.Filter(must=[_empty(payload_key(form)) for form in forms])
    return missing if f.type == "is_null" else models.Filter(must_not=[missing])


def _part(f: ExtendedComparison, key: str, value_type: ValueType) -> models.Condition:
    """Build the condition that a text, or one of a list, begins with a text or contains it; case-sensitive."""
    if _COMPARED_WITH[value_type] != _TEXT:
        raise FilterError(f"{f.key!r} is of type {value_type.name}, and LIKE and CONTAINS are for text")
    text = _literal(f.key, value_type, f.value)
    match: models.Match = (
        models.MatchPrefix(prefix=text) if f.type.endswith("starts") else models.MatchSubstring(substring=text)
    )
    condition = models.FieldCondition(key=key, match=match)
    return models.Filter(must_not=[condition, _empty(key)]) if f.type.startswith("not_") else condition


def _empty(key: str) -> models.IsEmptyCondition:
    return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
