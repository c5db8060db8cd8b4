"""The server engine: a Qdrant node or cluster, through `qdrant-client`."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import grpc
import numpy as np
import numpy.typing as npt
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from feast_embeddings.engine import (
    TIMESTAMP_KEY,
    CollectionSpec,
    Hnsw,
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
from feast_embeddings.errors import EngineError
from feast_embeddings.filters import payload_key, payload_keys
from feast_embeddings.server_storage import Storage, creation_parameters, search_parameters

__all__ = ["ServerEngine"]

_BATCH = 256
_PAGE = 1000
_STREAMS = 4
_SPEC = "feast_embeddings"
_POLL_SECONDS = 0.1
# Begins an alias that a collection gets when it is made and loses with its end, to tell it from others of its name.
_BIRTH_MARK = "feast_embeddings_made_"


class ServerEngine:
    """`feast_embeddings.engine.Engine` over a `QdrantClient`, which it owns and closes.

    What a collection holds is kept in the collection's metadata, which needs Qdrant 1.16 or newer.

    Args:
        client: connected to the node or cluster.
        hnsw: how graphs of new collections are built, and all are searched.
        storage: how new collections are stored.
        index_timeout: seconds to wait for Qdrant to build the indexes of a new collection.
        streams: how many requests upload a new collection at a time.
    """

    def __init__(
        self,
        client: QdrantClient,
        *,
        hnsw: Hnsw | None = None,
        storage: Storage | None = None,
        index_timeout: float = 3600.0,
        streams: int = _STREAMS,
    ) -> None:
        self._hnsw = hnsw or Hnsw()
        self._storage = storage or Storage()
        self._client = client
        self._index_timeout = index_timeout
        self._birth_marks: dict[str, str] = {}
        self._described: dict[str, tuple[str, CollectionSpec]] = {}
        self._streams = streams

    def aliases(self) -> dict[str, str]:
        with _engine_errors("list aliases"):
            found = self._client.get_aliases().aliases
        aliases = {alias.alias_name: alias.collection_name for alias in found}
        self._birth_marks = {c: alias for alias, c in aliases.items() if alias.startswith(_BIRTH_MARK)}
        return {alias: c for alias, c in aliases.items() if not alias.startswith(_BIRTH_MARK)}

    def collections(self, alias: str) -> dict[str, CollectionSpec]:
        with _engine_errors("list collections"):
            names = [c.name for c in self._client.get_collections().collections]
        # Names start with the alias; another alias may too, so the metadata decides.
        specs = {name: self._spec(name) for name in names if name.startswith(alias)}
        return {name: spec for name, spec in specs.items() if spec is not None and spec.alias == alias}

    def describe(self, collection: str) -> CollectionSpec:
        # Asked for once. Another process may make a collection of this name anew; the last look at the aliases,
        # which told the caller this name, has then shown another mark.
        mark = self._birth_marks.get(collection)
        known, spec = self._described.get(collection, (None, None))
        if spec is None or known != mark:
            spec = self._spec(collection)
            if spec is None:
                raise EngineError(f"the Qdrant collection {collection!r} was not made by feast-embeddings")
            if mark is not None:
                self._described = {name: known for name, known in self._described.items() if name in self._birth_marks}
                self._described[collection] = mark, spec
        return spec

    def _spec(self, collection: str) -> CollectionSpec | None:
        with _engine_errors(f"describe {collection!r}"):
            metadata = self._client.get_collection(collection).config.metadata or {}
        return CollectionSpec.model_validate(metadata[_SPEC]) if _SPEC in metadata else None

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
        if operations:
            with _engine_errors("switch aliases"):
                # One request: Qdrant applies all of it or nothing.
                self._client.update_collection_aliases(operations)

    def create(
        self, collection: str, spec: CollectionSpec, batches: Iterable[PointBatch], *, wait_for_indexes: bool = True
    ) -> None:
        self._described.pop(collection, None)
        with _engine_errors(f"create {collection!r}"):
            exists = self._client.collection_exists(collection)
        half_built = self._spec(collection) if exists and spec.fingerprint else None
        resumed = half_built is not None and half_built.same_content(spec) and self.count(collection) > 0
        if not resumed:
            self._make(collection, spec, replace=exists)
        self._upload(collection, batches, skip_present=resumed)
        if wait_for_indexes:
            self.wait_until_indexed(collection)

    def _make(self, collection: str, spec: CollectionSpec, *, replace: bool) -> None:
        with _engine_errors(f"create {collection!r}"):
            if replace:
                self._client.delete_collection(collection)
            self._client.create_collection(
                collection,
                metadata={_SPEC: spec.model_dump()},
                **creation_parameters(spec, self._hnsw, self._storage),
            )
            birth_mark = models.CreateAlias(collection_name=collection, alias_name=_BIRTH_MARK + uuid.uuid4().hex)
            self._client.update_collection_aliases([models.CreateAliasOperation(create_alias=birth_mark)])
            # Before the points, so that the graph is built with the filters in mind.
            for name, index in spec.payload_indexes.items():
                self._client.create_payload_index(collection, payload_key(name), models.PayloadSchemaType(index))

    def _upload(self, collection: str, batches: Iterable[PointBatch], *, skip_present: bool) -> None:
        """Several requests at a time, while the next batch is being made."""
        pending: deque[Future[object]] = deque()

        def wait_for(count: int) -> None:
            with _engine_errors(f"write to {collection!r}"):
                while len(pending) > count:
                    pending.popleft().result()

        with ThreadPoolExecutor(self._streams) as pool:
            try:
                for batch in batches:
                    if skip_present:
                        wait_for(0)
                        batch = self._absent(collection, batch)
                    for chunk in _chunks(batch):
                        wait_for(self._streams - 1)
                        pending.append(
                            pool.submit(lambda chunk: self._client.upsert(collection, _points(chunk)), chunk)
                        )
                wait_for(0)
            except BaseException:
                for future in pending:
                    future.cancel()
                raise

    def _absent(self, collection: str, batch: PointBatch) -> PointBatch:
        """The points that the collection does not hold."""
        with _engine_errors(f"read from {collection!r}"):
            found = self._client.retrieve(collection, list(batch.ids), with_payload=False, with_vectors=False)
        present = {record.id for record in found}
        return batch.take(np.flatnonzero([id not in present for id in batch.ids]))

    def free_bytes(self) -> int | None:
        return None

    def wait_until_indexed(self, collection: str) -> None:
        deadline = time.monotonic() + self._index_timeout
        with _engine_errors(f"index {collection!r}"):
            while (status := self._client.get_collection(collection).status) != models.CollectionStatus.GREEN:
                if status == models.CollectionStatus.GREY:
                    # Restarted in the middle, and waiting for a first update.
                    self._client.update_collection(collection, optimizers_config=models.OptimizersConfigDiff())
                if time.monotonic() > deadline:
                    raise EngineError(f"Qdrant did not finish indexing {collection!r} within {self._index_timeout:g} s")
                time.sleep(_POLL_SECONDS)

    def annotate(self, collection: str, spec: CollectionSpec) -> None:
        with _engine_errors(f"describe {collection!r}"):
            self._client.update_collection(collection, metadata={_SPEC: spec.model_dump()})
        self._described.pop(collection, None)

    def upsert(self, collection: str, batches: Iterable[PointBatch], *, wait_for_indexes: bool = True) -> None:
        for batch in batches:
            with _engine_errors(f"write to {collection!r}"):
                for chunk in _chunks(batch):
                    # The condition is checked by Qdrant with the write, so that concurrent writers cannot undo each
                    # other. It is one per timestamp; all of a chunk's go in one request.
                    self._client.batch_update_points(collection, _guarded_upserts(chunk))
        if wait_for_indexes:
            self.wait_until_indexed(collection)

    def retrieve(
        self,
        collection: str,
        ids: Sequence[PointId],
        *,
        vectors: Sequence[str],
        payload: Sequence[str] | None = None,
    ) -> list[StoredPoint | None]:
        with _engine_errors(f"read from {collection!r}"):
            records = self._client.retrieve(
                collection, list(ids), with_payload=payload_keys(payload), with_vectors=list(vectors) or False
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
    ) -> list[ScoredPoint]:
        with _engine_errors(f"search {collection!r}"):
            hits = self._client.query_points(
                collection,
                vector.tolist(),
                using=vector_name,
                limit=limit,
                query_filter=filter,
                with_payload=payload_keys(payload),
                search_params=search_parameters(self._hnsw, self._storage, exact=exact, search_ef=search_ef),
            ).points
        return scored_points(hits)

    def scroll(
        self,
        collection: str,
        *,
        payload: Sequence[str],
        vectors: Sequence[str],
        filter: models.Filter | None = None,
    ) -> Iterator[list[StoredPoint]]:
        return all_pages(
            lambda start: self.page(
                collection, limit=_PAGE, start=start, payload=payload, vectors=vectors, filter=filter
            )
        )

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
        with _engine_errors(f"read from {collection!r}"):
            records, following = self._client.scroll(
                collection,
                scroll_filter=filter,
                limit=limit,
                offset=start,
                with_payload=payload_keys(payload),
                with_vectors=list(vectors) or False,
            )
        return all_points(records), None if following is None else plain_id(following)

    def count(self, collection: str) -> int:
        with _engine_errors(f"count {collection!r}"):
            return self._client.count(collection, exact=True).count

    def drop(self, collections: Iterable[str]) -> None:
        for collection in collections:
            # Qdrant would delete the alias with it. Looked up each time, as another process may switch to it.
            if collection not in self.aliases().values():
                with _engine_errors(f"drop {collection!r}"):
                    self._client.delete_collection(collection)

    def close(self) -> None:
        self._client.close()


def _chunks(batch: PointBatch) -> list[PointBatch]:
    return [batch.take(np.arange(start, min(start + _BATCH, len(batch)))) for start in range(0, len(batch), _BATCH)]


def _guarded_upserts(batch: PointBatch) -> list[models.UpdateOperation]:
    """Upserts that leave alone the stored points with a newer event timestamp than that of the point to write."""
    operations: list[models.UpdateOperation] = []
    for timestamp in np.unique(batch.timestamps):
        not_newer = models.Filter(
            must_not=[models.FieldCondition(key=TIMESTAMP_KEY, range=models.Range(gt=int(timestamp)))]
        )
        points = _points(batch.take(np.flatnonzero(batch.timestamps == timestamp)))
        operations.append(models.UpsertOperation(upsert=models.PointsList(points=points, update_filter=not_newer)))
    return operations


def _points(batch: PointBatch) -> list[models.PointStruct]:
    return [
        models.PointStruct(id=id, vector=vectors, payload=payload)
        for id, vectors, payload in zip(batch.ids, batch.named_vectors(), batch.payloads, strict=True)
    ]


@contextlib.contextmanager
def _engine_errors(what: str) -> Iterator[None]:
    """Say what failed and why, without headers or settings that could hold the API key."""
    try:
        yield
    except EngineError:
        raise
    except UnexpectedResponse as error:
        reason = f"HTTP {error.status_code} {error.reason_phrase}"
        raise EngineError(f"Qdrant could not {what}: {reason}") from error
    except grpc.RpcError as error:
        code = error.code().name if isinstance(error, grpc.Call) else type(error).__name__
        detail = error.details() if isinstance(error, grpc.Call) else ""
        raise EngineError(f"Qdrant could not {what}: {code} {detail}".rstrip()) from error
    except (ApiException, ResourceExhaustedResponse, OSError, ValueError, RuntimeError) as error:
        raise EngineError(f"Qdrant could not {what}: {error}") from error
