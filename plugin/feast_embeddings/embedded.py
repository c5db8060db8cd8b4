"""The embedded engine: Qdrant Edge, Qdrant's own engine in this process, over a folder.

Qdrant Edge takes no lock, and two processes that write one shard diverge silently. So a shard that readers can
see is never written: a write copies the shard, changes the copy, and moves the pointer of the folder (see
`feast_embeddings.shard_folder`). Readers look at the pointer before each answer, and load the new shard when it
moved. A process that dies leaves at most a shard that the pointer does not name; the next writer clears it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import qdrant_edge as edge
from qdrant_client import models

from feast_embeddings.edge_filter import to_edge
from feast_embeddings.engine import (
    TIMESTAMP_KEY,
    CollectionSpec,
    PointBatch,
    ScoredPoint,
    StoredPoint,
    all_points,
    scored_points,
    stored_points,
)
from feast_embeddings.errors import EngineError
from feast_embeddings.filters import payload_key
from feast_embeddings.shard_folder import Collection, Pointer, ShardFolder

__all__ = ["EmbeddedEngine"]

_INDEXES = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "bool": edge.PayloadSchemaType.Bool,
}
_CHUNK = 1000
# Points per update: so few that they are still in the processor's cache when Qdrant reads them.
_UPSERT = 64
# Qdrant's default: from 10 MB of vectors on, a graph answers faster than a scan.
_GRAPH_KB = 10_000
# Where the writer should not wait for one: up to this size, 1,000,000 x 64, a scan costs a search some milliseconds,
# while the graph costs the writer many seconds.
_SCAN_KB = 262_144
# Qdrant's defaults for a node; m=0 keeps a vector out of the graph.
_HNSW = edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=10_000)
_NO_HNSW = edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000)


# Engines of this process, to be made usable again in a forked child.
_ENGINES: weakref.WeakSet[EmbeddedEngine] = weakref.WeakSet()


class EmbeddedEngine:
    """`feast_embeddings.engine.Engine` over a folder; safe to use from many threads and processes.

    Args:
        path: the folder; made on the first write.
        lock_timeout: seconds to wait for another writer before `WriterLockedError`.
    """

    def __init__(self, path: Path, *, lock_timeout: float = 30.0) -> None:
        self._folder = ShardFolder(path, lock_timeout=lock_timeout)
        self._guard = threading.Lock()
        self._shards: dict[str, edge.EdgeShard] = {}
        self._shards_before_fork: list[dict[str, edge.EdgeShard]] = []
        _ENGINES.add(self)

    # Reading

    def aliases(self) -> dict[str, str]:
        return dict(self._folder.pointer().aliases)

    def collections(self, alias: str) -> dict[str, CollectionSpec]:
        pointer = self._folder.pointer()
        return {name: c.spec for name, c in pointer.collections.items() if c.spec.alias == alias}

    def describe(self, collection: str) -> CollectionSpec:
        return self._folder.pointer().collection(collection).spec

    def retrieve(self, collection: str, ids: Sequence[str], *, vectors: Sequence[str]) -> list[StoredPoint | None]:
        with _engine_errors(f"read from {collection!r}"):
            records = self._shard(collection).retrieve(list(ids), with_payload=True, with_vector=list(vectors) or False)
        return stored_points(records, ids)

    def query(
        self,
        collection: str,
        vector_name: str,
        vector: npt.NDArray[np.float32],
        *,
        limit: int,
        filter: models.Filter | None = None,
    ) -> list[ScoredPoint]:
        request = edge.QueryRequest(
            limit=limit,
            query=edge.Query.Nearest(vector.tolist(), using=vector_name),
            filter=None if filter is None else to_edge(filter),
            with_payload=True,
        )
        with _engine_errors(f"search {collection!r}"):
            hits = self._shard(collection).query(request)
        return scored_points(hits)

    def scroll(
        self,
        collection: str,
        *,
        payload: Sequence[str],
        vectors: Sequence[str],
        filter: models.Filter | None = None,
    ) -> Iterator[list[StoredPoint]]:
        shard, offset = self._shard(collection), None
        while True:
            request = edge.ScrollRequest(
                offset=offset,
                limit=_CHUNK,
                filter=None if filter is None else to_edge(filter),
                with_payload=[payload_key(name) for name in payload] or False,
                with_vector=list(vectors) or False,
            )
            with _engine_errors(f"read from {collection!r}"):
                records, offset = shard.scroll(request)
            yield all_points(records)
            if offset is None:
                return

    def count(self, collection: str) -> int:
        with _engine_errors(f"count {collection!r}"):
            return self._shard(collection).count(edge.CountRequest(exact=True))

    # Writing

    def switch(self, aliases: Mapping[str, str | None]) -> None:
        with self._folder.writing() as pointer:
            for collection in aliases.values():
                if collection is not None:
                    pointer.collection(collection)
            merged = {**pointer.aliases, **aliases}
            live = {alias: collection for alias, collection in merged.items() if collection is not None}
            self._folder.replace(pointer.model_copy(update={"aliases": live}))

    def create(
        self, collection: str, spec: CollectionSpec, batches: Iterable[PointBatch], *, wait_for_graph: bool = True
    ) -> None:
        # Built outside the writer lock: nobody else knows this shard, and others may write meanwhile.
        with self._folder.new_shard(collection) as path:
            with _engine_errors(f"create {collection!r}"):
                path.mkdir()
                shard = edge.EdgeShard.create(str(path), _edge_config(spec, wait_for_graph))
                for name, index in spec.payload_indexes.items():
                    operation = edge.UpdateOperation.create_field_index(payload_key(name), _INDEXES[index])
                    shard.update(operation)
            for batch in batches:
                with _engine_errors(f"write to {collection!r}"):
                    _write(shard, batch)
            with _engine_errors(f"index {collection!r}"):
                _finish(shard, path)
            with self._folder.writing() as pointer:
                self._folder.replace(pointer.with_collection(collection, Collection(shard=path.name, spec=spec)))

    def upsert(self, collection: str, batches: Iterable[PointBatch], *, wait_for_graph: bool = True) -> None:
        with self._folder.writing() as pointer:
            current = pointer.collection(collection)
            with self._folder.new_shard(collection) as path:
                with _engine_errors(f"write to {collection!r}"):
                    # Readers that load the shard write temporary files beside its own, and delete them at once.
                    temporary = shutil.ignore_patterns(".atomicwrite*")
                    shutil.copytree(self._folder.shard_path(current.shard), path, ignore=temporary)
                    shard = edge.EdgeShard.load(str(path), _edge_config(current.spec, wait_for_graph))
                for batch in batches:
                    with _engine_errors(f"write to {collection!r}"):
                        _write(shard, _without_older(shard, batch))
                with _engine_errors(f"index {collection!r}"):
                    _finish(shard, path)
                changed = Collection(shard=path.name, spec=current.spec)
                self._folder.replace(pointer.with_collection(collection, changed))

    def drop(self, collections: Iterable[str]) -> None:
        unwanted = set(collections)
        if not unwanted & set(self._folder.pointer().collections):
            return
        with self._folder.writing() as pointer:
            gone = unwanted - set(pointer.aliases.values())
            kept = {name: c for name, c in pointer.collections.items() if name not in gone}
            self._folder.replace(Pointer(aliases=pointer.aliases, collections=kept))

    def close(self) -> None:
        with self._guard:
            self._shards.clear()

    def _shard(self, collection: str) -> edge.EdgeShard:
        """The loaded shard that holds the collection now."""
        with self._guard:
            while True:
                pointer = self._folder.pointer()
                name = pointer.collection(collection).shard
                if name not in self._shards:
                    # Those that a write has replaced are closed when the last query on them is done.
                    self._shards = {name: shard for name, shard in self._shards.items() if name in pointer.shards}
                    try:
                        self._shards[name] = edge.EdgeShard.load(str(self._folder.shard_path(name)))
                    except Exception:
                        # A writer may have replaced and cleared it between our two looks.
                        if self._folder.pointer().collection(collection).shard == name:
                            raise
                        continue
                return self._shards[name]

    def after_fork_in_child(self) -> None:
        """Load afresh: the threads of the loaded shards are gone, and their locks may be held for ever."""
        self._guard = threading.Lock()
        self._folder.forget_locks()
        # Kept, because closing a shard would wait for its threads.
        self._shards_before_fork.append(self._shards)
        self._shards = {}


def _after_fork_in_child() -> None:
    for engine in _ENGINES:
        engine.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _edge_config(spec: CollectionSpec, wait_for_graph: bool) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={
            name: edge.EdgeVectorParams(
                size=vector.size,
                distance=getattr(edge.Distance, vector.distance),
                hnsw_config=_HNSW if vector.indexed else _NO_HNSW,
            )
            for name, vector in spec.vectors.items()
        },
        # `optimize` builds a graph for the segments above this size.
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=_GRAPH_KB if wait_for_graph else _SCAN_KB),
        # Qdrant Edge refuses a shard of no vectors; a sparse one that no point has makes no difference.
        sparse_vectors=None if spec.vectors else {"_none": edge.EdgeSparseVectorParams()},
        # A shard is complete before anybody sees it, so a write-ahead log would only be written and thrown away.
        wal_enabled=False,
    )


def _write(shard: edge.EdgeShard, batch: PointBatch) -> None:
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


def _without_older(shard: edge.EdgeShard, batch: PointBatch) -> PointBatch:
    stored = {
        str(record.id): (record.payload or {})[TIMESTAMP_KEY]
        for record in shard.retrieve(list(batch.ids), with_payload=[TIMESTAMP_KEY], with_vector=False)
    }
    newest = np.array([stored.get(id, np.iinfo(np.int64).min) for id in batch.ids], dtype=np.int64)
    return batch.take(np.flatnonzero(batch.timestamps >= newest))


def _finish(shard: edge.EdgeShard, path: Path) -> None:
    shard.optimize()
    shard.flush()
    shard.close()
    # Flushing leaves journals, which the next load works in and deletes. That must not be a reader's.
    edge.EdgeShard.load(str(path)).close()


@contextlib.contextmanager
def _engine_errors(what: str) -> Iterator[None]:
    try:
        yield
    except EngineError:
        raise
    except OSError as error:
        raise EngineError(f"the embedded store could not {what}: {error.strerror or error}") from error
    except Exception as error:  # qdrant_edge raises plain Exception
        raise EngineError(f"the embedded store could not {what}: {error}") from error
