"""The codec between Feast's rows and Qdrant's points, without either of them."""

from __future__ import annotations

import json
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp
from hypothesis import given
from hypothesis import strategies as st

from feast_embeddings._feast.private import EntityKeyProto, ValueProto
from feast_embeddings.codec.collection import BIAS_TAG, UNLINKED_TAG, collection_spec, vector_fields
from feast_embeddings.codec.columns import encode_rows
from feast_embeddings.codec.rows import PointCodec, point_ids
from feast_embeddings.engines.engine import PointBatch, StoredPoint
from feast_embeddings.errors import InputError
from feast_embeddings.times import from_microseconds, to_microseconds

TYPES: dict[str, Any] = {
    "text": String,
    "i32": Int32,
    "i64": Int64,
    "f32": Float32,
    "f64": Float64,
    "flag": Bool,
    "moment": UnixTimestamp,
    "raw": Bytes,
    "words": Array(String),
    "numbers": Array(Int64),
    "reals": Array(Float64),
    "bias": Float32,
}
INT32, INT64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
# Text that UTF-8, and so protobuf, can hold.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FINITE32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def lists(name: str, elements: st.SearchStrategy[Any]) -> st.SearchStrategy[ValueProto]:
    def build(values: list[Any]) -> ValueProto:
        value = ValueProto()
        getattr(value, name).SetInParent()
        getattr(value, name).val.extend(values)
        return value

    return st.lists(elements, max_size=4).map(build)


def scalars(name: str, elements: st.SearchStrategy[Any]) -> st.SearchStrategy[ValueProto]:
    def build(element: Any) -> ValueProto:
        value = ValueProto()
        setattr(value, name, element)
        return value

    return elements.map(build)


VALUES = {
    "text": scalars("string_val", TEXT),
    "i32": scalars("int32_val", INT32),
    "i64": scalars("int64_val", INT64) | scalars("int32_val", INT32),  # a writer may send another kind than declared
    "f32": scalars("float_val", st.floats(width=32, allow_nan=False)),
    "f64": scalars("double_val", st.floats(allow_nan=False)),
    "flag": scalars("bool_val", st.booleans()),
    "moment": scalars("unix_timestamp_val", INT64),
    "raw": scalars("bytes_val", st.binary(max_size=9)),
    "words": lists("string_list_val", TEXT),
    "numbers": lists("int64_list_val", INT64),
    "reals": lists("double_list_val", st.floats(allow_nan=False)),
    "bias": scalars("float_val", FINITE32),
}


def make_codec() -> PointCodec:
    vector = Field(
        name="vector", dtype=Array(Float32), vector_index=True, vector_length=3, vector_search_metric="cosine",
        tags={BIAS_TAG: "bias"},
    )  # fmt: skip
    view = FeatureView(
        name="view",
        entities=[Entity(name="thing", join_keys=["id"], value_type=ValueType.STRING)],
        schema=[Field(name="id", dtype=String), vector, *(Field(name=n, dtype=t) for n, t in TYPES.items())],
        source=FileSource(path="nowhere.parquet", timestamp_field="event_timestamp"),
    )
    # Feast fills this from the entity when a view is applied.
    view.entity_columns = [Field(name="id", dtype=String)]
    return PointCodec(view, vector_fields(view))


CODEC = make_codec()


def make_row(id: str, values: dict[str, ValueProto], at: datetime) -> Any:
    key = EntityKeyProto(join_keys=["id"], entity_values=[ValueProto(string_val=id)])
    return key, values, at, None


def stored(batch: PointBatch, i: int) -> StoredPoint:
    """Point i as an engine would give it back: through JSON, vectors as they are."""
    vectors = {name: matrix[i] for name, (matrix, mask) in batch.vectors.items() if mask[i]}
    return StoredPoint(batch.ids[i], json.loads(json.dumps(batch.payloads[i], allow_nan=False)), vectors)


@given(
    values=st.fixed_dictionaries({}, optional=VALUES),
    vector=st.none() | st.lists(FINITE32, min_size=3, max_size=3),
    id=TEXT,
    at=st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC)),
)
def test_what_goes_in_comes_out(
    values: dict[str, ValueProto], vector: list[float] | None, id: str, at: datetime
) -> None:
    """Encode then decode is the identity: every type, nulls, empty lists, infinities, any time, any key."""
    if vector is not None:
        values["vector"] = ValueProto()
        values["vector"].float_list_val.val.extend(vector)
    batch = encode_rows(CODEC, [make_row(id, values, at)])
    point = stored(batch, 0)
    moment, decoded = CODEC.decode(point)
    assert moment == at
    assert {name: value for name, value in decoded.items() if value.WhichOneof("val")} == values
    assert set(decoded) == {*TYPES, "vector"}
    assert CODEC.entity_key(point) == make_row(id, {}, at)[0]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), min_size=1, max_size=20))
def test_the_newest_row_of_a_batch_wins(rows: list[tuple[str, int]]) -> None:
    """Of the rows of one entity the newest is encoded, the later one on a tie: what a dictionary would do."""
    oracle: dict[str, tuple[int, int]] = {}
    for place, (id, age) in enumerate(rows):
        if id not in oracle or age >= oracle[id][0]:
            oracle[id] = (age, place)
    data = [
        make_row(id, {"i64": ValueProto(int64_val=place)}, from_microseconds(age))
        for place, (id, age) in enumerate(rows)
    ]
    batch = encode_rows(CODEC, data)
    assert {p["id"]: (p["_event_timestamp"], p["i64"]) for p in batch.payloads} == oracle
    assert len(set(batch.ids)) == len(oracle)


@given(st.datetimes(timezones=st.none() | st.just(UTC)))
def test_times_are_exact(moment: datetime) -> None:
    """Microseconds survive; a time without a zone is UTC."""
    assert from_microseconds(to_microseconds(moment)) == moment.replace(tzinfo=UTC)


def test_ids_are_stable() -> None:
    """The id of an entity is a fixed function of its key: changing it would orphan every stored point."""
    assert CODEC.point_ids_of(["sku-1"]) == ["207fc4db-d4ee-5ae6-a339-2223ba2f6393"]
    ids = set(CODEC.point_ids_of([str(i) for i in range(10_000)]))
    assert len(ids) == 10_000
    assert all(UUID(str(id)).version == 5 for id in ids)


@pytest.mark.parametrize(
    ("number", "id"), [(0, 0), (42, 42), (2**63 - 1, 2**63 - 1), (-1, 2**64 - 1), (-(2**63), 2**63)]
)
def test_the_id_of_a_number_is_the_number(number: int, id: int) -> None:
    """A single whole number is its own id, in two's complement; two of them are hashed like any other key."""
    value = ValueProto(int64_val=number)
    one = EntityKeyProto(join_keys=["n"], entity_values=[value])
    two = EntityKeyProto(join_keys=["a", "b"], entity_values=[value, value])
    hashed = point_ids([two])[0]
    assert isinstance(hashed, str)
    assert point_ids([one, two, one]) == [id, hashed, id]


@given(st.lists(TEXT, max_size=5))
def test_ids_of_plain_texts_are_those_of_their_keys(texts: list[str]) -> None:
    """The short way, without a protobuf per id, gives what Feast's bytes of the keys give."""
    keys = [EntityKeyProto(join_keys=["id"], entity_values=[ValueProto(string_val=text)]) for text in texts]
    assert CODEC.point_ids_of(texts) == point_ids(keys)


@pytest.mark.parametrize(("dtype", "bits"), [(Int32, 32), (Int64, 64)])
@given(data=st.data())
def test_ids_of_plain_numbers_are_those_of_their_keys(dtype: Any, bits: int, data: st.DataObject) -> None:
    """In two's complement, too; one that Feast's type cannot hold has no point."""
    numbers = data.draw(st.lists(st.integers(-(2**70), 2**70) | INT64 | INT32, max_size=5))
    view = FeatureView(name="view", entities=[], source=CODEC.view.batch_source, schema=[])
    view.entity_columns = [Field(name="n", dtype=dtype)]
    codec = PointCodec(view, {})
    if all(-(2 ** (bits - 1)) <= n < 2 ** (bits - 1) for n in numbers):
        keys = [EntityKeyProto(join_keys=["n"], entity_values=[ValueProto(int64_val=n)]) for n in numbers]
        assert codec.point_ids_of(numbers) == point_ids(keys)
    else:
        with pytest.raises(ValueError, match=f"more than {bits} bits"):
            codec.point_ids_of(numbers)


def test_the_bias_is_one_more_coordinate() -> None:
    """A field with a bias is stored as [vector, bias] and searched by cosine on the vector alone."""
    values = {"vector": ValueProto(), "bias": ValueProto(float_val=0.5)}
    values["vector"].float_list_val.val.extend([3, 0, 4])
    batch = encode_rows(CODEC, [make_row("a", values, datetime.now(UTC))])
    assert batch.vectors["vector"][0].tolist() == [[3, 0, 4, 0.5]]
    assert batch.vectors["vector__cosine"][0].tolist() == [[3, 0, 4]]
    spec = collection_spec(CODEC.view, "alias", CODEC.fields, {"vector": 3})
    assert {name: (v.size, v.distance) for name, v in spec.vectors.items()} == {
        "vector": (4, "Dot"),
        "vector__cosine": (3, "Cosine"),
    }


@pytest.mark.parametrize(
    ("vector", "message"),
    [([1.0, 2.0], "length 3, got one of length 2"), ([1.0, float("nan"), 0.0], "NaN or infinity")],
)
def test_vectors_that_cannot_be_searched_are_refused(vector: list[float], message: str) -> None:
    """A wrong length, NaN or infinity is an error that names the view and the field."""
    value = ValueProto()
    value.float_list_val.val.extend(vector)
    with pytest.raises(InputError, match=f"'view', field 'vector'.*{message}"):
        encode_rows(CODEC, [make_row("a", {"vector": value}, datetime.now(UTC))])


def test_payload_indexes_follow_the_types() -> None:
    """Everything that can be filtered on has an index, with a ttl the event timestamp; bytes and real lists cannot."""
    expiring = copy(CODEC.view)
    expiring.ttl = timedelta(days=1)
    spec = collection_spec(CODEC.view, "alias", CODEC.fields, {"vector": 3})
    with_ttl = collection_spec(expiring, "alias", CODEC.fields, {"vector": 3})
    assert with_ttl.payload_indexes == {"_event_timestamp": "integer", **spec.payload_indexes}
    assert spec.payload_indexes == {
        "bias": "float",
        "f32": "float",
        "f64": "float",
        "flag": "bool",
        "i32": "integer",
        "i64": "integer",
        "id": "keyword",
        "moment": "integer",
        "numbers": "integer",
        "text": "keyword",
        "words": "keyword",
    }
    unlinked = copy(CODEC.view)
    unlinked.features = [
        Field(name=field.name, dtype=field.dtype, tags={UNLINKED_TAG: "true"}) for field in unlinked.features
    ]
    tagged = collection_spec(unlinked, "alias", {}, {}).payload_indexes
    assert tagged == {name: "unlinked" if index == "integer" else index for name, index in spec.payload_indexes.items()}
