"""One shard of the embedded engine: what it is like, and how points get into it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from feast_embeddings.engine import TIMESTAMP_KEY, CollectionSpec, Hnsw, PointBatch, all_points
from feast_embeddings.filters import payload_key

__all__ = ["create_indexes", "edge_config", "finish", "without_older", "write"]

_INDEXES = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "bool": edge.PayloadSchemaType.Bool,
}
# Points per update: so few that they are still in the processor's cache when Qdrant reads them.
_UPSERT = 64
# Qdrant's default: from 10 MB of vectors on, a graph answers faster than a scan.
_GRAPH_KB = 10_000
# Where the writer should not wait for one: up to this size, 1,000,000 x 64, a scan costs a search some milliseconds,
# while the graph costs the writer many seconds.
_SCAN_KB = 262_144


def edge_config(spec: CollectionSpec, hnsw: Hnsw, build_graph: bool) -> edge.EdgeConfig:
    """The configuration of a shard for this collection."""
    return edge.EdgeConfig(
        vectors={
            name: edge.EdgeVectorParams(
                size=vector.size,
                distance=getattr(edge.Distance, vector.distance),
                hnsw_config=edge.HnswIndexConfig(
                    m=hnsw.m if vector.indexed else 0,  # none keeps a vector out of the graph
                    ef_construct=hnsw.ef_construct,
                    full_scan_threshold=_GRAPH_KB,
                ),
            )
            for name, vector in spec.vectors.items()
        },
        # `optimize` builds a graph for the segments above this size.
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=_GRAPH_KB if build_graph else _SCAN_KB),
        # Qdrant Edge refuses a shard of no vectors; a sparse one that no point has makes no difference.
        sparse_vectors=None if spec.vectors else {"_none": edge.EdgeSparseVectorParams()},
        # A shard is complete before anybody sees it, so a write-ahead log would only be written and thrown away.
        wal_enabled=False,
    )


def create_indexes(shard: edge.EdgeShard, spec: CollectionSpec, names: Iterable[str]) -> None:
    """Payload indexes on these features, over the points that are there and those that come."""
    for name in sorted(names):
        index = _INDEXES[spec.payload_indexes[name]]
        shard.update(edge.UpdateOperation.create_field_index(payload_key(name), index))


def write(shard: edge.EdgeShard, batch: PointBatch) -> None:
    """Insert or replace points."""
    for start in range(0, len(batch), _UPSERT):
        shard.update(edge.UpdateOperation.upsert_points(_points(batch, start, start + _UPSERT)))


def _points(batch: PointBatch, start: int, stop: int) -> list[edge.Point]:
    ids, payloads = batch.ids[start:stop], batch.payloads[start:stop]
    vectors: list[dict[str, Any]] = [{} for _ in ids]
    for name, (matrix, mask) in batch.vectors.items():
        # Qdrant reads a memoryview in half of the time that a list of floats takes to make and read.
        for point, row, present in zip(vectors, matrix[start:stop], mask[start:stop].tolist(), strict=True):
            if present:
                point[name] = memoryview(row)
    return list(map(edge.Point, ids, vectors, payloads))


def without_older(shard: edge.EdgeShard, batch: PointBatch) -> PointBatch:
    """The points that are not older than what the shard holds of them."""
    stored = {
        point.id: point.payload[TIMESTAMP_KEY]
        for point in all_points(shard.retrieve(list(batch.ids), with_payload=[TIMESTAMP_KEY], with_vector=False))
    }
    newest = np.array([stored.get(id, np.iinfo(np.int64).min) for id in batch.ids], dtype=np.int64)
    return batch.take(np.flatnonzero(batch.timestamps >= newest))


def finish(shard: edge.EdgeShard, path: Path) -> None:
    """Build the graph, if the configuration asks for one, and make the files complete."""
    shard.optimize()
    shard.flush()
    shard.close()
    # Flushing leaves journals, which the next load works in and deletes. That must not be a reader's.
    edge.EdgeShard.load(str(path)).close()
