"""Every kind of value that Feast has, through the codec and through both engines: what is read is what was written."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from random import Random
from typing import Any

import numpy as np
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, FeastType, Int64, String, from_value_type
from hypothesis import given
from hypothesis import strategies as st
from tests.support.shop import qdrant

from feast_embeddings._feast.private import EntityKeyProto, ValueProto
from feast_embeddings.codec.collection import vector_fields
from feast_embeddings.codec.columns import encode_rows
from feast_embeddings.codec.rows import FeastRow, PointCodec
from feast_embeddings.engines.engine import StoredPoint

NOW = datetime(2026, 6, 1, tzinfo=UTC)
KINDS = [field.name for field in ValueProto.DESCRIPTOR.oneofs_by_name["val"].fields]
# Kinds that belong to no scalar type of Feast.
NO_TYPE: dict[str, FeastType] = {"null_val": String, "list_val": Array(Array(Int64)), "set_val": Array(Array(Int64))}
ELEMENTS: dict[str, list[Any]] = {
    "TYPE_STRING": ["", "a", "Tïtle 🎈", 'q"\\\n\t', "\0", "null", "123"],
    "TYPE_BYTES": [b"", b"\0\xff", b"a"],
    "TYPE_BOOL": [False, True],
    "TYPE_INT32": [0, -1, 2**31 - 1, -(2**31)],
    "TYPE_INT64": [0, -1, 2**53 + 1, 2**63 - 1, -(2**63)],
    "TYPE_FLOAT": [0.0, -0.0, 1 / 3, 3.0, 1e-45, -3.4e38, float("inf"), float("-inf"), float("nan")],
    "TYPE_DOUBLE": [0.0, -0.0, 1 / 3, 3.0, 5e-324, -1.7e308, float("inf"), float("-inf"), float("nan")],
    "TYPE_ENUM": [0],
}
ANY_FIELD: Any = ValueProto.DESCRIPTOR.fields[0]
TYPE_NAMES = {getattr(ANY_FIELD, name): name for name in ELEMENTS}


def make_value(random: Random, kind: str, depth: int = 2) -> ValueProto:
    """A value of this kind with random, often extreme, contents."""
    value = ValueProto()
    field = ValueProto.DESCRIPTOR.fields_by_name[kind]
    if field.message_type is None:
        setattr(value, kind, random.choice(ELEMENTS[TYPE_NAMES[field.type]]))
    else:
        getattr(value, kind).SetInParent()  # an empty list is a value, not a null
        fill(random, getattr(value, kind), depth)
    return value


def fill(random: Random, message: Any, depth: int) -> None:
    if isinstance(message, ValueProto):
        message.CopyFrom(make_value(random, random.choice(KINDS if depth > 0 else KINDS[:8]), depth - 1))
        return
    oneof = {field.name for group in message.DESCRIPTOR.oneofs for field in group.fields}
    chosen = random.choice(sorted(oneof)) if oneof else None
    for field in message.DESCRIPTOR.fields:
        if field.name in oneof - {chosen}:
            continue
        held, several = getattr(message, field.name), range(random.randrange(3))
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for i in several:
                fill(random, held[f"key {i}"], depth)
        elif field.message_type is not None:
            for part in [held.add() for _ in several] if field.is_repeated else [held]:
                fill(random, part, depth)
        elif field.is_repeated:
            held.extend(random.choice(ELEMENTS[TYPE_NAMES[field.type]]) for _ in several)
        else:
            setattr(message, field.name, random.choice(ELEMENTS[TYPE_NAMES[field.type]]))


def make_view() -> FeatureView:
    """A view with a feature of each kind, named after it, and the type that Feast has for it."""
    types = {kind: NO_TYPE.get(kind) or from_value_type(ValueType[kind.removesuffix("_val").upper()]) for kind in KINDS}
    view = FeatureView(
        name="kinds",
        entities=[Entity(name="thing", join_keys=["id"], value_type=ValueType.INT64)],
        schema=[Field(name="id", dtype=Int64), *(Field(name=kind, dtype=dtype) for kind, dtype in types.items())],
        source=FileSource(path="nowhere.parquet", timestamp_field="event_timestamp"),
    )
    # Feast fills this from the entity when a view is applied.
    view.entity_columns = [Field(name="id", dtype=Int64)]
    return view


def make_rows(random: Random, n: int) -> list[FeastRow]:
    """Rows with values of all kinds; some are missing, some are of another kind than their feature's type."""
    rows: list[FeastRow] = []
    for i in range(n):
        values = {kind: make_value(random, kind) for kind in KINDS if random.random() < 0.8}
        values["string_val"] = make_value(random, random.choice(KINDS))
        key = EntityKeyProto(join_keys=["id"], entity_values=[ValueProto(int64_val=i)])
        rows.append((key, values, NOW, None))
    return rows


def exact(values: dict[str, ValueProto]) -> dict[str, bytes]:
    """Comparable by bits: NaN equals itself, and -0.0 is not 0.0."""
    return {name: value.SerializeToString(deterministic=True) for name, value in values.items()}


def written(row: FeastRow) -> dict[str, bytes]:
    return {**dict.fromkeys(KINDS, b""), **exact(row[1])}


@given(st.randoms(use_true_random=False))
def test_the_codec_keeps_every_kind(random: Random) -> None:
    """Encode then decode is the identity for every kind of value, through JSON."""
    codec = PointCodec(view := make_view(), vector_fields(view))
    (row,) = make_rows(random, 1)
    batch = encode_rows(codec, [row])
    payload = json.loads(json.dumps(batch.payloads[0], allow_nan=False))
    assert exact(codec.decode(StoredPoint(batch.ids[0], payload, {}))[1]) == written(row)


def test_the_engines_keep_every_kind(store: FeatureStore) -> None:
    """Fifty rows of all kinds are read from the store exactly as they were written."""
    store.apply([Entity(name="thing", join_keys=["id"], value_type=ValueType.INT64), make_view()])
    view, rows = store.get_feature_view("kinds"), make_rows(Random(0), 50)  # noqa: S311
    qdrant(store).online_write_batch(store.config, view, rows, None)
    found = qdrant(store).online_read(store.config, view, [row[0] for row in rows])
    for row, (at, values) in zip(rows, found, strict=True):
        assert at == NOW
        assert values is not None
        assert exact(values) == written(row)


def test_the_engines_keep_every_bit_of_float64(store: FeatureStore) -> None:
    """Random numbers of 15 to 17 digits, which Qdrant's JSON reader rounds wrongly now and then."""
    store.apply([Entity(name="thing", join_keys=["id"], value_type=ValueType.INT64), make_view()])
    view, numbers = store.get_feature_view("kinds"), np.random.default_rng(0).uniform(-100, 100, 1000)
    numbers[:100] = numbers[:100].round(2)
    rows: list[FeastRow] = [
        (
            EntityKeyProto(join_keys=["id"], entity_values=[ValueProto(int64_val=i)]),
            {"double_val": ValueProto(double_val=number), "float_val": ValueProto(float_val=number)},
            NOW,
            None,
        )
        for i, number in enumerate(numbers)
    ]
    qdrant(store).online_write_batch(store.config, view, rows, None)
    found = qdrant(store).online_read(store.config, view, [row[0] for row in rows], ["double_val", "float_val"])
    assert [values and exact(values) for _, values in found] == [exact(row[1]) for row in rows]
