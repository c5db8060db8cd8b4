"""The server engine: a Qdrant node or cluster, through `qdrant-client`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from feast_embeddings.engines.engine import (
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
from feast_embeddings.engines.server.catalog import Catalog, metadata_of, spec_in
from feast_embeddings.engines.server.cluster import ClusterView
from feast_embeddings.engines.server.describer import Describer
from feast_embeddings.engines.server.failures import Caller
from feast_embeddings.engines.server.on_loop import AsyncServer
from feast_embeddings.engines.server.requests import chunks, guarded_upserts, payload_updates, upload, wanted
from feast_embeddings.engines.server.storage import (
    Storage,
    add_indexes,
    create_collection,
    create_indexes,
    search_parameters,
)
from feast_embeddings.errors import EngineError

__all__ = ["ServerEngine"]

_PAGE = 1000
_STREAMS = 4
_POLL_SECONDS = 0.1
_GREEN = models.CollectionStatus.GREEN


class ServerEngine:
    """`feast_embeddings.engines.engine.Engine` over a `QdrantClient`, which it owns and closes.

    The spec of a collection is stored in its metadata, which needs Qdrant 1.16 or newer.

    Args:
        client: connected to the node or cluster.
        retries: retries of a request after a transient failure.
        hnsw: how graphs of new collections are built, and all are searched.
        storage: how new collections are stored.
        index_timeout: seconds to wait for Qdrant to build the indexes of a new collection.
        streams: concurrent requests that upload a new collection.
        connect: makes clients for event loops.

    Attributes:
        on_loop: reads and writes by key from an event loop; None without `connect`.
        cluster: the nodes, and where replicas are.
    """

    def __init__(
        self,
        client: QdrantClient,
        *,
        retries: int = 0,
        hnsw: Hnsw | None = None,
        storage: Storage | None = None,
        index_timeout: float = 3600.0,
        streams: int = _STREAMS,
        connect: Callable[[], AsyncQdrantClient] | None = None,
    ) -> None:
        self._hnsw = hnsw or Hnsw()
        self._storage = storage or Storage()
        self._client = client
        self._index_timeout = index_timeout
        self._catalog = Catalog()
        self._caller = Caller(retries)
        self._ask = self._caller.ask
        self.cluster = ClusterView(self._caller, client)
        self._describer = Describer(self._caller, client, self._catalog, self.cluster)
        self.on_loop = (
            None if connect is None else AsyncServer(connect, self._catalog, self._caller, self._storage.consistency)
        )
        self._streams = streams

    def server_version(self) -> str:
        """Return the version that Qdrant reports, e.g. ``1.16.3``."""
        return str(self._ask("tell its version", self._client.info).version)

    def aliases(self) -> dict[str, str]:
        return self._catalog.aliases(self._ask("list aliases", self._client.get_aliases))

    def collections(self, alias: str) -> dict[str, CollectionSpec]:
        return self._describer.collections(alias)

    def describe(self, collection: str) -> CollectionSpec:
        return self._describer.describe(collection)

    def switch(self, aliases: Mapping[str, str | None]) -> None:
        current = self.aliases()
        operations: list[models.AliasOperations] = [
            models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
            for alias in aliases
            if alias in current
        ]
        operations += [
            models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=alias))
            for alias, collection in aliases.items()
            if collection is not None
        ]
        if not operations:
            return
        try:
            # One request: Qdrant applies all of it or nothing.
            self._ask("switch aliases", self._client.update_collection_aliases, operations)
        except EngineError:
            # The switch may have happened, and only its answer was lost or late.
            if not self._is_switched(aliases):
                raise

    def _is_switched(self, aliases: Mapping[str, str | None]) -> bool:
        with contextlib.suppress(EngineError):
            now = self.aliases()
            return all(now.get(alias) == collection for alias, collection in aliases.items())
        return False

    def create(
        self, collection: str, spec: CollectionSpec, batches: Iterable[PointBatch], *, wait_for_indexes: bool = True
    ) -> None:
        spec = spec.model_copy(update={"datatype": self._storage.datatype})
        self._catalog.forget(collection)
        exists = self._describer.exists(collection)
        half_built = spec_in(self._describer.info(collection)) if exists and spec.fingerprint else None
        resumed = half_built is not None and half_built.same_content(spec) and self.count(collection) > 0
        if not resumed:
            self._make(collection, spec, replace=exists)
        upload(self._caller, self._client, collection, batches, streams=self._streams, skip_present=resumed)
        if wait_for_indexes:
            self.wait_until_indexed(collection)

    def _make(self, collection: str, spec: CollectionSpec, *, replace: bool) -> None:
        if replace:
            self._ask(f"create {collection!r}", self._client.delete_collection, collection)
        create_collection(self._caller, self._client, collection, spec, self._hnsw, self._storage)

    def free_bytes(self) -> int | None:
        return None

    def wait_until_indexed(self, collection: str) -> None:
        deadline, indexing = time.monotonic() + self._index_timeout, f"index {collection!r}"
        while (status := self._ask(indexing, self._client.get_collection, collection).status) != _GREEN:
            if status == models.CollectionStatus.GREY:
                # The server has restarted meanwhile, and waits for a first update.
                optimizers = models.OptimizersConfigDiff()
                self._ask(indexing, self._client.update_collection, collection, optimizers_config=optimizers)
            if time.monotonic() > deadline:
                raise EngineError(f"Qdrant did not finish indexing {collection!r} within {self._index_timeout:g} s")
            time.sleep(_POLL_SECONDS)

    def annotate(self, collection: str, spec: CollectionSpec) -> None:
        metadata = metadata_of(spec)
        self._ask(f"describe {collection!r}", self._client.update_collection, collection, metadata=metadata)
        self._catalog.forget(collection)

    def add_indexes(self, collection: str, indexes: Mapping[str, IndexType]) -> None:
        create_indexes(self._caller, self._client, collection, indexes)
        spec = self.describe(collection)
        self.annotate(collection, spec.model_copy(update={"payload_indexes": {**spec.payload_indexes, **indexes}}))

    def upsert(self, collection: str, batches: Iterable[PointBatch], *, wait_for_indexes: bool = True) -> None:
        for batch in batches:
            for chunk in chunks(batch):
                upserts = guarded_upserts(chunk)
                self._ask(f"write to {collection!r}", self._client.batch_update_points, collection, upserts)
        if wait_for_indexes:
            self.wait_until_indexed(collection)

    def set_payload(self, collection: str, payloads: Mapping[PointId, Mapping[str, Any]]) -> None:
        for updates in payload_updates(payloads):
            self._ask(f"write to {collection!r}", self._client.batch_update_points, collection, updates)

    def forget(self, collection: str, ids: Collection[PointId], payloads: Mapping[PointId, Mapping[str, Any]]) -> None:
        if ids:
            points = models.PointIdsList(points=list(ids))
            self._ask(f"remove points of {collection!r}", self._client.delete, collection, points)
        self.set_payload(collection, payloads)

    def retrieve(
        self,
        collection: str,
        ids: Sequence[PointId],
        *,
        vectors: Sequence[str],
        payload: Sequence[str] | None = None,
    ) -> list[StoredPoint | None]:
        what, parts = f"read from {collection!r}", wanted(payload, vectors)
        records = self._ask(
            what, self._client.retrieve, collection, list(ids), **parts, consistency=self._storage.consistency
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
        candidates = self._hnsw.candidates(search_ef, enough_ef)
        answer = self._ask(
            f"search {collection!r}",
            self._client.query_points,
            collection,
            vector.tolist(),
            using=vector_name,
            limit=limit,
            query_filter=filter,
            with_payload=payload_keys(payload),
            search_params=search_parameters(self._storage, candidates, exact=exact, filtered=filter is not None),
            consistency=self._storage.consistency,
        )
        return scored_points(answer.points)

    def scroll(
        self,
        collection: str,
        *,
        payload: Sequence[str] | None,
        vectors: Sequence[str],
        filter: models.Filter | None = None,
    ) -> Iterator[list[StoredPoint]]:
        def page(start: PointId | None) -> Page:
            return self.page(collection, limit=_PAGE, start=start, payload=payload, vectors=vectors, filter=filter)

        def page_of_any_age(start: PointId | None) -> Page:
            try:
                return page(start)
            except EngineError:
                if filter is None or not self._add_indexes(collection):
                    raise
            return page(start)

        return all_pages(page_of_any_age)

    def _add_indexes(self, collection: str) -> bool:
        """Make the indexes that a collection of an older release lacks; False if it lacks none, or on failure."""
        with contextlib.suppress(EngineError):
            return add_indexes(self._caller, self._client, collection, self._describer.info(collection))
        return False

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
        what, parts = f"read from {collection!r}", wanted(payload, vectors)
        records, following = self._ask(
            what,
            self._client.scroll,
            collection,
            scroll_filter=filter,
            limit=limit,
            offset=start,
            **parts,
            consistency=self._storage.consistency,
        )
        return all_points(records), None if following is None else plain_id(following)

    def highest(
        self,
        collection: str,
        key: str,
        *,
        limit: int,
        filter: models.Filter | None = None,
        payload: Sequence[str] | None = None,
    ) -> list[StoredPoint]:
        records, _ = self._ask(
            f"read from {collection!r}",
            self._client.scroll,
            collection,
            scroll_filter=filter,
            limit=limit,
            order_by=models.OrderBy(key=payload_key(key), direction=models.Direction.DESC),
            **wanted(payload, ()),
            consistency=self._storage.consistency,
        )
        return all_points(records)

    def count(self, collection: str) -> int:
        return self._ask(f"count {collection!r}", self._client.count, collection, exact=True).count

    def drop(self, collections: Iterable[str]) -> None:
        for collection in collections:
            # Qdrant would delete the alias with it. Look it up each time, because another process may switch to it.
            if collection not in self.aliases().values():
                self._ask(f"drop {collection!r}", self._client.delete_collection, collection)

    def leftovers(self) -> list[str]:
        return []

    def close(self) -> None:
        self._client.close()
