"""Filters on features: text -> Feast's filter tree -> Qdrant's filter.

`parse_filter` reads ``category = 'Books' AND price < 20``; `QdrantFilterTranslator` translates what it returns.
The meaning is SQL's: a row whose value is null matches no comparison, not even ``!=`` and ``NOT IN``.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import re
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, Literal

import sqlglot
from feast import ValueType
from feast.filter_models import ComparisonFilter, CompoundFilter, FilterTranslator, FilterType
from qdrant_client import models
from sqlglot import ParseError, Token, TokenError, TokenType, exp

from feast_embeddings.errors import FilterError

__all__ = ["GRAMMAR", "QdrantFilterTranslator", "parse_filter", "payload_key", "payload_keys"]

GRAMMAR = (
    "name = value (also !=, <, <=, >, >=), IN (…), NOT IN (…), BETWEEN … AND …, joined by AND, OR, NOT and "
    "parentheses; text and times in 'single quotes', numbers, TRUE, FALSE; unusual names in \"double quotes\""
)

Operator = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]

# Deeper trees are nobody's filter, and cost stack in sqlglot and in Qdrant.
_MAX_DEPTH = 16
_MAX_CHARACTERS = 65_536
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, as from an undecodable command line

_ORDERS: dict[type, Operator] = {exp.GT: "gt", exp.GTE: "gte", exp.LT: "lt", exp.LTE: "lte"}
_OPERATORS: dict[type, Operator] = {exp.EQ: "eq", exp.NEQ: "ne", **_ORDERS}
_NEGATED: dict[Operator, Operator] = {"eq": "ne", "gt": "lte", "gte": "lt", "in": "nin"}
_NEGATED |= {negated: operator for operator, negated in _NEGATED.items()}

_CONNECTIVES = {TokenType.AND, TokenType.OR, TokenType.COMMA, TokenType.L_PAREN, TokenType.R_PAREN}
_PREFIXES = {TokenType.NOT, TokenType.DASH}
# Of NULL, IS and LIKE sqlglot makes nodes, which are refused by name.
_OTHERS = "IN BETWEEN EQ NEQ LT LTE GT GTE DOT NUMBER STRING TRUE FALSE NULL IS LIKE"
_GRAMMAR_TOKENS = _CONNECTIVES | _PREFIXES | {TokenType[name] for name in _OTHERS.split()}


def parse_filter(text: str) -> ComparisonFilter | CompoundFilter:
    """Parse a condition such as ``category = 'Books' AND price < 20``; see `GRAMMAR`.

    NOT is pushed down to the comparisons. Names keep their case, and SQL's keywords are ordinary names, except
    for the few of the grammar. Whether a name exists and fits its value is for the translator to say.

    Raises:
        FilterError: the text is not of the grammar.
    """
    if len(text) > _MAX_CHARACTERS:
        raise _unreadable(f"it has {len(text):,} characters, at most {_MAX_CHARACTERS:,} are supported")
    if _SURROGATE.search(text):
        raise _unreadable("it is not valid Unicode")
    try:
        tokens = list(_plain_tokens(sqlglot.tokenize(text)))
        tree = sqlglot.Parser().parse_into(exp.Condition, tokens, text)[0]
    except TokenError:
        raise _unreadable("a quote is not closed") from None
    except ParseError as error:
        raise _unreadable(f"cannot read it near {error.errors[0].get('highlight') or text[-20:]!r}") from None
    except RecursionError:
        raise _unreadable("it is nested too deeply") from None
    return _convert(tree, negated=False)


def _plain_tokens(tokens: Sequence[Token]) -> Iterator[Token]:
    """The tokens, with each word that is not of the grammar turned into a quoted name.

    So sqlglot's parser never sees a function, a statement or a command.
    """
    if not tokens:
        raise _unreadable("it is empty")
    depth = prefixes = 0
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        kind = token.token_type
        if token.comments:
            raise _unreadable("comments are not supported")
        if kind not in _GRAMMAR_TOKENS:
            if kind != TokenType.IDENTIFIER and not re.fullmatch(r"\w+", token.text):
                raise _unreadable(f"{token.text[:20]!r} is not supported")
            if following is not None and following.token_type == TokenType.L_PAREN:
                raise _unreadable(f"functions are not supported, but {token.text[:40]!r} is followed by a parenthesis")
            token = Token(TokenType.IDENTIFIER, token.text, token.line, token.col, token.start, token.end)
        depth += (kind == TokenType.L_PAREN) - (kind == TokenType.R_PAREN)
        prefixes = 0 if kind in _CONNECTIVES else prefixes + (kind in _PREFIXES)
        if depth + prefixes > _MAX_DEPTH:
            raise _unreadable(f"it is nested too deeply, at most {_MAX_DEPTH} levels are supported")
        yield token


def _convert(node: Any, *, negated: bool) -> ComparisonFilter | CompoundFilter:
    while isinstance(node, exp.Paren | exp.Not):
        negated ^= isinstance(node, exp.Not)
        node = node.this
    if isinstance(node, exp.And | exp.Or):
        # De Morgan's laws hold in SQL's three-valued logic too.
        conjunction = isinstance(node, exp.And) != negated
        operands: list[Any] = [_convert(operand, negated=negated) for operand in node.flatten()]
        return CompoundFilter(type="and" if conjunction else "or", filters=operands)
    if isinstance(node, exp.Between):
        name, low, high = _arguments(node, "this", "low", "high")
        operands = [_compare(name, "gte", _value(low), negated), _compare(name, "lte", _value(high), negated)]
        return CompoundFilter(type="or" if negated else "and", filters=operands)
    if isinstance(node, exp.In):
        name, values = _arguments(node, "this", "expressions")
        return _compare(name, "in", [_value(value) for value in values or []], negated)
    if type(node) in _OPERATORS:
        name, value = _arguments(node, "this", "expression")
        return _compare(name, _OPERATORS[type(node)], _value(value), negated)
    raise _unreadable(f"expected a comparison, got {_describe(node)}")


def _compare(name: Any, operator: Operator, value: Any, negated: bool) -> ComparisonFilter:
    if not isinstance(name, exp.Column):
        raise _unreadable(f"a comparison begins with a name, not with {_describe(name)}")
    (identifier,) = _arguments(name, "this")
    return ComparisonFilter(type=_NEGATED[operator] if negated else operator, key=identifier.this, value=value)


def _value(node: Any) -> str | int | float | bool:
    if isinstance(node, exp.Boolean):
        return bool(node.this)
    negative = isinstance(node, exp.Neg)
    literal = node.this if negative else node
    if not isinstance(literal, exp.Literal) or (negative and literal.is_string):
        raise _unreadable(f"expected a value, got {_describe(node)}")
    text = str(literal.this)
    if literal.is_string:
        return text
    try:
        is_finite = math.isfinite(float(text))
    except ValueError:  # of ``1e`` and ``1_`` sqlglot makes numbers too
        raise _unreadable(f"{text[:40]!r} is not a number") from None
    if not is_finite:
        raise _unreadable(f"the number {text[:40]} is out of range")
    number = int(text) if text.isdecimal() else float(text)
    return -number if negative else number


def _arguments(node: Any, *names: str) -> list[Any]:
    """The named parts of a node, which may have no others (BETWEEN SYMMETRIC, IN of a subquery, a.b, …)."""
    extra = next((name for name, argument in node.args.items() if argument and name not in names), None)
    if extra is not None:
        raise _unreadable(f"{_describe(node)} with a {extra} is not supported")
    return [node.args.get(name) for name in names]


def _describe(node: Any) -> str:
    return f"{node.key} {node.name!r:.40}" if node.name else str(node.key)


def _unreadable(what: str) -> FilterError:
    return FilterError(f"filter not understood: {what}; supported: {GRAMMAR}")


_TEXT, _BOOL, _NUMBER, _TIME = "text", "TRUE or FALSE", "a number", "an ISO 8601 time or seconds since 1970"
_REAL, _WHOLE = {ValueType.FLOAT, ValueType.DOUBLE}, {ValueType.INT32, ValueType.INT64}
# Feast value type -> what it is compared with. Values of other types are not stored in a form Qdrant compares.
_COMPARED_WITH: dict[ValueType, str] = {
    **dict.fromkeys((ValueType.STRING, ValueType.STRING_LIST), _TEXT),
    **dict.fromkeys((ValueType.BOOL, ValueType.BOOL_LIST), _BOOL),
    **dict.fromkeys(_REAL | _WHOLE | {ValueType.INT32_LIST, ValueType.INT64_LIST}, _NUMBER),
    ValueType.UNIX_TIMESTAMP: _TIME,
}
_ORDERED = _REAL | _WHOLE | {ValueType.UNIX_TIMESTAMP}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FLOAT32_MAX = 3.4028234663852886e38
_EXACT = 2**53  # from here on several whole numbers share one of the 64-bit floats of Qdrant's ranges


def payload_key(name: str) -> str:
    """Qdrant's path to the payload of a feature; FilterError when its notation cannot write the name."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        return name
    if not name or '"' in name or "\\" in name:
        raise FilterError(f"feature {name!r} cannot be filtered on: Qdrant cannot address this name; rename it")
    return f'"{name}"'


def payload_keys(names: Sequence[str] | None) -> list[str] | bool:
    """Qdrant's selection of the payload of these features; of all when None."""
    return True if names is None else [payload_key(name) for name in names] or False


class QdrantFilterTranslator(FilterTranslator):
    """Translates Feast's filters for a collection that holds the features of one feature view.

    A list feature equals a value when it contains it; Qdrant cannot tell an empty list from null, so it matches
    nothing. A value compared with a Float32 feature is rounded to Float32 first.

    Args:
        types: Feast value type by name, of the join keys and features.
    """

    def __init__(self, types: Mapping[str, ValueType]) -> None:
        self._types = types

    def translate(self, filters: FilterType) -> models.Filter | None:
        """Qdrant's form of a filter; None for None.

        Raises:
            FilterError: an unknown or unfilterable feature, a value of another type, or nothing to compare with.
        """
        if filters is None:
            return None
        level: list[Any] = [filters]
        for _ in range(2 * _MAX_DEPTH):
            level = [f for compound in level if isinstance(compound, CompoundFilter) for f in compound.filters]
        if level:
            raise FilterError(f"the filter is nested too deeply, at most {2 * _MAX_DEPTH} levels are supported")
        condition = self._dispatch(filters)
        return condition if isinstance(condition, models.Filter) else models.Filter(must=[condition])

    def translate_compound(self, f: CompoundFilter) -> models.Filter:
        """``must`` for AND, ``should`` for OR."""
        if not f.filters:
            raise FilterError(f"the filter has an {f.type.upper()} without conditions")
        conditions = [self._dispatch(operand) for operand in f.filters]
        return models.Filter(must=conditions) if f.type == "and" else models.Filter(should=conditions)

    def translate_comparison(self, f: ComparisonFilter) -> models.Condition:
        """A condition on one payload key that no null satisfies."""
        value_type, key = self._type(f.key), payload_key(f.key)
        if f.type in _ORDERS.values():
            if value_type not in _ORDERED:
                raise FilterError(f"{f.key!r} is of type {value_type.name}, which Qdrant does not order; use = or IN")
            return _range(f, key, value_type)
        values = f.value if f.type in ("in", "nin") else [f.value]
        if not isinstance(values, list | tuple | set | frozenset) or not values:
            raise FilterError(f"IN of {f.key!r} needs at least one value in parentheses")
        match = _match(key, value_type, [_literal(f.key, value_type, value) for value in values])
        if f.type in ("eq", "in"):
            return match
        return models.Filter(must_not=[match, models.IsEmptyCondition(is_empty=models.PayloadField(key=key))])

    def _type(self, name: str) -> ValueType:
        value_type = self._types.get(name)
        if value_type in _COMPARED_WITH:
            return value_type
        names = sorted(n for n, t in self._types.items() if t in _COMPARED_WITH)
        if value_type is not None:
            what = f"feature {name!r} is of type {value_type.name}, which cannot be filtered on"
        else:
            close = difflib.get_close_matches(name, names, n=1)
            what = f"there is no feature {name[:80]!r}" + "".join(f", did you mean {c!r}?" for c in close)
        raise FilterError(f"{what}; filters can use: {', '.join(names) or 'none'}")


def _literal(name: str, value_type: ValueType, value: Any) -> Any:
    """The value in the payload's unit: text, bool, or a number (exact seconds for a time)."""
    expected = _COMPARED_WITH[value_type]
    literal: Any = value
    if expected == _TIME and isinstance(value, str):
        with contextlib.suppress(ValueError):
            moment = datetime.fromisoformat(value)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            literal = Fraction((moment - _EPOCH) // timedelta(microseconds=1), 1_000_000)
    if isinstance(literal, bool | str):
        fits = expected == (_BOOL if isinstance(literal, bool) else _TEXT) and not _SURROGATE.search(str(literal))
    elif isinstance(literal, int | float | Fraction):
        fits = expected in (_NUMBER, _TIME) and -sys.float_info.max <= literal <= sys.float_info.max
    else:
        fits = False
    if not fits:
        came = f"{type(value).__name__} {value!r:.60}"
        raise FilterError(f"{name!r} is of type {value_type.name} and is compared with {expected}, not with {came}")
    if value_type == ValueType.FLOAT and abs(literal) <= _FLOAT32_MAX:
        return struct.unpack("f", struct.pack("f", literal))[0]
    return literal


def _match(key: str, value_type: ValueType, values: list[Any]) -> models.Condition:
    """The key holds one of the values."""
    conditions: list[models.Condition]
    if value_type in _REAL:
        conditions = [models.FieldCondition(key=key, range=models.Range(gte=v, lte=v)) for v in map(float, values)]
    elif _COMPARED_WITH[value_type] == _BOOL:  # MatchAny takes no booleans
        conditions = [models.FieldCondition(key=key, match=models.MatchValue(value=v)) for v in values]
    else:
        if _COMPARED_WITH[value_type] != _TEXT:
            values = [int(v) for v in values if v == int(v) and -(2**63) <= v < 2**63]
        # Of no values, MatchAny matches nothing.
        conditions = [models.FieldCondition(key=key, match=models.MatchAny(any=values))]
    return conditions[0] if len(conditions) == 1 else models.Filter(should=conditions)


def _range(f: ComparisonFilter, key: str, value_type: ValueType) -> models.Condition:
    bound = _literal(f.key, value_type, f.value)
    if value_type not in _REAL:
        # To a whole number that the stored whole numbers compare with in the same way.
        bound = math.floor(bound) if f.type in ("gt", "lte") else math.ceil(bound)
        if abs(bound) >= _EXACT:
            raise FilterError(f"{f.key!r} can be ordered by numbers below 2**53 only, not by {f.value!r:.60}")
    return models.FieldCondition(key=key, range=models.Range(**{f.type: float(bound)}))
