"""One shard of the embedded engine: what it is like, and what belongs to a change of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import qdrant_edge as edge

from feast_embeddings.engines.embedded.filler import MOST_PROCESSES
from feast_embeddings.engines.engine import TIMESTAMP_KEY, CollectionSpec, Hnsw, IndexType, PointBatch, all_points
from feast_embeddings.engines.payload import payload_key
from feast_embeddings.errors import EngineError

__all__ = ["complete", "create_indexes", "edge_config", "engine_errors", "without_older"]

_INDEXES: dict[IndexType, edge.PayloadSchemaType | edge.IntegerIndexParams] = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "lookup": edge.IntegerIndexParams(lookup=True, range=False),
    "unlinked": edge.IntegerIndexParams(lookup=True, range=True, enable_hnsw=False),
    "float": edge.PayloadSchemaType.Float,
    "bool": edge.PayloadSchemaType.Bool,
}
# Qdrant's default: from 10 MB of vectors on, a graph answers faster than a scan.
_GRAPH_KB = 10_000
# Where the writer should not wait for one: up to this size, 1,000,000 x 64, a scan costs a search some milliseconds,
# while the graph costs the writer many seconds.
_SCAN_KB = 262_144
_ANY_SIZE = 2**40


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
        optimizers=edge.EdgeOptimizersConfig(
            indexing_threshold=_GRAPH_KB if build_graph else _SCAN_KB,
            # `optimize` also merges segments beyond so many; of one graph a search takes less than of several.
            default_segment_number=1 if build_graph else MOST_PROCESSES,
            max_segment_size=_ANY_SIZE if build_graph else None,
        ),
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


def without_older(shard: edge.EdgeShard, batch: PointBatch) -> PointBatch:
    """The points that are not older than what the shard holds of them."""
    stored = {
        point.id: point.payload[TIMESTAMP_KEY]
        for point in all_points(shard.retrieve(list(batch.ids), with_payload=[TIMESTAMP_KEY], with_vector=False))
    }
    newest = np.array([stored.get(id, np.iinfo(np.int64).min) for id in batch.ids], dtype=np.int64)
    return batch.take(np.flatnonzero(batch.timestamps >= newest))


def complete(path: Path) -> None:
    """Of a shard whose points are flushed: build the graph, if its configuration asks for one, and settle its files."""
    shard = edge.EdgeShard.load(str(path))
    if shard.optimize():
        shard.flush()
        shard.close()
        shard = edge.EdgeShard.load(str(path))
    # Flushing leaves journals, which a load works in and deletes. That must not be a reader's.
    shard.close()


@contextlib.contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Whatever fails in the block is an `EngineError` that says what could not be done."""
    try:
        yield
    except EngineError:
        raise
    except OSError as error:
        raise EngineError(f"the embedded store could not {what}: {error.strerror or error}") from error
    except Exception as error:  # qdrant_edge raises plain Exception
        raise EngineError(f"the embedded store could not {what}: {error}") from error
