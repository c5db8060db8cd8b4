"""The points of a collection in a Parquet file, the same for both engines: bit for bit, a batch in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feast_embeddings.engines.engine import TIMESTAMP_KEY, CollectionSpec, PointBatch, StoredPoint
from feast_embeddings.engines.points import vectors_of

__all__ = ["read_points", "write_points"]

_ROWS = 4096
# Before the name of a vector, which may be anything.
_VECTOR = "vector "


def write_points(
    path: Path, spec: CollectionSpec, pages: Iterable[Sequence[StoredPoint]], progress: Callable[[int], object]
) -> int:
    """Write points to a new file, and return how many.

    Args:
        progress: called with the number of points written since its last call.
    """
    schema = _schema(spec)
    written, waiting = 0, list[StoredPoint]()
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:

        def write() -> None:
            nonlocal written
            writer.write_batch(_batch(schema, spec, waiting))
            written += len(waiting)
            progress(len(waiting))
            waiting.clear()

        for page in pages:
            waiting += page
            if len(waiting) >= _ROWS:
                write()
        write()
    return written


def _schema(spec: CollectionSpec) -> pa.Schema:
    vectors = [pa.field(_VECTOR + name, pa.list_(pa.float32(), v.size)) for name, v in spec.vectors.items()]
    return pa.schema([("uuid", pa.string()), ("number", pa.uint64()), ("payload", pa.string()), *vectors])


def _batch(schema: pa.Schema, spec: CollectionSpec, points: Sequence[StoredPoint]) -> pa.RecordBatch:
    columns = [
        pa.array([None if isinstance(point.id, int) else point.id for point in points], pa.string()),
        pa.array([point.id if isinstance(point.id, int) else None for point in points], pa.uint64()),
        pa.array([json.dumps(point.payload, ensure_ascii=False, allow_nan=False) for point in points], pa.string()),
    ]
    for name, vector in spec.vectors.items():
        matrix, present = vectors_of(points, name, vector.size)
        values, missing = pa.array(matrix.reshape(-1)), pa.array(~present)
        columns.append(pa.FixedSizeListArray.from_arrays(values, vector.size, mask=missing))
    return pa.record_batch(columns, schema=schema)


def read_points(path: Path, spec: CollectionSpec, progress: Callable[[int], object]) -> Iterator[PointBatch]:
    """Read the points of a file from `write_points`, to write them into a collection of this spec."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_ROWS):
            yield _points(batch, spec)
            progress(batch.num_rows)


def _points(batch: pa.RecordBatch, spec: CollectionSpec) -> PointBatch:
    uuids, numbers = batch.column("uuid").to_pylist(), batch.column("number").to_pylist()
    payloads = [json.loads(text) for text in batch.column("payload").to_pylist()]
    vectors = {}
    for name, vector in spec.vectors.items():
        column = batch.column(_VECTOR + name)
        # Not `flatten`, which leaves out what belongs to nulls.
        values = column.values.slice(column.offset * vector.size, len(column) * vector.size)
        present = column.is_valid().to_numpy(zero_copy_only=False)
        # Where a point has none, Parquet keeps no numbers, and what stands there may be a null.
        matrix = values.fill_null(0.0).to_numpy(zero_copy_only=False).reshape(-1, vector.size)
        vectors[name] = matrix, present
    return PointBatch(
        ids=[number if uuid is None else uuid for uuid, number in zip(uuids, numbers, strict=True)],
        vectors=vectors,
        payloads=payloads,
        timestamps=np.array([payload[TIMESTAMP_KEY] for payload in payloads], dtype=np.int64),
    )
