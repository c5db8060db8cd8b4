"""Encode rows of a feature view as points, column by column: for Arrow, and for the rows that Feast writes.

An Arrow column whose type is the plain form of its Feast type needs no protobuf message per value. Each other column
goes through Feast's own conversion; the columns of Feast's rows consist of its messages already.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from feast import ValueType

from feast_embeddings._feast.private import EntityKeyProto, ValueProto, to_value_protos
from feast_embeddings.artifact.plain_columns import plain
from feast_embeddings.codec.collection import VectorField
from feast_embeddings.codec.numbers import EXACT, float_payload
from feast_embeddings.codec.rows import FeastRow, PointCodec, hashed_ids, key_prefix, point_ids, text_key_part
from feast_embeddings.codec.seen_weights import WEIGHTS_KEY, encode_weights, has_weights
from feast_embeddings.engines.engine import TIMESTAMP_KEY, PointBatch, PointId
from feast_embeddings.errors import InputError
from feast_embeddings.times import to_microseconds

__all__ = ["encode_batch", "encode_batches", "encode_rows", "encode_table", "payload_values"]

_ROWS = 10_000
_NULL = ValueProto()
# Feast value type -> the encoding of a number in entity keys.
_KEY_NUMBERS = {ValueType.INT32: "i", ValueType.INT64: "q", ValueType.UNIX_TIMESTAMP: "q"}

# An array has the plain form of its Feast type.
Column: TypeAlias = "pa.Array | list[ValueProto]"


def encode_rows(codec: PointCodec, rows: Sequence[FeastRow]) -> PointBatch:
    """Encode rows as Feast writes them, one point per entity: its newest row, the later one on a tie.

    Raises:
        InputError: a vector of the wrong length, or with NaN or infinity in it.
    """
    newest: dict[PointId, tuple[int, FeastRow]] = {}
    for id, row in zip(point_ids([row[0] for row in rows]), rows, strict=True):
        moment = to_microseconds(row[2])
        if id not in newest or moment >= newest[id][0]:
            newest[id] = moment, row
    cells = [
        dict(zip(key.join_keys, key.entity_values, strict=True)) | values for _, (key, values, _, _) in newest.values()
    ]
    names = dict.fromkeys(chain(chain.from_iterable(row[0].join_keys for _, row in newest.values()), codec.features))
    columns: dict[str, Column] = {name: [row.get(name, _NULL) for row in cells] for name in names}
    return _points(codec, list(newest), np.array([moment for moment, _ in newest.values()], dtype=np.int64), columns)


def encode_table(
    codec: PointCodec, table: pa.Table, *, timestamp_field: str = "event_timestamp"
) -> Iterator[PointBatch]:
    """Encode a table, in batches that limit the memory in use; see `encode_batch`."""
    # The chunks of a table may be small, and merging all at once would copy the table.
    slices = (table.slice(start, _ROWS).combine_chunks() for start in range(0, table.num_rows, _ROWS))
    batches = (batch for part in slices for batch in part.to_batches())
    return encode_batches(codec, batches, timestamp_field=timestamp_field)


def encode_batches(
    codec: PointCodec, batches: Iterable[pa.RecordBatch], *, timestamp_field: str = "event_timestamp"
) -> Iterator[PointBatch]:
    """Encode the rows of each batch; see `encode_batch`."""
    return (encode_batch(codec, batch, timestamp_field=timestamp_field) for batch in batches)


def encode_batch(codec: PointCodec, batch: pa.RecordBatch, *, timestamp_field: str = "event_timestamp") -> PointBatch:
    """Encode some rows of a feature view, one row per entity.

    Two things differ from Feast's conversion: a null timestamp is stored as a null instead of Feast's number for it,
    which also reads back as None, and a whole number in a column with a null stays exact.

    Args:
        batch: with every join key and feature of the view under its Feast name, and the event timestamps. The weights
            of what users have seen go with them, see `codec.seen_weights`.
        timestamp_field: the column of event timestamps, an Arrow timestamp; without a zone it is UTC.

    Raises:
        InputError: a column is missing, a join key, a timestamp or an element of a list is null, or a vector has the
            wrong length, or NaN or infinity in it.
    """
    join_keys = [column.name for column in codec.view.entity_columns]
    names = dict.fromkeys([*join_keys, *codec.features])
    arrays = {name: _array(codec, batch, name) for name in [*names, timestamp_field]}
    for name in (*join_keys, timestamp_field):
        if arrays[name].null_count:
            raise InputError(f"feature view {codec.view.name!r}: the column {name!r} has a null; every row needs one")
    timestamps = _integers(arrays[timestamp_field], "us")
    columns: dict[str, Column] = {
        name: arrays[name] if _is_plain(codec, name, arrays[name].type) else _protos(codec, name, arrays[name])
        for name in names
    }
    points = _points(codec, _point_ids(codec, join_keys, columns), timestamps, columns)
    if has_weights(codec, batch.schema.names):
        for payload, weights in zip(points.payloads, encode_weights(codec, batch), strict=True):
            if weights is not None:
                payload[WEIGHTS_KEY] = weights
    return points


def _array(codec: PointCodec, batch: pa.RecordBatch, name: str) -> pa.Array:
    if name not in batch.schema.names:
        raise InputError(f"the column {name!r} is missing; there are {', '.join(batch.schema.names)}")
    column = plain(batch.column(name))
    if _is_list(column.type) and not _has_own_null(column.type.value_type) and (flat := column.flatten()).null_count:
        row = pc.list_parent_indices(column).filter(pc.is_null(flat))[0].as_py()
        raise InputError(
            f"feature view {codec.view.name!r}: the column {name!r} has a null within the list "
            f"{column[row].as_py()!r:.80}; Feast's lists cannot hold nulls and would return another value: leave it "
            "out, or write a placeholder"
        )
    return column


def _has_own_null(element: pa.DataType) -> bool:
    """Return whether Feast keeps a null within such a list: as NaN, or as its missing time."""
    return bool(pa.types.is_floating(element) or pa.types.is_timestamp(element))


def _is_plain(codec: PointCodec, name: str, dtype: pa.DataType) -> bool:
    value_type = codec.types[name]
    if name in codec.fields:
        # Its values are only in the vectors. Types other than float32 have an exact copy as well.
        return value_type == ValueType.FLOAT_LIST and _is_list(dtype) and pa.types.is_floating(dtype.value_type)
    if value_type in _PLAIN_ELEMENTS:
        return _is_list(dtype) and _PLAIN_ELEMENTS[value_type](dtype.value_type)
    return value_type in _PLAIN and _PLAIN[value_type](dtype)


def _protos(codec: PointCodec, name: str, column: Column) -> list[ValueProto]:
    """Convert a column by Feast's own conversion."""
    if isinstance(column, list):
        return column
    if codec.types[name] == ValueType.BYTES and name in codec.view.join_keys:
        # Feast's conversion turns empty bytes into a null, which would be a different entity.
        return [ValueProto(bytes_val=raw) for raw in column.to_pylist()]
    return to_value_protos(column, codec.types[name])


def _point_ids(codec: PointCodec, join_keys: Sequence[str], columns: Mapping[str, Column]) -> list[PointId]:
    """Return the result of `point_ids` for each row."""
    names = sorted(join_keys)
    first = columns[names[0]]
    if len(names) == 1 and not isinstance(first, list) and pa.types.is_integer(first.type):
        return list(first.to_numpy().astype(np.int64).view(np.uint64).tolist())
    parts = [_key_parts(columns[name], codec.types[name]) for name in names]
    if None in parts:
        protos = [_protos(codec, name, columns[name]) for name in join_keys]
        return point_ids([EntityKeyProto(join_keys=join_keys, entity_values=row) for row in zip(*protos, strict=True)])
    prefix = key_prefix(names)
    return hashed_ids([prefix + b"".join(row) for row in zip(*(part or () for part in parts), strict=True)])


def _key_parts(column: Column, value_type: ValueType) -> list[bytes] | None:
    """Return Feast's bytes of each row's value in an entity key; None if only Feast can make them."""
    if isinstance(column, list):
        return None
    if value_type == ValueType.STRING:
        return [text_key_part(raw) for raw in column.cast(pa.large_binary()).to_pylist()]
    if (number := _KEY_NUMBERS.get(value_type)) is None:
        return None
    size = struct.calcsize(number)
    return [struct.pack(f"<II{number}", value_type.value, size, value) for value in _natives(column, value_type)]


def _points(
    codec: PointCodec, ids: list[PointId], timestamps: npt.NDArray[np.int64], columns: Mapping[str, Column]
) -> PointBatch:
    """Build points from columns of all join keys and features."""
    vectors: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]] = {}
    for field in codec.fields.values():
        bias = None if field.bias is None else _bias(codec, field.bias, columns[field.bias])
        vectors |= codec.named_vectors(field, *_matrix(codec, field, columns[field.name]), bias)
    # Keys that every row has first, then the others.
    full: dict[str, list[Any]] = {TIMESTAMP_KEY: timestamps.tolist()}
    gappy: dict[str, list[Any]] = {}
    for name, column in columns.items():
        for key, natives in _payload_keys(codec, name, column).items():
            (gappy if None in natives else full)[key] = natives
    payloads = [dict(zip(full, row, strict=True)) for row in zip(*full.values(), strict=True)]
    for key, natives in gappy.items():
        for payload, native in zip(payloads, natives, strict=True):
            if native is not None:
                payload[key] = native
    return PointBatch(ids, vectors, payloads, timestamps)


def _payload_keys(codec: PointCodec, name: str, column: Column) -> dict[str, list[Any]]:
    """Convert a column to payload values; None if a row lacks the key."""
    if isinstance(column, list):
        return _proto_keys(codec, name, column)
    value_type = codec.types[name]
    if name in codec.fields:
        return {}
    if name in codec.whole:
        return {EXACT + name: _serialized_lists(column, str(codec.lists[name]))}
    if value_type not in (ValueType.FLOAT, ValueType.DOUBLE):
        return {name: _natives(column, value_type)}
    # A null is NaN here, and Feast reads NaN as null.
    floats = column.to_numpy(zero_copy_only=False) if value_type == ValueType.DOUBLE else _float32(column)
    return float_payload(name, floats, ~np.isnan(floats), value_type)


def payload_values(codec: PointCodec, name: str, column: pa.Array) -> list[dict[str, Any]]:
    """Convert values of one feature to all payload keys that may hold it; None for a key that a point must not have."""
    found = _payload_keys(codec, name, column if _is_plain(codec, name, column.type) else _protos(codec, name, column))
    keys = codec.payload_keys(name)
    return [{key: found[key][i] if key in found else None for key in keys} for i in range(len(column))]


def _serialized_lists(column: pa.Array, kind: str) -> list[str | None]:
    """Serialize each list of a column as Feast's value; None for a null."""
    texts: list[str | None] = []
    for elements in column.to_pylist():
        value = ValueProto()
        if elements is not None:
            message = getattr(value, kind)
            message.SetInParent()  # an empty list is a value, not a null
            message.val.extend(elements)
        texts.append(None if elements is None else base64.b64encode(value.SerializeToString()).decode())
    return texts


def _natives(column: pa.Array, value_type: ValueType) -> list[Any]:
    if value_type == ValueType.UNIX_TIMESTAMP:
        column = pa.array(_integers(column, "s"), mask=_nulls(column))
    return list(column.to_pylist())


def _proto_keys(codec: PointCodec, name: str, column: list[ValueProto]) -> dict[str, list[Any]]:
    scalar, repeated = codec.scalars.get(name), codec.lists.get(name)
    natives: list[Any] = [None] * len(column)
    exact: list[Any] = [None] * len(column)
    for i, value in enumerate(column):
        if (kind := value.WhichOneof("val")) is None:
            continue
        if kind == scalar:
            natives[i] = getattr(value, kind)
        elif kind == repeated and name not in codec.whole:
            natives[i] = list(getattr(value, kind).val)
        elif not (name in codec.fields and kind == "float_list_val"):  # those are in the vectors
            exact[i] = base64.b64encode(value.SerializeToString()).decode()
    keys = {name: natives, EXACT + name: exact}
    if scalar in ("float_val", "double_val"):
        present = np.array([native is not None for native in natives], dtype=np.bool_)
        keys |= float_payload(name, np.array(natives, dtype=np.float64), present, codec.types[name])
        keys[EXACT + name] = [bits if raw is None else raw for bits, raw in zip(keys[EXACT + name], exact, strict=True)]
    return {key: values for key, values in keys.items() if any(value is not None for value in values)}


def _matrix(
    codec: PointCodec, field: VectorField, column: Column
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return the vectors (n, dim), and which rows have one (n,)."""
    if isinstance(column, list):
        kinds = [str(value.WhichOneof("val")) for value in column]
        present = np.array([kind in ("float_list_val", "double_list_val") for kind in kinds], dtype=np.bool_)
        lists = [getattr(column[i], kinds[i]).val for i in np.flatnonzero(present)]
        lengths = np.array([len(values) for values in lists], dtype=np.int64)
        with np.errstate(over="ignore"):
            flat = np.fromiter(chain.from_iterable(lists), dtype=np.float64).astype(np.float32)
    else:
        present = ~_nulls(column)
        lengths = pc.list_value_length(column).drop_null().to_numpy()
        flat = _float32(column.flatten())
    dim = field.dim or int(next(iter(lengths[lengths > 0]), 0))
    if (lengths != dim).any():
        raise codec.wrong_length(field, dim, int(lengths[lengths != dim][0]))
    matrix = np.zeros((len(column), dim), dtype=np.float32)
    matrix[present] = flat.reshape(-1, dim) if dim else 0
    return matrix, present


def _bias(codec: PointCodec, name: str, column: Column) -> npt.NDArray[np.float32]:
    if not isinstance(column, list) and pa.types.is_floating(column.type):
        return np.nan_to_num(_float32(column), posinf=np.inf, neginf=-np.inf)
    kinds = [(value, value.WhichOneof("val")) for value in _protos(codec, name, column)]
    return np.array([0.0 if kind is None else float(getattr(value, kind)) for value, kind in kinds], dtype=np.float32)


def _is_text(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_string(dtype) or pa.types.is_large_string(dtype))


def _is_list(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype))


def _nulls(column: pa.Array) -> npt.NDArray[np.bool_]:
    return np.asarray(column.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)


def _float32(column: pa.Array) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):  # too large for float32 is infinity, as in a protobuf
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float32)


def _integers(column: pa.Array, unit: str) -> npt.NDArray[np.int64]:
    """Convert timestamps to a unit since the epoch, rounding down if the unit is coarser."""
    return np.asarray(column.to_numpy(zero_copy_only=False).astype(f"datetime64[{unit}]").astype(np.int64))


# Feast value type -> the Arrow types that are its plain form; for lists, the types of the elements.
_PLAIN: dict[ValueType, Callable[[pa.DataType], bool]] = {
    ValueType.STRING: _is_text,
    ValueType.INT32: pa.types.is_int32,
    ValueType.INT64: pa.types.is_int64,
    ValueType.BOOL: pa.types.is_boolean,
    ValueType.FLOAT: lambda dtype: pa.types.is_float32(dtype) or pa.types.is_float64(dtype),
    ValueType.DOUBLE: pa.types.is_float64,
    ValueType.UNIX_TIMESTAMP: pa.types.is_timestamp,
}
_PLAIN_ELEMENTS: dict[ValueType, Callable[[pa.DataType], bool]] = {
    ValueType.STRING_LIST: _is_text,
    ValueType.INT32_LIST: pa.types.is_int32,
    ValueType.INT64_LIST: pa.types.is_int64,
    ValueType.BOOL_LIST: pa.types.is_boolean,
}
