"""Rows of a feature view in Arrow -> points, column by column.

Gives the same points as Feast's row-wise write path (`feast_embeddings.codec.rows.PointCodec.encode`) without a
protobuf message per value. A column whose Arrow type is not the plain form of its Feast type goes through Feast's
own conversion, alone; so does every type that JSON cannot hold.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from feast import ValueType

from feast_embeddings._feast.private import EntityKeyProto, ValueProto, to_value_protos
from feast_embeddings.artifact.plain_columns import plain
from feast_embeddings.codec.collection import VectorField
from feast_embeddings.codec.numbers import EXACT, float_bits, json_exact
from feast_embeddings.codec.rows import PointCodec, hashed_ids, key_prefix, point_ids, text_key_part
from feast_embeddings.engines.engine import TIMESTAMP_KEY, PointBatch, PointId
from feast_embeddings.errors import InputError

__all__ = ["encode_batch", "encode_table"]

_ROWS = 10_000

Values = dict[str, list[ValueProto]]


def encode_table(
    codec: PointCodec, table: pa.Table, *, timestamp_field: str = "event_timestamp"
) -> Iterator[PointBatch]:
    """Points for a table, in batches that bound the memory taken; see `encode_batch`."""
    for start in range(0, table.num_rows, _ROWS):
        # The chunks of a table may be small, and those of all of it together would be a second table.
        for batch in table.slice(start, _ROWS).combine_chunks().to_batches():
            yield encode_batch(codec, batch, timestamp_field=timestamp_field)


def encode_batch(codec: PointCodec, batch: pa.RecordBatch, *, timestamp_field: str = "event_timestamp") -> PointBatch:
    """Points for some rows of a feature view, one row per entity.

    Two things differ from Feast's conversion, and read back as the same None: a null timestamp is stored as a null
    and not as the number that Feast has for it, and a whole number beside a null in its column stays exact.

    Args:
        batch: with every join key and feature of the view under its Feast name, and the event timestamps.
        timestamp_field: the column of event timestamps, an Arrow timestamp; without a zone it is UTC.

    Raises:
        InputError: a column is missing, a join key, a timestamp or what is in a list is null, or a vector has the wrong
            length, or NaN or infinity in it.
    """
    join_keys = [column.name for column in codec.view.entity_columns]
    columns = {name: _column(codec, batch, name) for name in {*join_keys, *codec.features, timestamp_field}}
    for name in (*join_keys, timestamp_field):
        if columns[name].null_count:
            raise InputError(f"feature view {codec.view.name!r}: the column {name!r} has a null; every row needs one")
    values: Values = {}
    timestamps = _integers(columns[timestamp_field], "us")
    vectors: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]] = {}
    for field in codec.fields.values():
        vectors |= _vectors(codec, field, columns, values)
    # Their values are in the vectors; the fields that are not of float32 have an exact copy besides.
    in_vectors = {name for name in codec.fields if codec.types[name] == ValueType.FLOAT_LIST}
    return PointBatch(
        ids=_point_ids(codec, join_keys, columns, values),
        vectors=vectors,
        payloads=_payloads(
            codec,
            timestamps,
            {name: columns[name] for name in dict.fromkeys([*join_keys, *codec.features]) if name not in in_vectors},
            values,
        ),
        timestamps=timestamps,
    )


def _column(codec: PointCodec, batch: pa.RecordBatch, name: str) -> pa.Array:
    if name not in batch.schema.names:
        raise InputError(f"the column {name!r} is missing; there are {', '.join(batch.schema.names)}")
    column = plain(batch.column(name))
    if _is_list(column.type) and not _has_own_null(column.type.value_type) and (flat := column.flatten()).null_count:
        row = pc.list_parent_indices(column).filter(pc.is_null(flat))[0].as_py()
        raise InputError(
            f"feature view {codec.view.name!r}: the column {name!r} has a null within the list "
            f"{column[row].as_py()!r:.80}; Feast's lists hold none and would give another value in its place: leave it "
            "out, or write a value that stands for it"
        )
    return column


def _has_own_null(element: pa.DataType) -> bool:
    """Feast keeps a null within such a list: as NaN, or as its time that is none."""
    return bool(pa.types.is_floating(element) or pa.types.is_timestamp(element))


def _point_ids(
    codec: PointCodec, join_keys: Sequence[str], columns: dict[str, pa.Array], values: Values
) -> list[PointId]:
    """What `point_ids` gives for each row."""
    names = sorted(join_keys)
    types = [(codec.types[name], columns[name].type) for name in names]
    if types in ([(ValueType.INT64, pa.int64())], [(ValueType.INT32, pa.int32())]):
        return list(columns[names[0]].to_numpy().astype(np.int64).view(np.uint64).tolist())
    parts = [_key_parts(columns[name], codec.types[name]) for name in names]
    if any(part is None for part in parts):
        protos = [_values(codec, name, columns, values) for name in join_keys]
        return point_ids([EntityKeyProto(join_keys=join_keys, entity_values=row) for row in zip(*protos, strict=True)])
    prefix = key_prefix(names)
    return hashed_ids(
        [prefix + b"".join(row) for row in zip(*(part for part in parts if part is not None), strict=True)]
    )


def _key_parts(column: pa.Array, value_type: ValueType) -> list[bytes] | None:
    kind = value_type.value
    if value_type == ValueType.STRING and _is_text(column.type):
        return [text_key_part(raw) for raw in column.cast(pa.large_binary()).to_pylist()]
    if value_type == ValueType.BYTES and (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        return [struct.pack("<II", kind, len(raw)) + raw for raw in column.to_pylist()]
    if value_type == ValueType.INT32 and pa.types.is_int32(column.type):
        return [struct.pack("<IIi", kind, 4, value) for value in column.to_pylist()]
    if value_type == ValueType.INT64 and pa.types.is_int64(column.type):
        return [struct.pack("<IIq", kind, 8, value) for value in column.to_pylist()]
    if value_type == ValueType.UNIX_TIMESTAMP and pa.types.is_timestamp(column.type):
        return [struct.pack("<IIq", kind, 8, value) for value in _integers(column, "s").tolist()]
    return None


def _payloads(
    codec: PointCodec, timestamps: npt.NDArray[np.int64], columns: dict[str, pa.Array], values: Values
) -> list[dict[str, Any]]:
    """One payload per row, first from the keys that every row has, then from the others."""
    full: dict[str, list[Any]] = {TIMESTAMP_KEY: timestamps.tolist()}
    gappy: dict[str, list[Any]] = {}
    protos: list[str] = []
    for name, column in columns.items():
        keys = _payload_keys(name, column, codec.types[name])
        if keys is None:
            protos.append(name)
        for key, natives in (keys or {}).items():
            (gappy if None in natives else full)[key] = natives
    payloads = [dict(zip(full, row, strict=True)) for row in zip(*full.values(), strict=True)]
    for key, natives in gappy.items():
        for payload, native in zip(payloads, natives, strict=True):
            if native is not None:
                payload[key] = native
    for name in protos:
        for payload, value in zip(payloads, _values(codec, name, columns, values), strict=True):
            codec.place(name, value, payload)
    return payloads


def _payload_keys(name: str, column: pa.Array, value_type: ValueType) -> dict[str, list[Any]] | None:
    """A column as it stands in payloads, None where a row has no such key; or None when Feast has to convert it."""
    dtype = column.type
    if (
        (value_type == ValueType.STRING and _is_text(dtype))
        or (value_type == ValueType.INT32 and pa.types.is_int32(dtype))
        or (value_type == ValueType.INT64 and pa.types.is_int64(dtype))
        or (value_type == ValueType.BOOL and pa.types.is_boolean(dtype))
    ):
        return {name: column.to_pylist()}
    if (value_type == ValueType.DOUBLE and pa.types.is_float64(dtype)) or (
        value_type == ValueType.FLOAT and (pa.types.is_float32(dtype) or pa.types.is_float64(dtype))
    ):
        # A null is a NaN here, and to Feast a NaN is a null.
        floats = column.to_numpy(zero_copy_only=False) if value_type == ValueType.DOUBLE else _float32(column)
        return _float_keys(name, floats.astype(np.float64), value_type)
    if value_type == ValueType.UNIX_TIMESTAMP and pa.types.is_timestamp(dtype):
        return {name: pa.array(_integers(column, "s"), mask=_nulls(column)).to_pylist()}
    element = _LIST_ELEMENTS.get(value_type)
    if _is_list(dtype) and (dtype.value_type == element or (element == pa.string() and _is_text(dtype.value_type))):
        return {name: column.to_pylist()}
    return None


def _float_keys(name: str, floats: npt.NDArray[np.float64], value_type: ValueType) -> dict[str, list[Any]]:
    keys: dict[str, list[Any]] = {name: floats.tolist()}
    if not (finite := np.isfinite(floats)).all():
        keys[name] = [value if is_finite else None for value, is_finite in zip(keys[name], finite, strict=True)]
    if not (exact := json_exact(floats, value_type) | np.isnan(floats)).all():
        bits = float_bits(floats)
        keys[EXACT + name] = [None if is_exact else value for value, is_exact in zip(bits, exact, strict=True)]
    return keys


_LIST_ELEMENTS = {
    ValueType.STRING_LIST: pa.string(),
    ValueType.INT32_LIST: pa.int32(),
    ValueType.INT64_LIST: pa.int64(),
    ValueType.BOOL_LIST: pa.bool_(),
}


def _vectors(
    codec: PointCodec, field: VectorField, columns: dict[str, pa.Array], values: Values
) -> dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]:
    column = columns[field.name]
    is_matrix = _is_list(column.type) and pa.types.is_floating(column.type.value_type)
    is_vector = codec.types[field.name] in (ValueType.FLOAT_LIST, ValueType.DOUBLE_LIST)
    plain_bias = field.bias is None or pa.types.is_floating(columns[field.bias].type)
    if not (is_matrix and is_vector and plain_bias):
        names = [field.name] if field.bias is None else [field.name, field.bias]
        rows = zip(*(_values(codec, name, columns, values) for name in names), strict=True)
        return codec.encode_vectors(field, [dict(zip(names, row, strict=True)) for row in rows])
    present = ~_nulls(column)
    lengths = pc.list_value_length(column).drop_null().to_numpy()
    dim = field.dim or int(next(iter(lengths[lengths > 0]), 0))
    if (lengths != dim).any():
        raise codec.wrong_length(field, dim, int(lengths[lengths != dim][0]))
    matrix = np.zeros((len(column), dim), dtype=np.float32)
    matrix[present] = _float32(column.flatten()).reshape(-1, dim) if dim else 0
    bias = None if field.bias is None else np.nan_to_num(_float32(columns[field.bias]), posinf=np.inf, neginf=-np.inf)
    return codec.named_vectors(field, matrix, present, bias)


def _values(codec: PointCodec, name: str, columns: dict[str, pa.Array], values: Values) -> list[ValueProto]:
    """Feast's own conversion of a column; made once."""
    if name not in values:
        if codec.types[name] == ValueType.BYTES and name in codec.view.join_keys:
            # Feast's makes a null of empty bytes, which is not the entity whose id this is.
            values[name] = [ValueProto(bytes_val=raw) for raw in columns[name].to_pylist()]
        else:
            values[name] = to_value_protos(columns[name], codec.types[name])
    return values[name]


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
    """Timestamps in a unit since the epoch, towards the past where that unit is coarser."""
    return np.asarray(column.to_numpy(zero_copy_only=False).astype(f"datetime64[{unit}]").astype(np.int64))
