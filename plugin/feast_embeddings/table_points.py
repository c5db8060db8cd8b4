"""An artifact's table -> points, column by column. Gives the same points as Feast's row-wise write path."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from feast import ValueType

from feast_embeddings._feast import ValueProto
from feast_embeddings.attributes import TIMESTAMP
from feast_embeddings.engine import TIMESTAMP_KEY, PointBatch
from feast_embeddings.points import ENTITY_KEY, VALUES_KEY, PointCodec

__all__ = ["encode_table"]

_ROWS = 10_000


def encode_table(codec: PointCodec, table: pa.Table) -> Iterator[PointBatch]:
    """Points for the rows of an artifact's table, in batches that bound the memory taken.

    Args:
        codec: of the feature view that the table is the source of; the view has one join key.
        table: with the join key, every feature, and ``event_timestamp`` in microseconds.
    """
    for start in range(0, table.num_rows, _ROWS):
        yield _encode(codec, table.slice(start, _ROWS).combine_chunks())


def _encode(codec: PointCodec, table: pa.Table) -> PointBatch:
    (join_key,) = codec.view.join_keys
    encode_id = codec.id_encoder()
    ids, raw_keys = zip(*map(encode_id, table[join_key].to_pylist()), strict=True)
    timestamps = table["event_timestamp"].cast(TIMESTAMP).cast(pa.int64()).to_numpy()
    payloads: list[dict[str, Any]] = [
        {ENTITY_KEY: base64.b64encode(raw).decode(), TIMESTAMP_KEY: timestamp}
        for raw, timestamp in zip(raw_keys, timestamps.tolist(), strict=True)
    ]
    for name in [join_key, *(name for name in codec.features if name not in codec.fields)]:
        for payload, value in zip(payloads, _natives(table[name], codec.types[name]), strict=True):
            if value is None:
                continue
            if isinstance(value, float) and not np.isfinite(value):
                encoded = payload.setdefault(VALUES_KEY, {})
                encoded[name] = base64.b64encode(ValueProto(double_val=value).SerializeToString()).decode()
            else:
                payload[name] = value
    vectors: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]] = {}
    for field in codec.fields.values():
        bias = None if field.bias is None else _floats(table[field.bias].fill_null(0))
        matrix = _floats(pc.list_flatten(table[field.name])).reshape(table.num_rows, -1)
        vectors |= codec.named_vectors(field, matrix, np.ones(table.num_rows, dtype=np.bool_), bias)
    return PointBatch(ids=list(ids), vectors=vectors, payloads=payloads, timestamps=timestamps)


def _natives(column: pa.ChunkedArray, value_type: ValueType) -> list[Any]:
    if value_type == ValueType.UNIX_TIMESTAMP:
        column = column.cast(pa.timestamp("s", tz="UTC"), safe=False).cast(pa.int64())
    natives: list[Any] = column.to_pylist()
    return natives


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    return np.asarray(column.to_numpy(), dtype=np.float32)
