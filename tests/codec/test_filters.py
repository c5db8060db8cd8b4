"""Filters: the grammar, the translation to Qdrant, and the meaning of both on Qdrant's own engine."""

from __future__ import annotations

import logging.handlers
import math
import operator
import re
import struct
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
import pytest
import qdrant_edge as edge
from feast import ValueType
from feast.filter_models import ComparisonFilter, CompoundFilter
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models
from tests.conftest import QdrantServer

from feast_embeddings.codec.filter_text import ExtendedComparison, parse_filter
from feast_embeddings.codec.filters import QdrantFilterTranslator
from feast_embeddings.codec.numbers import EXACT, float_bits, json_exact
from feast_embeddings.engines.embedded.filter import to_edge
from feast_embeddings.engines.payload import payload_key
from feast_embeddings.engines.server.failures import engine_errors
from feast_embeddings.errors import EngineError, FilterError

TYPES = {
    "category": ValueType.STRING,
    "Ünï cøde": ValueType.STRING,
    "stock": ValueType.INT64,
    "price": ValueType.DOUBLE,
    "bias": ValueType.FLOAT,
    "on_sale": ValueType.BOOL,
    "added": ValueType.UNIX_TIMESTAMP,
    "tags": ValueType.STRING_LIST,
    "sizes": ValueType.INT64_LIST,
    "flags": ValueType.BOOL_LIST,
    "embedding": ValueType.FLOAT_LIST,
    "blob": ValueType.BYTES,
    "map": ValueType.MAP,
}
INDEXES: dict[str, Any] = {
    "category": edge.PayloadSchemaType.Keyword,
    "stock": edge.PayloadSchemaType.Integer,
    "price": edge.PayloadSchemaType.Float,
    "bias": edge.PayloadSchemaType.Float,
    "on_sale": edge.PayloadSchemaType.Bool,
    "added": edge.PayloadSchemaType.Integer,
    "tags": edge.PayloadSchemaType.Keyword,
}
NOON = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp())

Row = dict[str, Any]


def _float32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


# What a stored value is taken from, and literals near it, as (SQL text, value that the oracle compares with).
TEXTS = ["", "Books", "it's", "books", "Ä"]
WHOLES = [0, 1, 2, 3, -2, -3, 2**51 - 3, 2**51 - 2, 2**51 - 1, 2**53 - 1, 2**53 + 1, 2**63 - 1, -(2**63)]
REALS = [0.0, -0.0, 1.0, 2.5, -2.5, 0.1, 1e300, 2.0**53]
FLOAT32_MAX = float(np.finfo(np.float32).max)
TIMES = [NOON, NOON + 1, 0, -1, -2]

TEXT_LITERALS = [("'" + text.replace("'", "''") + "'", text) for text in TEXTS]
BOOL_LITERALS = [("TRUE", True), ("false", False)]
SMALL_LITERALS: list[tuple[str, Any]] = [
    *((str(n), n) for n in (0, 1, 2, -3, 2**51 - 2)),
    *((text, float(text)) for text in ("2.5", "-2.5", "2.0", "-0.5", "1e3")),
]
BIG_LITERALS: list[tuple[str, Any]] = [(str(n), n) for n in (2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 10**30)]
TIME_LITERALS: list[tuple[str, Any]] = [
    ("'2026-03-01T12:00:00Z'", NOON),
    ("'2026-03-01 14:00:00+02:00'", NOON),
    ("'2026-03-01T12:00:00.5'", NOON + 0.5),
    ("'1970-01-01'", 0),
    (str(NOON), NOON),
    ("-1.5", -1.5),
]

# Feature -> values it may hold, literals for = and IN, literals for < and BETWEEN.
Literals = list[tuple[str, Any]]
COLUMNS: dict[str, tuple[list[Any], Literals, Literals]] = {
    "category": (TEXTS, TEXT_LITERALS, []),
    '"Ünï cøde"': (TEXTS, TEXT_LITERALS, []),
    "stock": (WHOLES, SMALL_LITERALS + BIG_LITERALS, SMALL_LITERALS),
    "price": (REALS, SMALL_LITERALS, [*SMALL_LITERALS, ("1e299", 1e299)]),
    "bias": (
        [_float32(0.1), 0.5, 0.0, FLOAT32_MAX],
        [("0.1", _float32(0.1)), ("0.5", 0.5), ("1e39", 1e39), ("3.4028235e38", FLOAT32_MAX)],
        [("0.1", _float32(0.1))],
    ),
    "on_sale": ([True, False], BOOL_LITERALS, []),
    "added": (TIMES, TIME_LITERALS, TIME_LITERALS),
    "tags": ([[], ["Books"], ["Books", "Ä"], ["it's"]], TEXT_LITERALS, []),
    "sizes": ([[], [1], [1, 2**53 + 1]], SMALL_LITERALS + BIG_LITERALS, []),
    "flags": ([[], [True], [True, False]], BOOL_LITERALS, []),
}


# The oracle: SQL's three-valued logic over plain rows; None is SQL's unknown.
Truth = Callable[[Row], bool | None]


def _negate(truth: Truth) -> Truth:
    return lambda row: None if (value := truth(row)) is None else not value


def _all(truths: list[Truth]) -> Truth:
    def truth(row: Row) -> bool | None:
        values = [t(row) for t in truths]
        return False if False in values else None if None in values else True

    return truth


def _any(truths: list[Truth]) -> Truth:
    return _negate(_all([_negate(t) for t in truths]))


def _compared(name: str, compare: Callable[[Any], bool]) -> Truth:
    def truth(row: Row) -> bool | None:
        value = row.get(name.strip('"'))
        if value is None or value == []:
            return None
        return any(map(compare, value)) if isinstance(value, list) else compare(value)

    return truth


ORDER_FORMS = ["<", "<=", ">", ">=", "BETWEEN", "NOT BETWEEN"]
PARTS: dict[str, Callable[[str], bool]] = {
    "LIKE 'B%'": lambda text: text.startswith("B"),
    "LIKE 'Books'": lambda text: text == "Books",
    "LIKE '%''s%'": lambda text: "'s" in text,
    "LIKE '%'": lambda text: True,
    "LIKE ''": lambda text: text == "",
    "CONTAINS 'ook'": lambda text: "ook" in text,
    "CONTAINS 'Ä'": lambda text: "Ä" in text,
    "CONTAINS '%'": lambda text: "%" in text,
    "CONTAINS ''": lambda text: True,
}
COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "==": operator.eq,
}


def _comparison(name: str, form: str, literals: Literals) -> tuple[str, Truth]:
    (text, literal), (text_2, literal_2) = literals[0], literals[-1]
    if form.endswith("BETWEEN"):
        text, truth = f"{text} AND {text_2}", _compared(name, lambda value: bool(literal <= value <= literal_2))
    elif form.endswith("IN"):
        text = f"({', '.join(text for text, _ in literals)})"
        truth = _compared(name, lambda value: any(value == literal for _, literal in literals))
    else:
        compare = COMPARE.get(form, operator.eq)
        truth = _compared(name, lambda value: bool(compare(value, literal)))
    negated = form.startswith("NOT") or form in ("!=", "<>")
    return f"{name} {form} {text}", _negate(truth) if negated else truth


def _missing(name: str) -> Truth:
    return lambda row: (value := row.get(name.strip('"'))) is None or value == []


def _special(name: str) -> list[tuple[str, Truth]]:
    """The conditions on a feature that compare it with no literal of its type."""
    made = [(f"{name} IS NULL", _missing(name)), (f"{name} IS NOT NULL", _negate(_missing(name)))]
    if name in ("on_sale", "flags"):
        made += [(name, _compared(name, bool)), (f"NOT {name}", _negate(_compared(name, bool)))]
    if name in ("category", "tags", '"Ünï cøde"'):
        for form, test in PARTS.items():
            made += [(f"{name} {form}", _compared(name, test)), (f"{name} NOT {form}", _negate(_compared(name, test)))]
    return made


@st.composite
def _comparisons(draw: st.DrawFn) -> tuple[str, Truth]:
    name = draw(st.sampled_from(list(COLUMNS)))
    _, equal, ordered = COLUMNS[name]
    if draw(st.booleans()):
        return draw(st.sampled_from(_special(name)))
    form = draw(st.sampled_from(["=", "==", "!=", "<>", "IN", "NOT IN"] + (ORDER_FORMS if ordered else [])))
    literals = st.sampled_from(ordered if form in ORDER_FORMS else equal)
    return _comparison(name, form, draw(st.lists(literals, min_size=1, max_size=3)))


def _joined(parts: list[tuple[str, Truth]], connective: str, negated: bool) -> tuple[str, Truth]:
    text = f" {connective} ".join(f"({text})" for text, _ in parts)
    truth = (_all if connective == "AND" else _any)([truth for _, truth in parts])
    return (f"NOT ({text})", _negate(truth)) if negated else (text, truth)


CONDITIONS = st.recursive(
    _comparisons(),
    lambda inner: st.builds(
        _joined, st.lists(inner, min_size=1, max_size=3), st.sampled_from(["AND", "OR"]), st.booleans()
    ),
    max_leaves=6,
)
ROWS = st.fixed_dictionaries(
    {}, optional={name.strip('"'): st.sampled_from([None, *values]) for name, (values, _, _) in COLUMNS.items()}
)


def _stored(row: Row) -> Row:
    """The payload that writers make of a row: real numbers also by their bits where JSON is not exact."""
    payload = {name: value for name, value in row.items() if not (isinstance(value, float) and math.isinf(value))}
    for name in ("price", "bias"):
        if isinstance(value := row.get(name), float) and not json_exact(value, TYPES[name]):
            (payload[EXACT + name],) = float_bits(value)
    return payload


class _Table(Protocol):
    knows_parts: bool
    """Whether LIKE and CONTAINS are known."""

    def fill(self, rows: list[Row]) -> None: ...

    def select(self, filter: models.Filter) -> list[int]: ...


class _Shard:
    """Rows in a real shard, with or without payload indexes; ids are positions."""

    knows_parts = True

    def __init__(self, path: str, indexes: dict[str, Any]) -> None:
        params = edge.EdgeVectorParams(size=1, distance=edge.Distance.Dot)
        self._shard = edge.EdgeShard.create(path, edge.EdgeConfig(vectors={"v": params}, wal_enabled=False))
        for name, schema in indexes.items():
            self._shard.update(edge.UpdateOperation.create_field_index(name, schema))

    def fill(self, rows: list[Row]) -> None:
        old, _ = self._shard.scroll(edge.ScrollRequest(limit=1000))
        self._shard.update(edge.UpdateOperation.delete_points([record.id for record in old]))
        points = [edge.Point(i, {"v": [1.0]}, _stored(row)) for i, row in enumerate(rows)]
        self._shard.update(edge.UpdateOperation.upsert_points(points))

    def select(self, filter: models.Filter) -> list[int]:
        records, _ = self._shard.scroll(edge.ScrollRequest(limit=1000, filter=to_edge(filter)))
        return sorted(int(str(record.id)) for record in records)


class _ServerTable:
    """The same in a collection of a Qdrant server."""

    def __init__(self, server: QdrantServer, indexes: dict[str, Any], prefer_grpc: bool) -> None:
        self._client = QdrantClient(
            url=server.url, grpc_port=server.grpc_port, prefer_grpc=prefer_grpc, check_compatibility=False
        )
        self._name = f"filters-{uuid.uuid4().hex}"
        vectors = models.VectorParams(size=1, distance=models.Distance.DOT)
        self._client.create_collection(self._name, {"v": vectors})
        for name, schema in indexes.items():
            self._client.create_payload_index(self._name, payload_key(name), schema)
        self.knows_parts = True
        try:
            self.select(_translate("category LIKE 'B%'"))
        except FilterError:
            self.knows_parts = False

    def fill(self, rows: list[Row]) -> None:
        self._client.delete(self._name, models.Filter())
        points = [models.PointStruct(id=i, vector={"v": [1.0]}, payload=_stored(row)) for i, row in enumerate(rows)]
        self._client.upsert(self._name, points)

    def select(self, filter: models.Filter) -> list[int]:
        with engine_errors("filter"):
            records, _ = self._client.scroll(self._name, scroll_filter=filter, limit=1000)
        return sorted(int(str(record.id)) for record in records)

    def close(self) -> None:
        self._client.delete_collection(self._name)
        self._client.close()


@pytest.fixture(scope="module", params=["embedded", "server"])
def tables(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[_Table]]:
    """One table without payload indexes, one with, and one whose index of whole numbers is of no use for ranges."""
    if request.param == "embedded":
        lookup = {"stock": edge.IntegerIndexParams(lookup=True, range=False)}
        yield [_Shard(str(tmp_path_factory.mktemp("shard")), indexes) for indexes in ({}, INDEXES, INDEXES | lookup)]
        return
    server = request.getfixturevalue("qdrant_server")
    indexes: dict[str, Any] = {name: str(schema).rpartition(".")[2].lower() for name, schema in INDEXES.items()}
    stock = models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=True, range=False)
    made = [_ServerTable(server, {}, True), _ServerTable(server, indexes, False)]
    made.append(_ServerTable(server, indexes | {"stock": stock}, True))
    yield made
    for table in made:
        table.close()


_PARTS = re.compile("LIKE '.*%|CONTAINS")


def _translate(text: str) -> models.Filter:
    translated = QdrantFilterTranslator(TYPES).translate(parse_filter(text))
    assert translated is not None
    return translated


@pytest.mark.parametrize("name", COLUMNS)
def test_every_comparison_means_what_it_means_in_sql(tables: Sequence[_Table], name: str) -> None:
    """Each operator with each literal selects from Qdrant exactly the values for which SQL finds it true."""
    values, equal, ordered = COLUMNS[name]
    rows: list[Row] = [{}, {name.strip('"'): None}, *({name.strip('"'): value} for value in values)]
    cases = [(form, [literal]) for form in ("=", "!=") for literal in equal]
    cases += [(form, [literal, equal[0]]) for form in ("IN", "NOT IN") for literal in equal]
    cases += [(form, [literal]) for form in ORDER_FORMS[:4] for literal in ordered]
    cases += [(form, [ordered[0], literal]) for form in ORDER_FORMS[4:] for literal in ordered]
    conditions = [_comparison(name, form, literals) for form, literals in cases] + _special(name)
    expected = {text: [i for i, row in enumerate(rows) if truth(row)] for text, truth in conditions}
    for table in tables:
        table.fill(rows)
        known = {text: found for text, found in expected.items() if table.knows_parts or not _PARTS.search(text)}
        assert {text: table.select(_translate(text)) for text in known} == known
        for text in expected.keys() - known.keys():
            with pytest.raises(FilterError, match="does not know LIKE and CONTAINS"):
                table.select(_translate(text))


@settings(max_examples=200, deadline=None)
@given(condition=CONDITIONS, rows=st.lists(ROWS, min_size=1, max_size=6))
def test_any_condition_means_what_it_means_in_sql(
    tables: Sequence[_Table], condition: tuple[str, Truth], rows: list[Row]
) -> None:
    """Any condition selects from Qdrant exactly the rows for which SQL finds it true."""
    text, truth = condition
    expected = [i for i, row in enumerate(rows) if truth(row)]
    for table in tables:
        if table.knows_parts or not _PARTS.search(text):
            table.fill(rows)
            assert table.select(_translate(text)) == expected


EDGE_REALS = [
    19.99, 0.3, 0.1 + 0.2, 1 / 3, -1 / 3, 2 / 3 * 1e9, 1e300 / 7, 5e-324, 0.0, -0.0, 1.7976931348623157e308,
    *(_float32(value) for value in (19.99, 0.3, 0.1, 7.77, 1e-40, 1e30, 3.4028234663852886e38)),
]  # fmt: skip
REAL_NUMBERS = st.sampled_from(EDGE_REALS) | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), numbers=st.lists(REAL_NUMBERS, min_size=1, max_size=30))
def test_real_numbers_of_any_length_equal_themselves(
    tables: Sequence[_Table], data: st.DataObject, numbers: list[float]
) -> None:
    """=, !=, IN, NOT IN, <= and >= find a number of 17 digits, too, which Qdrant may read as its neighbour."""
    asked = data.draw(st.lists(st.sampled_from(numbers), min_size=1, max_size=3))
    forms = ["=", "!=", "IN", "NOT IN", "<=", ">="]
    conditions = [_comparison("price", form, [(repr(value), value) for value in asked]) for form in forms]
    # Numbers that are next to another one are what Qdrant may mistake for it.
    far = [n for n in dict.fromkeys(numbers) if not any(0 < abs(n - a) <= 4 * math.ulp(a) for a in asked)]
    rows: list[Row] = [{"price": number} for number in far]
    for table in tables:
        table.fill(rows)
        for text, truth in conditions:
            assert table.select(_translate(text)) == [i for i, row in enumerate(rows) if truth(row)], text


@settings(max_examples=60, deadline=None)
@given(data=st.data(), numbers=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_float32_features_compare_as_float32(
    tables: Sequence[_Table], data: st.DataObject, numbers: list[float]
) -> None:
    """Every comparison with a Float32 feature rounds its number to float32 first, however it is written."""
    literals: list[tuple[str, Any]] = [
        (data.draw(st.sampled_from([repr(n), str(np.float32(n))])), n)
        for n in data.draw(st.lists(st.sampled_from(numbers), min_size=1, max_size=3))
    ]
    rows: list[Row] = [{"bias": number} for number in numbers] + [{}]
    for form in ["=", "!=", "IN", "NOT IN", *ORDER_FORMS]:
        text, truth = _comparison("bias", form, literals)
        expected = [i for i, row in enumerate(rows) if truth(row)]
        for table in tables:
            table.fill(rows)
            assert table.select(_translate(text)) == expected, text


def test_infinite_numbers_are_no_nulls(tables: Sequence[_Table]) -> None:
    """JSON has no infinity: it matches no comparison, but is not taken for missing."""
    for table in tables:
        table.fill([{"price": math.inf, "bias": -math.inf}, {"price": 1.0, "bias": 1.0}, {}])
        assert table.select(_translate("price IS NULL")) == table.select(_translate("bias IS NULL")) == [2]
        assert table.select(_translate("price IS NOT NULL AND bias IS NOT NULL")) == [0, 1]
        assert table.select(_translate("price > 0 OR bias < 0")) == [1]


@pytest.mark.parametrize(("name", "made"), [("category", str), ("stock", int), ("price", float)])
def test_thousands_of_values(tables: Sequence[_Table], name: str, made: Callable[[int], Any]) -> None:
    """IN and NOT IN take as many values as the HTTP API takes ids."""
    literals = ", ".join(repr(made(n)) for n in range(5, 10_005))
    for table in tables:
        table.fill([{name: made(n)} for n in (4, 5, 77, 10_004, 10_005)] + [{}])
        assert table.select(_translate(f"{name} IN ({literals})")) == [1, 2, 3]
        assert table.select(_translate(f"{name} NOT IN ({literals})")) == [0, 4]


def eq(key: str, value: Any) -> ComparisonFilter:
    return ComparisonFilter(type="eq", key=key, value=value)


def cmp(key: str, type: Any, value: Any) -> ComparisonFilter:
    return ComparisonFilter(type=type, key=key, value=value)


def extended(key: str, type: Any, value: Any = None) -> ExtendedComparison:
    return ExtendedComparison(type=type, key=key, value=value)


def both(*filters: Any) -> CompoundFilter:
    return CompoundFilter(type="and", filters=list(filters))


def either(*filters: Any) -> CompoundFilter:
    return CompoundFilter(type="or", filters=list(filters))


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("category = 'Books' AND price < 20", both(eq("category", "Books"), cmp("price", "lt", 20))),
        ("a == 1", eq("a", 1)),
        ("a != 1", cmp("a", "ne", 1)),
        ("a <> -1.5", cmp("a", "ne", -1.5)),
        ("a >= .5", cmp("a", "gte", 0.5)),
        ("a <= 1e3", cmp("a", "lte", 1000.0)),
        ("a > 9007199254740993", cmp("a", "gt", 9007199254740993)),
        ("a = 'it''s'", eq("a", "it's")),
        (r"a = 'C:\n'", eq("a", r"C:\n")),
        ("a = True", eq("a", True)),
        ('"my col" = FALSE', eq("my col", False)),
        ('"a""b" = 1', eq('a"b', 1)),
        ("Price = 1", eq("Price", 1)),
        ("ünï = 1", eq("ünï", 1)),
        ("a IN (1, -2)", cmp("a", "in", [1, -2])),
        ("a not in ('x')", cmp("a", "nin", ["x"])),
        ("a BETWEEN 1 AND 2 AND b = 3", both(both(cmp("a", "gte", 1), cmp("a", "lte", 2)), eq("b", 3))),
        ("a NOT BETWEEN 1 AND 2", either(cmp("a", "lt", 1), cmp("a", "gt", 2))),
        ("a = 1 OR b = 2 AND c = 3", either(eq("a", 1), both(eq("b", 2), eq("c", 3)))),
        ("(a = 1 OR b = 2) AND c = 3", both(either(eq("a", 1), eq("b", 2)), eq("c", 3))),
        ("a = 1 AND b = 2 AND c = 3", both(eq("a", 1), eq("b", 2), eq("c", 3))),
        ("NOT a = 1 AND b = 2", both(cmp("a", "ne", 1), eq("b", 2))),
        ("NOT NOT a < 1", cmp("a", "lt", 1)),
        (
            "NOT (a < 1 OR NOT (b IN (2) AND c >= 3))",
            both(cmp("a", "gte", 1), both(cmp("b", "in", [2]), cmp("c", "gte", 3))),
        ),
        ("date = 1 AND select = 2 AND case > 3", both(eq("date", 1), eq("select", 2), cmp("case", "gt", 3))),
        ("\n a\t=\n1 ", eq("a", 1)),
        ("a=- 1AND b<20and c=.5", both(eq("a", -1), cmp("b", "lt", 20), eq("c", 0.5))),
        ("in = 1 AND like = 2 AND contains = 3", both(eq("in", 1), eq("like", 2), eq("contains", 3))),
        ("notes = 1 AND NOT android", both(eq("notes", 1), cmp("android", "ne", True))),
        ("active", eq("active", True)),
        ('NOT "is new"', cmp("is new", "ne", True)),
        ("active AND (a = 1 OR NOT NOT b)", both(eq("active", True), either(eq("a", 1), eq("b", True)))),
        ("a IS NULL", extended("a", "is_null")),
        ("a is not null", extended("a", "not_null")),
        ("NOT a IS NULL", extended("a", "not_null")),
        ("a CONTAINS '50%_'", extended("a", "contains", "50%_")),
        ("a NOT CONTAINS ''", extended("a", "not_contains", "")),
        ("a LIKE 'it''s%'", extended("a", "starts", "it's")),
        ("a NOT LIKE '%x y%'", extended("a", "not_contains", "x y")),
        ("NOT a LIKE 'x%'", extended("a", "not_starts", "x")),
        ("a LIKE 'x'", eq("a", "x")),
        ("a NOT LIKE 'x'", cmp("a", "ne", "x")),
        ("a LIKE ''", eq("a", "")),
        ("a LIKE '%%'", extended("a", "contains", "")),
        (r"a LIKE 'sku\_1\%\\%'", extended("a", "starts", "sku_1%\\")),
        (r"a LIKE 'C:\new'", eq("a", r"C:\new")),
    ],
)
def test_parses(text: str, tree: ComparisonFilter | CompoundFilter) -> None:
    """Text of the grammar becomes Feast's tree, with NOT pushed down to the comparisons."""
    assert parse_filter(text) == tree


def test_parses_long_chains() -> None:
    """A chain of thousands of conditions is flat, not deep."""
    tree = parse_filter(" OR ".join(["a = 1 AND b = 2"] * 3000))
    assert tree == either(*[both(eq("a", 1), eq("b", 2))] * 3000)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("-- nothing", "comments are not supported"),
        ("a = 1; b = 2", "expected AND, OR, ',', ')' or the end, got ';' after 'a = 1'"),
        ("a = 1 -- all", "comments are not supported"),
        ("a /* x */ = 1", "comments are not supported"),
        ("lower(a) = 'x'", "functions are not supported, but 'lower'"),
        ('"f"(a) = 1', "functions are not supported, but '\"f\"'"),
        ("a IN (SELECT 1)", "expected a value (text in 'single quotes'), got 'SELECT'"),
        ("a IN ()", "expected a value (text in 'single quotes'), got ')'"),
        ("a IN 1", "expected values in parentheses, got '1'"),
        ("a IN (1 2)", "expected AND, OR, ',', ')' or the end, got '2'"),
        ("EXISTS (a = 1)", "functions are not supported, but 'EXISTS'"),
        ("a = b", "expected a value (text in 'single quotes'), got 'b'"),
        ('a = "Books"', "expected a value (text in 'single quotes'), got '\"Books\"'"),
        ("a IN (b)", "expected a value (text in 'single quotes'), got 'b'"),
        ("1 = 1", "expected the name of a feature, got '1'"),
        ("a = NULL", "expected a value (text in 'single quotes'), got 'NULL'"),
        ("a IS 3", "expected NULL, got '3'"),
        ("a IS NOT", "expected NULL, got the end"),
        ("a LIKE 3", "expected a value (text in 'single quotes'), got '3'"),
        ("a LIKE b", "expected a value (text in 'single quotes'), got 'b'"),
        ("a LIKE 'x' ESCAPE '!'", "expected AND, OR, ',', ')' or the end, got 'ESCAPE'"),
        ("a LIKE 'x%y'", "LIKE 'x%y' is not supported, only 'start%', '%part%'"),
        ("a LIKE '%x'", "LIKE '%x' is not supported"),
        ("a LIKE 'x_'", "LIKE 'x_' is not supported"),
        ("a LIKE '%x_y%'", "LIKE '%x_y%' is not supported"),
        ("a = 1 - 2", "expected AND, OR, ',', ')' or the end, got '-'"),
        ("a = 1 + 2", "expected AND, OR, ',', ')' or the end, got '+'"),
        ("a = -'x'", "expected a value (text in 'single quotes'), got \"-'x'\""),
        ("a = 1 = 2", "expected AND, OR, ',', ')' or the end, got '='"),
        ("t.a = 1", "expected a comparison, got '.a' after 't'"),
        ("a = 'x' 'y'", "expected AND, OR, ',', ')' or the end, got \"'y'\""),
        ("a = DATE '2026-01-01'", "got 'DATE'"),
        ("a = CURRENT_DATE", "got 'CURRENT_DATE'"),
        ("a = 1 LIMIT 3", "got 'LIMIT'"),
        ("a = 1 ORDER = 2", "got 'ORDER'"),
        ("a = 1 AND", "expected the name of a feature, got the end after 'a = 1 AND'"),
        ("(a = 1", "expected ')', got the end"),
        ("a = 1)", "expected the end, got ')'"),
        ("a b", "expected a comparison, got 'b'"),
        ("a NOT 1", "expected IN, BETWEEN, LIKE or CONTAINS, got '1'"),
        ("a = 'x", "a quote is not closed"),
        ('"a = 1', "a quote is not closed"),
        ("a = 1e400", "the number 1e400 is out of range"),
        ("a = 1e", "expected AND, OR, ',', ')' or the end, got 'e'"),
        ("a = 1_0", "expected AND, OR, ',', ')' or the end, got '_0'"),
        ("a = 0x10", "got 'x10'"),
        ("a = ７", "expected a value (text in 'single quotes'), got '７'"),
        ("a = " + "9" * 5000, "is out of range"),
        ("a = ?", "got '?'"),
        ("a[0] = 1", "got '[0]"),
        ("a = 'x\ny' z\n", "got 'z'"),
        ("a = '\ud800'", "it is not valid Unicode"),
        ("SHOW TABLES", "got 'TABLES'"),
        ("DROP TABLE a", "got 'TABLE'"),
        ("(" * 17 + "a = 1" + ")" * 17, "nested too deeply, at most 16 levels"),
        ("(" * 500_000, "nested too deeply"),
        ("NOT " * 200_000 + "a = 1", "nested too deeply"),
        ("a = " + "- " * 30_000 + "1", "expected a value"),
        ("a = 1 OR " * 100_000, "it has more than 10,000 comparisons"),
        ("a IN (" + "1," * 500_000, "it has more than 20,000 values"),
        ("a = '" + "x" * 1_048_576, "it has 1,048,581 characters, at most 1,048,576"),
    ],
)
def test_refuses_other_text(text: str, problem: str) -> None:
    """Text outside the grammar is refused on one line that says what is wrong and what is supported."""
    with pytest.raises(FilterError) as caught:
        parse_filter(text)
    message = str(caught.value)
    assert problem in message
    assert "supported: name = value" in message
    assert "\n" not in message


WORDS = ["a", "1", "'x'", "(", ")", ",", ".", "=", "<", "-", "AND", "OR", "NOT", "IN", "BETWEEN", "NULL", "IS", "LIKE"]
WORDS += ["CONTAINS", "'x%'", "TRUE"]
OTHER_WORDS = ["SELECT", "CASE", "INTERVAL", "CAST", "json_extract", "::", "[", ";", "--", "$$", "{{", "@", "SHOW", '"']


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(WORDS + OTHER_WORDS) | st.text(max_size=3), max_size=12).map(" ".join))
def test_any_text_is_parsed_or_refused_in_silence(text: str) -> None:
    """Whatever comes in, either a tree or a FilterError comes out, and nothing is logged."""
    handler = logging.handlers.BufferingHandler(capacity=1000)
    logging.getLogger().addHandler(handler)
    try:
        tree = parse_filter(text)
        assert isinstance(tree, ComparisonFilter | CompoundFilter)
    except FilterError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
    finally:
        logging.getLogger().removeHandler(handler)
    assert handler.buffer == []


@pytest.mark.parametrize(
    ("filter", "problem"),
    [
        (
            eq("categori", "x"),
            "there is no feature 'categori', did you mean 'category'?; filters can use: added, bias, ",
        ),
        (eq("embedding", 1.0), "feature 'embedding' is of type FLOAT_LIST, which cannot be filtered on"),
        (eq("blob", "x"), "feature 'blob' is of type BYTES, which cannot be filtered on"),
        (eq("map", "x"), "feature 'map' is of type MAP, which cannot be filtered on"),
        (eq("category", 5), "'category' is of type STRING and is compared with text, not with int 5"),
        (eq("category", True), "'category' is of type STRING and is compared with text, not with bool True"),
        (eq("stock", "5"), "'stock' is of type INT64 and is compared with a number, not with str '5'"),
        (eq("stock", True), "compared with a number, not with bool True"),
        (cmp("price", "lt", "5"), "'price' is of type DOUBLE and is compared with a number, not with str '5'"),
        (cmp("price", "lt", math.nan), "not with float nan"),
        (cmp("price", "lt", math.inf), "not with float inf"),
        (eq("price", 10**400), "compared with a number, not with int 1000"),
        (eq("on_sale", 1), "'on_sale' is of type BOOL and is compared with TRUE or FALSE, not with int 1"),
        (eq("on_sale", "true"), "not with str 'true'"),
        (eq("added", "yesterday"), "compared with an ISO 8601 time or seconds since 1970, not with str 'yesterday'"),
        (eq("category", None), "not with NoneType None"),
        (eq("category", "\ud800"), r"not with str '\ud800'"),
        (cmp("category", "in", ["x", 1]), "not with int 1"),
        (cmp("category", "lt", "x"), "'category' is of type STRING, which Qdrant does not order"),
        (cmp("on_sale", "gt", False), "'on_sale' is of type BOOL, which Qdrant does not order"),
        (cmp("sizes", "gt", 1), "'sizes' is of type INT64_LIST, which Qdrant does not order"),
        (cmp("stock", "lt", 2**51), "'stock' can only be ordered by numbers below 2**51, got 2251799813685248"),
        (cmp("stock", "gte", -1e300), "got -1e+300"),
        (extended("stock", "starts", "1"), "'stock' is of type INT64, and LIKE and CONTAINS are for text"),
        (extended("category", "contains", 5), "'category' is of type STRING and is compared with text, not with int 5"),
        (extended("blob", "is_null"), "feature 'blob' is of type BYTES, which cannot be filtered on"),
        (cmp("category", "in", []), "IN of 'category' needs at least one value"),
        (cmp("category", "nin", "x"), "IN of 'category' needs at least one value"),
        (CompoundFilter(type="and", filters=[]), "an AND without conditions"),
        (both(either()), "an OR without conditions"),
    ],
)
def test_refuses_what_cannot_be_translated(filter: ComparisonFilter | CompoundFilter, problem: str) -> None:
    """A feature that cannot be filtered on, or a value that does not fit it, is named."""
    with pytest.raises(FilterError) as caught:
        QdrantFilterTranslator(TYPES).translate(filter)
    assert problem in str(caught.value)


def test_refuses_deep_trees() -> None:
    """A tree deeper than Qdrant should be asked to walk is refused, however deep."""
    tree: ComparisonFilter | CompoundFilter = eq("stock", 1)
    for _ in range(31):
        tree = both(tree)
    assert QdrantFilterTranslator(TYPES).translate(tree) is not None
    for _ in range(5000):
        tree = CompoundFilter.model_construct(type="and", filters=[tree])
    with pytest.raises(FilterError, match="at most 32 levels"):
        QdrantFilterTranslator(TYPES).translate(tree)


def test_no_filter_is_no_filter() -> None:
    """None, which Feast passes for no filter, stays None."""
    assert QdrantFilterTranslator(TYPES).translate(None) is None


def test_translates_to_plain_conditions() -> None:
    """A conjunction of comparisons is one flat Qdrant filter, so that Qdrant can plan it with its indexes."""
    assert _translate("category = 'Books' AND price < 20") == models.Filter(
        must=[
            models.FieldCondition(key="category", match=models.MatchAny(any=["Books"])),
            models.FieldCondition(key="price", range=models.Range(lt=20.0)),
        ]
    )


@pytest.mark.parametrize(
    ("name", "key"),
    [("a-b_1", "a-b_1"), ("my col", '"my col"'), ("a.b", '"a.b"'), ("a[0]", '"a[0]"'), ("é", '"é"')],
)
def test_payload_keys_are_quoted_where_needed(tables: Sequence[_Table], name: str, key: str) -> None:
    """A feature of any name is found in the payload under that very name."""
    assert payload_key(name) == key
    tables[0].fill([{name: "x"}, {"a": "x"}, {"a": {"b": "x"}}, {"a": ["x"]}])
    translated = QdrantFilterTranslator({name: ValueType.STRING}).translate(eq(name, "x"))
    assert translated is not None
    assert tables[0].select(translated) == [0]


@pytest.mark.parametrize("name", ['a"b', "a\\b", ""])
def test_refuses_names_that_qdrant_cannot_address(name: str) -> None:
    """Qdrant's paths have no escapes, so a name with a quote or backslash is refused."""
    with pytest.raises(FilterError, match="Qdrant cannot address this name"):
        QdrantFilterTranslator({name: ValueType.STRING}).translate(eq(name, "x"))


def _field(**test: Any) -> models.FieldCondition:
    return models.FieldCondition(key="category", **test)


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (models.Filter(must=_field(match=models.MatchValue(value="Books"))), [0]),
        (models.Filter(must=[_field(match=models.MatchExcept(**{"except": ["Books"]}))]), [1]),
        (models.Filter(must=[_field(match=models.MatchPrefix(prefix="Game"))]), [1]),
        (models.Filter(must=[_field(match=models.MatchSubstring(substring="me s"))]), [1]),
        (models.Filter(must=[_field(is_empty=True)]), [2, 3]),
        (models.Filter(must=[_field(is_null=True)]), [2]),
        (models.Filter(must=[models.IsNullCondition(is_null=models.PayloadField(key="category"))]), [2]),
        (models.Filter(must_not=[models.HasIdCondition(has_id=[1, 3])]), [0, 2]),
        (models.Filter(), [0, 1, 2, 3]),
    ],
)
def test_to_edge(tables: Sequence[_Table], filter: models.Filter, expected: list[int]) -> None:
    """Every kind of condition that Qdrant's client can express and we pass on keeps its meaning."""
    if not tables[0].knows_parts and re.search("prefix|substring", str(filter)):
        pytest.skip("the server does not know LIKE and CONTAINS")
    tables[0].fill([{"category": "Books"}, {"category": "Game sets"}, {"category": None}, {}])
    assert tables[0].select(filter) == expected


@pytest.mark.parametrize(
    ("filter", "named"),
    [
        (models.Filter(must=[models.HasVectorCondition(has_vector="v")]), "HasVectorCondition"),
        (models.Filter(min_should=models.MinShould(conditions=[], min_count=1)), "min_should"),
        (models.Filter(must=[_field(values_count=models.ValuesCount(gt=1))]), "FieldCondition with values_count"),
        (
            models.Filter(must=[_field(range=models.DatetimeRange(gt=datetime(2026, 1, 1, tzinfo=UTC)))]),
            "FieldCondition with range",
        ),
        (models.Filter(must=[_field(is_null=True, is_empty=True)]), "FieldCondition with is_empty, is_null"),
        (models.Filter(must=[_field()]), "FieldCondition with nothing"),
        (models.Filter(must=[_field(match=models.MatchPhrase(phrase="x"))]), "MatchPhrase"),
        (models.Filter(must=[models.FieldCondition(key="a b", is_null=True)]), "invalid JSON path a b"),
    ],
)
def test_to_edge_refuses_what_it_does_not_pass_on(filter: models.Filter, named: str) -> None:
    """A condition is never dropped or guessed at."""
    with pytest.raises(EngineError, match=named):
        to_edge(filter)


def test_refuses_what_is_stored_as_one_value() -> None:
    """A condition on it would find nothing, whatever is in it; what can be asked is listed without it."""
    translator = QdrantFilterTranslator(TYPES, whole={"tags"})
    for text in ("tags = 'new'", "tags IS NULL", "tags LIKE 'n%'"):
        with pytest.raises(FilterError, match=r"'tags' is stored as one value.*filters can use") as caught:
            translator.translate(parse_filter(text))
        assert "tags" not in str(caught.value).partition("filters can use")[2]
