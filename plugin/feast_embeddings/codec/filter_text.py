"""Parse filters as text, in a small part of SQL, into Feast's filter tree.

The grammar is LALR, and words are keywords only where the grammar expects one: ``date = 1 AND select = 2`` is about
two features of these names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, get_args

from feast.filter_models import ComparisonFilter, CompoundFilter
from lark import Lark, Token, UnexpectedCharacters, UnexpectedInput, UnexpectedToken
from lark.lark import PostLex

from feast_embeddings.errors import FilterError

__all__ = ["GRAMMAR", "MAX_CHARACTERS", "MAX_DEPTH", "SURROGATE", "ExtendedComparison", "parse_filter"]

GRAMMAR = (
    "name = value (also !=, <, <=, >, >=), IN (…), NOT IN (…), BETWEEN … AND …, IS NULL, IS NOT NULL, CONTAINS 'part', "
    "LIKE 'start%', the name of a boolean alone, joined by AND, OR, NOT and parentheses; text and times in 'single "
    'quotes\', numbers, TRUE, FALSE; unusual names in "double quotes"'
)

_LARK = r"""
start: condition
?condition: conjunction | conjunction (_OR conjunction)+ -> any
?conjunction: negation | negation (_AND negation)+ -> all
?negation: comparison | _NOT negation -> negated | _OPEN condition _CLOSE
comparison: NAME -> flag
    | NAME OPERATOR value -> compared
    | NAME [NOT] _IN _OPEN value (_COMMA value)* _CLOSE -> contained
    | NAME [NOT] _BETWEEN value _AND value -> between
    | NAME [NOT] LIKE STRING -> like
    | NAME [NOT] CONTAINS STRING -> like
    | NAME _IS [NOT] _NULL -> missing
?value: STRING | NUMBER | TRUE | FALSE

OPERATOR: "==" | "=" | "!=" | "<>" | "<=" | "<" | ">=" | ">"
STRING: /'(?:[^']|'')*'/
NUMBER: /(?:-\s*)?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?/
NAME: /[^\W\d]\w*|"(?:[^"]|"")*"/
_OPEN: "("
_CLOSE: ")"
_COMMA: ","
_OR: /or\b/i
_AND: /and\b/i
_NOT.1: /not\b/i
NOT.1: /not\b/i
_IN: /in\b/i
_BETWEEN: /between\b/i
_IS: /is\b/i
_NULL: /null\b/i
LIKE: /like\b/i
CONTAINS: /contains\b/i
TRUE: /true\b/i
FALSE: /false\b/i
%ignore /\s+/
"""

MAX_CHARACTERS = 1_048_576
# No real filter is deeper, and deep trees cost stack here and in Qdrant.
MAX_DEPTH = 16
_MAX_COMPARISONS = 10_000
_MAX_VALUES = 20_000
SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, as from an undecodable command line

_Extended = Literal["is_null", "not_null", "starts", "not_starts", "contains", "not_contains"]
_OPERATORS = {"=": "eq", "==": "eq", "!=": "ne", "<>": "ne", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_NEGATED = {
    "eq": "ne", "gt": "lte", "gte": "lt", "in": "nin", "is_null": "not_null", "starts": "not_starts",
    "contains": "not_contains",
}  # fmt: skip
_NEGATED |= {negated: operator for operator, negated in _NEGATED.items()}
# The expected part in error messages, by the first token that would be valid.
_EXPECTED = {
    "STRING": "a value (text in 'single quotes')",
    "NAME": "the name of a feature",
    "OPERATOR": "a comparison",
    "LIKE": "IN, BETWEEN, LIKE or CONTAINS",
    "_OPEN": "values in parentheses",
    "_NULL": "NULL",
    # After a value, the parser does not know yet which construct it is in.
    "_OR": "AND, OR, ',', ')' or the end",
    "_AND": "AND",
    "_CLOSE": "')'",
}


class ExtendedComparison(ComparisonFilter):
    """Comparisons that Feast lacks: tests for null, and for a prefix or a part of a text.

    Attributes:
        value: the text; empty for null tests.
    """

    type: _Extended  # type: ignore[assignment]  # not a Feast type, so that no other store mistakes it for one
    value: Any = None


def parse_filter(text: str) -> ComparisonFilter | CompoundFilter:
    """Parse a condition such as ``category = 'Books' AND price < 20``; see `GRAMMAR`.

    NOT is pushed down to the comparisons. Names keep their case. The translator checks whether a name exists and fits
    its value.

    Raises:
        FilterError: the text does not match the grammar.
    """
    if len(text) > MAX_CHARACTERS:
        raise _unreadable(f"it has {len(text):,} characters, at most {MAX_CHARACTERS:,} are supported")
    if SURROGATE.search(text):
        raise _unreadable("it is not valid Unicode")
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        raise _unreadable(_problem(text, error)) from None
    return _convert(tree.children[0], negated=False)


class _Bounds(PostLex):
    """Stops at the first token beyond a limit, so that a long text is cheap to refuse."""

    always_accept = ()

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        depth = negations = comparisons = values = 0
        for token in stream:
            depth += (token.type == "_OPEN") - (token.type == "_CLOSE")
            negations = negations + 1 if token.type == "_NOT" else 0
            comparisons += token.type == "NAME"
            values += token.type in ("STRING", "NUMBER", "TRUE", "FALSE")
            if depth + negations > MAX_DEPTH:
                raise _unreadable(f"it is nested too deeply, at most {MAX_DEPTH} levels are supported")
            if comparisons > _MAX_COMPARISONS:
                raise _unreadable(f"it has more than {_MAX_COMPARISONS:,} comparisons")
            if values > _MAX_VALUES:
                raise _unreadable(f"it has more than {_MAX_VALUES:,} values")
            yield token


@cache
def _parser() -> Lark:
    return Lark(_LARK, parser="lalr", postlex=_Bounds(), maybe_placeholders=True, propagate_positions=False)


def _convert(node: Any, *, negated: bool) -> ComparisonFilter | CompoundFilter:
    while node.data == "negated":
        negated, node = not negated, node.children[0]
    if node.data in ("any", "all"):
        # De Morgan's laws hold in SQL's three-valued logic too.
        operands: list[Any] = [_convert(operand, negated=negated) for operand in node.children]
        return CompoundFilter(type="and" if (node.data == "all") != negated else "or", filters=operands)
    key, rest = _name(node.children[0]), node.children[1:]
    match node.data:
        case "flag":
            return _compare(key, "eq", True, negated)
        case "compared":
            return _compare(key, _OPERATORS[rest[0]], _value(rest[1]), negated)
        case "contained":
            return _compare(key, "in", [_value(value) for value in rest[1:]], negated ^ bool(rest[0]))
        case "between":
            negated ^= bool(rest[0])
            ends: list[Any] = [
                _compare(key, "gte", _value(rest[1]), negated),
                _compare(key, "lte", _value(rest[2]), negated),
            ]
            return CompoundFilter(type="or" if negated else "and", filters=ends)
        case "missing":
            return _compare(key, "is_null", None, negated ^ bool(rest[0]))
    negation, keyword, literal = rest
    operator, part = ("contains", _text(literal)) if keyword.type == "CONTAINS" else _pattern(_text(literal))
    return _compare(key, operator, part, negated ^ bool(negation))


def _compare(key: str, operator: str, value: Any, negated: bool) -> ComparisonFilter:
    kind: Any = _NEGATED[operator] if negated else operator
    if kind in get_args(_Extended):
        return ExtendedComparison(type=kind, key=key, value=value)
    return ComparisonFilter(type=kind, key=key, value=value)


def _name(token: Token) -> str:
    return token[1:-1].replace('""', '"') if token.startswith('"') else str(token)


def _value(token: Token) -> str | int | float | bool:
    if token.type == "STRING":
        return _text(token)
    if token.type != "NUMBER":
        return token.type == "TRUE"
    text = "".join(token.split())
    if not math.isfinite(float(text)):
        raise _unreadable(f"the number {text[:40]} is out of range")
    return float(text) if set(text) & set(".eE") else int(text)


def _text(token: Token) -> str:
    return token[1:-1].replace("''", "'")


def _pattern(pattern: str) -> tuple[str, str]:
    """Return the test that a LIKE means, and its text: Qdrant can match ``abc%`` and ``%abc%`` exactly."""
    parts = re.findall(r"\\[\\%_]|[\s\S]", pattern)
    if parts == ["%"]:
        return "contains", ""
    first, last = parts[:1] == ["%"], len(parts) > 1 and parts[-1] == "%"
    inner = parts[first : len(parts) - last]
    if "_" in inner or "%" in inner or (first and not last and inner):
        raise _unreadable(
            f"LIKE {pattern[:60]!r} is not supported, only 'start%', '%part%' and text without % and _; write \\% and "
            "\\_ for these characters themselves"
        )
    text = "".join(part[-1] for part in inner)
    return "contains" if first else "starts" if last else "eq", text


def _problem(text: str, error: UnexpectedInput) -> str:
    """Describe the error where the text stops matching the grammar."""
    if not text.strip():
        return "it is empty"
    allowed: Any = error.allowed if isinstance(error, UnexpectedCharacters) else getattr(error, "expected", ())
    at_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
    at = len(text) if at_end or error.pos_in_stream is None else error.pos_in_stream
    rest, before = text[at : at + 40].strip(), text[max(0, at - 40) : at].strip()
    if rest.startswith(("--", "/*", "#")):
        return "comments are not supported"
    if rest.startswith(("'", '"')) and isinstance(error, UnexpectedCharacters):
        return "a quote is not closed"
    if rest.startswith("(") and "OPERATOR" in allowed:
        return f"functions are not supported, but {before.split()[-1]!r} is followed by a parenthesis"
    expected = next((what for kind, what in _EXPECTED.items() if kind in allowed), "the end")
    came = re.match(r"\w+|'[^']*'|\"[^\"]*\"|\S+", rest)
    after = f" after {before[-20:]!r}" if before else ""
    return f"expected {expected}, got {repr(came[0]) if came else 'the end'}{after}"


def _unreadable(what: str) -> FilterError:
    return FilterError(f"filter not understood: {what}; supported: {GRAMMAR}")
