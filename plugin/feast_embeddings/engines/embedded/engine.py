"""The embedded engine: Qdrant Edge, Qdrant's own engine in this process, over a folder.

Qdrant Edge takes no lock, and two processes that write one shard diverge silently. So a shard that readers can see is
never written: a write copies the shard, changes the copy, and moves the pointer of the folder (see `ShardFolder`).
Readers check the pointer before each answer, and load the new shard if it moved. A process that dies leaves at most a
shard that the pointer does not name; the next writer deletes it.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import qdrant_edge as edge
from qdrant_client import models

from feast_embeddings.engines.embedded.filler import ShardFiller, as_rows, usable_processes
from feast_embeddings.engines.embedded.filler_process import write
from feast_embeddings.engines.embedded.filter import filter_keys, to_edge
from feast_embeddings.engines.embedded.folder import Collection as Stored
from feast_embeddings.engines.embedded.folder import Pointer, ShardFolder
from feast_embeddings.engines.embedded.shards import (
    LoadedShards,
    complete,
    create_indexes,
    edge_config,
    engine_errors,
    set_keys,
    without,
    without_older,
)
from feast_embeddings.engines.engine import (
    ACORN_SELECTIVITY,
    CollectionSpec,
    Hnsw,
    IndexType,
    Page,
    PointBatch,
    PointId,
    ScoredPoint,
    StoredPoint,
    all_pages,
    all_points,
    plain_id,
    scored_points,
    stored_points,
)
from feast_embeddings.engines.payload import payload_key, payload_keys
from feast_embeddings.errors import EngineError, WriterLockedError

__all__ = ["EmbeddedEngine"]

_log = logging.getLogger(__name__)

_CHUNK = 1000
# A filter without a payload index checks every point: up to this many take some milliseconds.
_UNINDEXED_POINTS = 10_000


class EmbeddedEngine:
    """`feast_embeddings.engines.engine.Engine` over a folder; safe to use from many threads and processes.

    Args:
        path: the folder; made on the first write.
        lock_timeout: seconds to wait for another writer before `WriterLockedError`.
        hnsw: how new graphs are built, and all are searched.
        processes: how many may write a new collection together; None for the number of cores, up to 4.
    """

    def __init__(
        self, path: Path, *, lock_timeout: float = 30.0, hnsw: Hnsw | None = None, processes: int | None = None
    ) -> None:
        self._hnsw = hnsw or Hnsw()
        self._processes = processes or usable_processes()
        self._folder = ShardFolder(path, lock_timeout=lock_timeout)
        self._shards = LoadedShards(self._folder)
        self._not_indexable: set[str] = set()

    # Reading

    def aliases(self) -> dict[str, str]:
        return dict(self._folder.pointer().aliases)

    def collections(self, alias: str) -> dict[str, CollectionSpec]:
        pointer = self._folder.pointer()
        return {name: c.spec for name, c in pointer.collections.items() if c.spec.alias == alias}

    def describe(self, collection: str) -> CollectionSpec:
        return self._folder.pointer().collection(collection).spec

    def retrieve(
        self,
        collection: str,
        ids: Sequence[PointId],
        *,
        vectors: Sequence[str],
        payload: Sequence[str] | None = None,
    ) -> list[StoredPoint | None]:
        with engine_errors(f"read from {collection!r}"):
            records = self._shards.of(collection).retrieve(
                list(ids), with_payload=payload_keys(payload), with_vector=list(vectors) or False
            )
        return stored_points(records, ids)

    def query(
        self,
        collection: str,
        vector_name: str,
        vector: npt.NDArray[np.float32],
        *,
        limit: int,
        filter: models.Filter | None = None,
        payload: Sequence[str] | None = None,
        exact: bool = False,
        search_ef: int = 0,
        enough_ef: int = 0,
    ) -> list[ScoredPoint]:
        request = edge.QueryRequest(
            limit=limit,
            query=edge.Query.Nearest(vector.tolist(), using=vector_name),
            filter=None if filter is None else to_edge(filter),
            with_payload=payload_keys(payload),
            params=edge.SearchParams(
                hnsw_ef=self._hnsw.candidates(search_ef, enough_ef),
                exact=exact,
                acorn=None
                if filter is None
                else edge.AcornSearchParams(enable=True, max_selectivity=ACORN_SELECTIVITY),
            ),
        )
        with engine_errors(f"search {collection!r}"):
            hits = self._shard_for(collection, filter).query(request)
        return scored_points(hits)

    def scroll(
        self,
        collection: str,
        *,
        payload: Sequence[str] | None,
        vectors: Sequence[str],
        filter: models.Filter | None = None,
    ) -> Iterator[list[StoredPoint]]:
        shard = self._shard_for(collection, filter)
        return all_pages(lambda start: _page(shard, collection, _CHUNK, start, payload, vectors, filter))

    def page(
        self,
        collection: str,
        *,
        limit: int,
        start: PointId | None,
        payload: Sequence[str] | None,
        vectors: Sequence[str],
        filter: models.Filter | None = None,
    ) -> Page:
        return _page(self._shard_for(collection, filter), collection, limit, start, payload, vectors, filter)

    def highest(
        self,
        collection: str,
        key: str,
        *,
        limit: int,
        filter: models.Filter | None = None,
        payload: Sequence[str] | None = None,
    ) -> list[StoredPoint]:
        # As if the filter read the key, which it does in effect.
        has_key = models.Filter(
            must=None if filter is None else [filter],
            must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=payload_key(key)))],
        )
        self._shard_for(collection, has_key)
        # Qdrant orders by an index only. Looked up before the shard, as a newer one has no fewer.
        unindexed = self._folder.pointer().collection(collection).unindexed({key})
        shard = self._shards.of(collection)
        if unindexed:
            pages = all_pages(lambda start: _page(shard, collection, _CHUNK, start, payload, [], has_key))
            return heapq.nlargest(limit, chain.from_iterable(pages), key=lambda point: int(point.payload[key]))
        request = edge.ScrollRequest(
            limit=limit,
            filter=None if filter is None else to_edge(filter),
            with_payload=payload_keys(payload),
            order_by=edge.OrderBy(payload_key(key), edge.Direction.Desc),
        )
        with engine_errors(f"read from {collection!r}"):
            records, _ = shard.scroll(request)
        return all_points(records)

    def count(self, collection: str) -> int:
        with engine_errors(f"count {collection!r}"):
            return self._shards.of(collection).count(edge.CountRequest(exact=True))

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
        self, collection: str, spec: CollectionSpec, batches: Iterable[PointBatch], *, wait_for_indexes: bool = True
    ) -> None:
        # Built outside the writer lock: no other process knows this shard, and others may write meanwhile.
        with self._folder.new_shard(collection) as path:
            indexes = frozenset(spec.payload_indexes if wait_for_indexes else ())
            self._fill(path, collection, spec, indexes, batches, graph=self._has_graph(wait_for_indexes))
            with self._folder.writing() as pointer:
                self._folder.replace(
                    pointer.with_collection(collection, Stored(shard=path.name, spec=spec, indexed=indexes))
                )

    def _fill(
        self,
        path: Path,
        collection: str,
        spec: CollectionSpec,
        indexes: Iterable[str],
        batches: Iterable[PointBatch],
        *,
        graph: bool,
    ) -> None:
        """Make a complete shard of these points, with these payload indexes."""
        with engine_errors(f"create {collection!r}"):
            path.mkdir()
            filler = ShardFiller(path, edge_config(spec, self._hnsw, graph), self._processes, merge=graph)
            create_indexes(filler.shard, spec, indexes)
        with filler:
            for batch in batches:
                with engine_errors(f"write to {collection!r}"):
                    filler.write(batch)
            with engine_errors(f"write to {collection!r}"):
                filler.finish()
        with engine_errors(f"index {collection!r}"):
            complete(path)

    def _has_graph(self, wanted: bool) -> bool:
        return wanted and self._hnsw.m > 0

    def free_bytes(self) -> int | None:
        return self._folder.free_bytes()

    def wait_until_indexed(self, collection: str) -> None:
        pass  # A shard that the pointer names is complete.

    def annotate(self, collection: str, spec: CollectionSpec) -> None:
        with self._folder.writing() as pointer:
            changed = pointer.collection(collection).model_copy(update={"spec": spec})
            self._folder.replace(pointer.with_collection(collection, changed))

    def add_indexes(self, collection: str, indexes: Mapping[str, IndexType]) -> None:
        with self._folder.writing() as pointer:
            current = pointer.collection(collection)
            spec = current.spec.model_copy(update={"payload_indexes": {**current.spec.payload_indexes, **indexes}})
            self._folder.replace(pointer.with_collection(collection, current.model_copy(update={"spec": spec})))

    def upsert(self, collection: str, batches: Iterable[PointBatch], *, wait_for_indexes: bool = True) -> None:
        def change(shard: edge.EdgeShard) -> None:
            for batch in batches:
                with engine_errors(f"write to {collection!r}"):
                    write(shard, as_rows(without_older(shard, batch)))

        with self._folder.writing() as pointer:
            spec = pointer.collection(collection).spec
            indexes = spec.payload_indexes if wait_for_indexes else {}
            self._change(pointer, collection, change, build_graph=wait_for_indexes, indexes=indexes)

    def set_payload(self, collection: str, payloads: Mapping[PointId, Mapping[str, Any]]) -> None:
        def change(shard: edge.EdgeShard) -> None:
            with engine_errors(f"write to {collection!r}"):
                set_keys(shard, payloads)

        with self._folder.writing() as pointer:
            self._change(pointer, collection, change, build_graph=False, indexes={})

    def forget(self, collection: str, ids: Collection[PointId], payloads: Mapping[PointId, Mapping[str, Any]]) -> None:
        # Qdrant only marks what it deletes, so the points that stay are written into a new shard.
        with self._folder.writing() as pointer, self._folder.new_shard(collection) as path:
            current = pointer.collection(collection)
            pages = self.scroll(collection, payload=None, vectors=list(current.spec.vectors))
            batches = (without(page, frozenset(ids), payloads, current.spec) for page in pages)
            indexes = current.indexed
            self._fill(path, collection, current.spec, indexes, batches, graph=self._has_graph(wanted=True))
            self._folder.replace(pointer.with_collection(collection, current.model_copy(update={"shard": path.name})))

    def drop(self, collections: Iterable[str]) -> None:
        unwanted = set(collections)
        if not unwanted & set(self._folder.pointer().collections) and not self.leftovers():
            return
        with self._folder.writing() as pointer:
            gone = unwanted - set(pointer.aliases.values())
            kept = {name: c for name, c in pointer.collections.items() if name not in gone}
            self._folder.replace(Pointer(aliases=pointer.aliases, collections=kept))

    def leftovers(self) -> list[str]:
        return self._folder.leftovers()

    def close(self) -> None:
        self._shards.close()

    def _shard_for(self, collection: str, filter: models.Filter | None) -> edge.EdgeShard:
        """Return the loaded shard, with payload indexes on the features that the filter reads.

        Indexes that no writer has built are built here, by the first filter that needs them. If that is not possible,
        e.g. while another process writes, Qdrant checks every point, which is slower but never wrong.
        """
        current = self._folder.pointer().collection(collection)
        if filter is not None and current.shard not in self._not_indexable:
            keys = filter_keys(filter)
            if current.unindexed(keys) and self._shards.of(collection).count(edge.CountRequest()) > _UNINDEXED_POINTS:
                try:
                    with self._folder.writing(timeout=0) as pointer:
                        if pointer.collection(collection).unindexed(keys):
                            self._change(pointer, collection, lambda _: None, build_graph=False, indexes=keys)
                except WriterLockedError:
                    pass
                except (EngineError, OSError) as error:
                    _log.warning("filters on %r stay slow: %s", collection, error)
                    self._not_indexable.add(current.shard)
        return self._shards.of(collection)

    def _change(
        self,
        pointer: Pointer,
        collection: str,
        change: Callable[[edge.EdgeShard], None],
        *,
        build_graph: bool,
        indexes: Iterable[str],
    ) -> None:
        """Change a copy of a shard, which then replaces it, with these payload indexes. Holds the writer lock."""
        current = pointer.collection(collection)
        missing = current.unindexed(indexes)
        with self._folder.new_shard(collection) as path:
            with engine_errors(f"write to {collection!r}"):
                self._folder.copy_shard(current.shard, path)
                config = edge_config(current.spec, self._hnsw, self._has_graph(build_graph))
                shard = edge.EdgeShard.load(str(path), config)
            change(shard)
            with engine_errors(f"index {collection!r}"):
                create_indexes(shard, current.spec, missing)
                shard.flush()
                shard.close()
                complete(path)
            changed = Stored(shard=path.name, spec=current.spec, indexed=current.indexed | missing)
            self._folder.replace(pointer.with_collection(collection, changed))


def _page(
    shard: edge.EdgeShard,
    collection: str,
    limit: int,
    start: PointId | None,
    payload: Sequence[str] | None,
    vectors: Sequence[str],
    filter: models.Filter | None,
) -> Page:
    request = edge.ScrollRequest(
        offset=start,
        limit=limit,
        filter=None if filter is None else to_edge(filter),
        with_payload=payload_keys(payload),
        with_vector=list(vectors) or False,
    )
    with engine_errors(f"read from {collection!r}"):
        records, following = shard.scroll(request)
    return all_points(records), None if following is None else plain_id(following)
