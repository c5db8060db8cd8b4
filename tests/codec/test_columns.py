"""The column-wise encoder gives the points of the row-wise one, for every type; the oracle is Feast's conversion."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pyarrow as pa
import pytest
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import (
    Array,
    Bool,
    Bytes,
    FeastType,
    Float32,
    Float64,
    Int32,
    Int64,
    Json,
    Map,
    String,
    UnixTimestamp,
    Uuid,
)
from feast.types import (
    Decimal as FeastDecimal,
)
from feast.utils import _convert_arrow_to_proto
from hypothesis import given, settings
from hypothesis import strategies as st

from feast_embeddings._feast.private import EntityKeyProto, ValueProto, encode_entity_key
from feast_embeddings.codec.collection import BIAS_TAG, UNINDEXED_TAG, vector_fields
from feast_embeddings.codec.columns import encode_batch, encode_rows, encode_table
from feast_embeddings.codec.rows import PointCodec, hashed_ids, point_ids
from feast_embeddings.engines.engine import PointBatch, StoredPoint
from feast_embeddings.errors import InputError

NOW = datetime(2026, 6, 1, tzinfo=UTC)
US = pa.timestamp("us", tz="UTC")
# Feast's own conversion goes through float64 where a column has a null; larger numbers are tested apart.
INTS = st.integers(-(2**53), 2**53)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
FLOAT32 = st.floats(width=32)
MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))

# name -> Feast type, Arrow type, values.
COLUMNS: dict[str, tuple[FeastType, pa.DataType, st.SearchStrategy[Any]]] = {
    "text": (String, pa.string(), TEXT),
    "large_text": (String, pa.large_string(), TEXT),
    "symbol": (String, pa.dictionary(pa.int32(), pa.string()), TEXT),
    "i32": (Int32, pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "i64": (Int64, pa.int64(), INTS),
    "small": (Int64, pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    "f32": (Float32, pa.float32(), FLOAT32),
    "narrowed": (Float32, pa.float64(), st.floats()),
    "f64": (Float64, pa.float64(), st.floats()),
    "flag": (Bool, pa.bool_(), st.booleans()),
    "raw": (Bytes, pa.binary(), st.binary(max_size=5)),
    "words": (Array(String), pa.list_(pa.string()), st.lists(TEXT, max_size=3)),
    "numbers": (Array(Int64), pa.list_(pa.int64()), st.lists(INTS, max_size=3)),
    "flags": (Array(Bool), pa.list_(pa.bool_()), st.lists(st.booleans(), max_size=3)),
    "reals": (Array(Float64), pa.list_(pa.float64()), st.lists(st.floats(), max_size=3)),
    "bias": (Float32, pa.float32(), st.floats(width=32, allow_infinity=False)),
}
KEYS: dict[str, tuple[FeastType, ValueType, pa.DataType, st.SearchStrategy[Any]]] = {
    "z_text": (String, ValueType.STRING, pa.string(), TEXT),
    "b_i64": (Int64, ValueType.INT64, pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "i32": (Int32, ValueType.INT32, pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "raw_key": (Bytes, ValueType.BYTES, pa.binary(), st.binary(max_size=5)),
    "moment_key": (UnixTimestamp, ValueType.UNIX_TIMESTAMP, US, MOMENTS),
}


def make_codec(
    features: dict[str, FeastType], keys: dict[str, FeastType], *, vectors: dict[str, Field] | None = None
) -> PointCodec:
    columns = [Field(name=name, dtype=dtype) for name, dtype in keys.items()]
    view = FeatureView(
        name="view",
        entities=[Entity(name=f"of_{name}", join_keys=[name], value_type=ValueType.UNKNOWN) for name in keys],
        schema=[
            *columns,
            *(Field(name=name, dtype=dtype) for name, dtype in features.items()),
            *(vectors or {}).values(),
        ],
        source=FileSource(path="nowhere.parquet", timestamp_field="event_timestamp"),
    )
    # Feast fills these when a view is applied.
    view.entity_columns = columns
    view.features = [field for field in view.features if field.name not in keys]
    return PointCodec(view, vector_fields(view))


def by_rows(codec: PointCodec, batch: pa.RecordBatch) -> PointBatch:
    """The oracle: Feast's protobufs, then our row-wise encoder."""
    join_keys = {column.name: column.dtype.to_value_type() for column in codec.view.entity_columns}
    return encode_rows(codec, _convert_arrow_to_proto(batch, codec.view, join_keys))


def assert_same(left: PointBatch, right: PointBatch) -> None:
    assert left.ids == right.ids
    assert left.payloads == right.payloads
    assert [[type(v) for v in p.values()] for p in map(_sorted, left.payloads)] == [
        [type(v) for v in p.values()] for p in map(_sorted, right.payloads)
    ]
    assert left.timestamps.tolist() == right.timestamps.tolist()
    assert set(left.vectors) == set(right.vectors)
    for name, (matrix, mask) in left.vectors.items():
        assert mask.tolist() == right.vectors[name][1].tolist()
        assert matrix[mask].tobytes() == right.vectors[name][0][mask].tobytes()


def _sorted(payload: dict[str, Any]) -> dict[str, Any]:
    return {name: payload[name] for name in sorted(payload)}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_columns_and_rows_give_the_same_points(data: st.DataObject) -> None:
    """Random tables: ids, payloads and vector bytes are those of the row-wise encoder; nulls and slices included."""
    n = data.draw(st.integers(1, 5), "rows")
    dim = data.draw(st.sampled_from([0, 3]), "declared length")
    list_type = data.draw(
        st.sampled_from([pa.list_(pa.float32()), pa.list_(pa.float32(), 3), pa.large_list(pa.float64())]), "vectors"
    )
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    vector = st.lists(finite, min_size=3, max_size=3)
    arrays = {
        "id": pa.array(range(n), pa.int64()),
        "vector": pa.array(data.draw(st.lists(vector | st.none(), min_size=n, max_size=n), "vector"), list_type),
        "event_timestamp": pa.array(data.draw(st.lists(MOMENTS, min_size=n, max_size=n), "moments"), US),
        "moment": pa.array(data.draw(st.lists(MOMENTS, min_size=n, max_size=n), "feature moments"), US),
    }
    for name, (_, dtype, values) in COLUMNS.items():
        column = data.draw(st.lists(values | st.none(), min_size=n, max_size=n), name)
        arrays[name] = pa.array(column, dtype)
    field = Field(name="vector", dtype=Array(Float32), vector_index=True, vector_length=dim, tags={BIAS_TAG: "bias"})
    codec = make_codec(
        {"moment": UnixTimestamp, **{name: feast for name, (feast, _, _) in COLUMNS.items()}},
        {"id": Int64},
        vectors={"vector": field},
    )
    batch = pa.record_batch(arrays).slice(data.draw(st.integers(0, n - 1), "offset"))
    assert_same(encode_batch(codec, batch), by_rows(codec, batch))


@settings(deadline=None)
@given(st.data())
def test_entity_keys_are_those_of_feast(data: st.DataObject) -> None:
    """Any join keys, in any order and number: ids and key bytes are those of Feast's `serialize_entity_key`."""
    names = data.draw(st.lists(st.sampled_from(list(KEYS)), min_size=1, max_size=3, unique=True))
    row = {name: data.draw(KEYS[name][3], name) for name in names}
    batch = pa.record_batch(
        {name: pa.array([value], KEYS[name][2]) for name, value in row.items()}
        | {"event_timestamp": pa.array([NOW], US)}
    )
    codec = make_codec({}, {name: KEYS[name][0] for name in names})
    points = encode_batch(codec, batch)
    values = []
    for name in names:
        value = ValueProto()
        native = row[name]
        kind = {"z_text": "string_val", "b_i64": "int64_val", "i32": "int32_val", "raw_key": "bytes_val"}.get(name)
        if kind is None:
            value.unix_timestamp_val = (native - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
        else:
            setattr(value, kind, native)
        values.append(value)
    key = EntityKeyProto(join_keys=names, entity_values=values)
    assert points.ids == point_ids([key])
    stored = StoredPoint(points.ids[0], points.payloads[0], {})
    assert encode_entity_key(codec.entity_key(stored)) == encode_entity_key(key)


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_ids_in_bulk_are_ids_one_by_one(keys: list[bytes]) -> None:
    """They are those that the `uuid` module makes."""
    assert hashed_ids(keys) == [str(UUID(bytes=blake2b(key, digest_size=16).digest(), version=5)) for key in keys]


@pytest.mark.parametrize(
    ("feast_type", "array"),
    [
        (Map, pa.array([{"a": "x"}, None], pa.map_(pa.string(), pa.string()))),
        (Json, pa.array(['{"a": [1, null]}', None])),
        (Uuid, pa.array([str(uuid4()), None])),
        (FeastDecimal, pa.array([Decimal("1.10"), None], pa.decimal128(10, 2))),
        (Array(UnixTimestamp), pa.array([[NOW], []], pa.list_(US))),
        (Array(Bytes), pa.array([[b"\x00\xff"], None], pa.list_(pa.binary()))),
        (Array(Array(Int64)), pa.array([[[1, 2], [3]], None], pa.list_(pa.list_(pa.int64())))),
        (UnixTimestamp, pa.array([NOW.date(), None], pa.date32())),
    ],
)
def test_types_that_json_cannot_hold_come_back(feast_type: FeastType, array: pa.Array) -> None:
    """What goes through Feast's conversion is stored, and decoded to the value that Feast makes of it."""
    codec = make_codec({"value": feast_type}, {"id": Int64})
    batch = pa.record_batch({"id": [1, 2], "value": array, "event_timestamp": pa.array([NOW] * 2, US)})
    points = encode_batch(codec, batch)
    stored = [StoredPoint(id, payload, {}) for id, payload in zip(points.ids, points.payloads, strict=True)]
    decoded = [codec.decode(point)[1]["value"] for point in stored]
    assert decoded[0].WhichOneof("val") is not None
    if feast_type is not Map:  # Feast's own path cannot read Arrow maps
        rows = _convert_arrow_to_proto(batch, codec.view, {"id": ValueType.INT64})
        assert decoded == [values["value"] for _, values, _, _ in rows]
    else:
        assert decoded[0].map_val.val["a"].string_val == "x"
        assert decoded[1] == ValueProto()


def test_whole_numbers_beside_a_null_stay_exact() -> None:
    """Feast's conversion rounds 2^53 + 1 in a column with a null; ours does not, and a null timestamp is a null."""
    codec = make_codec({"n": Int64, "at": UnixTimestamp}, {"id": Int64})
    batch = pa.record_batch(
        {
            "id": [1, 2],
            "n": pa.array([2**53 + 1, None], pa.int64()),
            "at": pa.array([NOW, None], US),
            "event_timestamp": pa.array([NOW] * 2, US),
        }
    )
    first, second = encode_batch(codec, batch).payloads
    assert (first["n"], first["at"]) == (2**53 + 1, int(NOW.timestamp()))
    assert {"n", "at"} & set(second) == set()


@pytest.mark.parametrize(
    ("plain", "layouts"),
    [
        (pa.string(), [pa.string_view(), pa.large_string(), pa.dictionary(pa.int8(), pa.string_view())]),
        (pa.binary(), [pa.binary_view(), pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())]),
        (pa.int64(), [pa.dictionary(pa.int32(), pa.int64())]),
        (
            pa.list_(pa.string()),
            [
                pa.list_view(pa.string_view()),
                pa.large_list_view(pa.large_string()),
                pa.large_list(pa.string()),
                pa.list_(pa.string_view()),
                pa.list_(pa.dictionary(pa.int32(), pa.string())),
            ],
        ),
        (pa.list_(pa.int64()), [pa.list_view(pa.int64()), pa.large_list(pa.int64())]),
        (pa.list_(pa.float32()), [pa.list_view(pa.float32()), pa.large_list_view(pa.float32())]),
    ],
    ids=str,
)
def test_layouts_of_arrow_make_no_difference(plain: pa.DataType, layouts: list[pa.DataType]) -> None:
    """A column, or an id, in any layout makes the points of the plain one; slices and nulls included."""
    values: dict[pa.DataType, tuple[FeastType, list[Any]]] = {
        pa.string(): (String, ["", "a", "a", "long enough for no view to hold it", "ä"]),
        pa.binary(): (Bytes, [b"", b"a", b"a", b"\xff" * 30, b"b"]),
        pa.int64(): (Int64, [0, 1, 1, 2**53 + 1, -(2**63)]),
        pa.list_(pa.string()): (Array(String), [[], ["a"], ["a", "a"], ["long enough for no view to hold it"], ["ä"]]),
        pa.list_(pa.int64()): (Array(Int64), [[], [1], [1, 1], [2**53 + 1], [5]]),
        pa.list_(pa.float32()): (Array(Float32), [[1.5], [1.0], [1.0], [0.1], [5.0]]),
    }
    feast_type, column = values[plain]
    keys: dict[str, FeastType] = {"id": Int64} if pa.types.is_list(plain) else {"id": Int64, "key": feast_type}
    codec = make_codec({"feature": feast_type}, keys)

    def points(dtype: pa.DataType) -> PointBatch:
        columns = {"id": pa.array(range(6)), "event_timestamp": pa.array([NOW] * 6, US)}
        flat = pa.array([None, *column[1:], column[0]], plain)
        columns["feature"] = _in_layout(flat, dtype)
        if "key" in keys:
            columns["key"] = _in_layout(pa.array([*column, column[0]], plain), dtype)
        return encode_batch(codec, pa.record_batch(columns).slice(0, 5))

    expected = points(plain)
    assert sum("feature" in payload or "_exact_feature" in payload for payload in expected.payloads) == 4
    for layout in layouts:
        assert_same(points(layout), expected)


def _in_layout(column: pa.Array, dtype: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(dtype):
        encoded = column.dictionary_encode()
        return pa.DictionaryArray.from_arrays(
            encoded.indices.cast(dtype.index_type), encoded.dictionary.cast(dtype.value_type)
        )
    if pa.types.is_list(dtype) and pa.types.is_dictionary(dtype.value_type):
        return pa.ListArray.from_arrays(column.offsets, column.values.dictionary_encode(), mask=column.is_null())
    return pa.array(column.to_pylist(), dtype)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Amsterdam", None])
def test_event_timestamps_of_any_unit_and_zone(unit: str, zone: str | None) -> None:
    """They are microseconds since the epoch in UTC, also before 1970."""
    codec = make_codec({}, {"id": Int64})
    moments = pa.array([1_750_000_000, -1], pa.int64()).cast(pa.timestamp("s", zone)).cast(pa.timestamp(unit, zone))
    points = encode_batch(codec, pa.record_batch({"id": [1, 2], "event_timestamp": moments}))
    assert points.timestamps.tolist() == [1_750_000_000_000_000, -1_000_000]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": pa.array([1, None], pa.int64())}, "'id' has a null"),
        ({"event_timestamp": pa.array([NOW, None], US)}, "'event_timestamp' has a null"),
        ({"vector": pa.array([[1.0, 2.0], [1.0]])}, "length 2, got one of length 1"),
        ({"vector": pa.array([[1.0, 2.0], [1.0, None]])}, "NaN or infinity"),
        ({"vector": pa.array([[1.0, 2.0], [1.0, float("inf")]])}, "NaN or infinity"),
        ({"vector": None}, "'vector' is missing"),
    ],
)
def test_rows_that_cannot_be_stored_are_refused(changes: dict[str, Any], message: str) -> None:
    """An error of ours that names the column."""
    field = Field(name="vector", dtype=Array(Float32), vector_index=True)
    codec = make_codec({}, {"id": Int64}, vectors={"vector": field})
    columns = {
        "id": pa.array([1, 2]),
        "vector": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32())),
        "event_timestamp": pa.array([NOW] * 2, US),
    } | changes
    batch = pa.record_batch({name: column for name, column in columns.items() if column is not None})
    with pytest.raises(InputError, match=message):
        encode_batch(codec, batch)


@pytest.mark.parametrize(
    ("feast_type", "dtype", "value"),
    [
        (Array(String), pa.list_(pa.string()), "a"),
        (Array(String), pa.list_view(pa.string_view()), "a"),
        (Array(Int64), pa.list_(pa.int64()), 40),
        (Array(Int32), pa.large_list(pa.int32()), 40),
        (Array(Bool), pa.list_(pa.bool_()), True),
        (Array(Bytes), pa.list_(pa.binary()), b"a"),
    ],
    ids=str,
)
def test_a_null_within_a_list_is_refused(feast_type: FeastType, dtype: pa.DataType, value: Any) -> None:
    """Feast would write "", false or b"" in its place, or end in a TypeError; null lists and empty ones are fine."""
    codec = make_codec({"sizes": feast_type}, {"id": Int64})

    def batch(rows: list[Any]) -> pa.RecordBatch:
        columns = {"id": pa.array(range(len(rows))), "sizes": pa.array(rows, dtype)}
        return pa.record_batch(columns | {"event_timestamp": pa.array([NOW] * len(rows), US)})

    with pytest.raises(InputError, match="feature view 'view': the column 'sizes' has a null within the list"):
        encode_batch(codec, batch([[value], None, [], [value, None]]))
    # Out of the slice there is none.
    points = encode_batch(codec, batch([[value, None], [value], None, []]).slice(1))
    assert len(points.payloads) == 3


def test_a_table_is_encoded_in_parts() -> None:
    """Batches bound the memory, and together hold every row in order."""
    n = 25_000
    table = pa.table({"id": np.arange(n), "event_timestamp": pa.array([NOW] * n, US)})
    codec = make_codec({}, {"id": Int64})
    batches = list(encode_table(codec, pa.concat_tables([table.slice(0, 7), table.slice(7)])))
    assert max(map(len, batches)) <= 10_000
    assert [payload["id"] for batch in batches for payload in batch.payloads] == list(range(n))
    assert struct.pack("<q", 24_999) in encode_entity_key(
        codec.entity_key(StoredPoint("", batches[-1].payloads[-1], {}))
    )


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(String, pa.string(), TEXT), (Int32, pa.int32(), st.integers(-(2**31), 2**31 - 1))]),
    st.data(),
)
def test_an_unindexed_list_is_one_value(kind: tuple[FeastType, pa.DataType, Any], data: st.DataObject) -> None:
    """By both encoders; lists as stores of earlier versions hold them are read as well."""
    dtype, element, elements = kind
    lists = data.draw(st.lists(st.none() | st.lists(elements, max_size=4), min_size=1, max_size=5))
    fields = {"seen": Field(name="seen", dtype=Array(dtype), tags={UNINDEXED_TAG: "true"})}
    codec = make_codec({}, {"id": Int64}, vectors=fields)
    batch = pa.record_batch(
        {
            "id": pa.array(range(len(lists)), pa.int64()),
            "seen": pa.array(lists, pa.list_(element)),
            "event_timestamp": pa.array([NOW] * len(lists), US),
        }
    )
    encoded = encode_batch(codec, batch)
    assert_same(encoded, by_rows(codec, batch))
    for expected, payload in zip(lists, encoded.payloads, strict=True):
        assert "seen" not in payload
        assert not any(isinstance(value, list) for value in payload.values())
        old = payload | ({} if expected is None else {"seen": expected})
        old.pop("_exact_seen", None)
        for form in (payload, old):
            assert codec.native("seen", form) == expected
            (value,) = codec.decode(StoredPoint(1, form, {}))[1].values()
            assert (
                None if value.WhichOneof("val") is None else list(getattr(value, str(codec.lists["seen"])).val)
            ) == expected
