"""The embedded engine: Qdrant Edge, Qdrant's own engine in this process, over a folder.

::

    <path>/pointer.json          aliases and collections; replaced atomically, so it is one consistent snapshot
    <path>/writer.lock           held by the one process that may change the pointer
    <path>/shards/<shard>/       the files of one state of one collection; never changed once the pointer names them

Qdrant Edge takes no lock, and two processes that write one shard diverge silently. So a shard that readers can
see is never written: a write copies the shard, changes the copy, and moves the pointer. Readers look at the
pointer before each answer (one `stat`), and load the new shard when it moved. A process that dies leaves at
most a folder that the pointer does not name; the next writer clears it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import portalocker
import qdrant_edge as edge
from pydantic import BaseModel, ConfigDict
from qdrant_client import models

from feast_embeddings.edge_filter import to_edge
from feast_embeddings.engine import (
    TIMESTAMP_KEY,
    CollectionSpec,
    PointBatch,
    ScoredPoint,
    StoredPoint,
    scored_points,
    stored_points,
)
from feast_embeddings.errors import EngineError
from feast_embeddings.filters import payload_key
from feast_embeddings.writer_lock import writer_lock

__all__ = ["EmbeddedEngine"]

_INDEXES = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "bool": edge.PayloadSchemaType.Bool,
}
_CHUNK = 1000
_YOUNG_SECONDS = 60
# Qdrant's defaults for a node; m=0 keeps a vector out of the graph.
_HNSW = edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=10_000)
_NO_HNSW = edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000)


class _Collection(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    shard: str
    spec: CollectionSpec


class _Pointer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    aliases: dict[str, str] = {}
    collections: dict[str, _Collection] = {}


class EmbeddedEngine:
    """`feast_embeddings.engine.Engine` over a folder; safe to use from many threads and processes.

    Args:
        path: the folder; made on the first write.
        lock_timeout: seconds to wait for another writer before `WriterLockedError`.
    """

    def __init__(self, path: Path, *, lock_timeout: float = 30.0) -> None:
        self._path = path.resolve()
        self._shards_path = self._path / "shards"
        self._pointer_path = self._path / "pointer.json"
        self._lock_timeout = lock_timeout
        self._guard = threading.RLock()
        self._shards: dict[str, edge.EdgeShard] = {}
        self._pointer = _Pointer()
        self._pointer_stamp: tuple[int, ...] | None = None
        self._pid = os.getpid()

    # Reading

    def aliases(self) -> dict[str, str]:
        return dict(self._read_pointer().aliases)

    def collections(self, alias: str) -> dict[str, CollectionSpec]:
        pointer = self._read_pointer()
        return {name: c.spec for name, c in pointer.collections.items() if c.spec.alias == alias}

    def describe(self, collection: str) -> CollectionSpec:
        return self._entry(self._read_pointer(), collection).spec

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

    def count(self, collection: str) -> int:
        with _engine_errors(f"count {collection!r}"):
            return self._shard(collection).count(edge.CountRequest(exact=True))

    # Writing

    def switch(self, aliases: Mapping[str, str | None]) -> None:
        with self._writing() as pointer:
            for collection in aliases.values():
                if collection is not None:
                    self._entry(pointer, collection)
            merged = {**pointer.aliases, **aliases}
            self._write_pointer(
                pointer.model_copy(update={"aliases": {a: c for a, c in merged.items() if c is not None}})
            )

    def create(self, collection: str, spec: CollectionSpec, batches: Iterable[PointBatch]) -> None:
        # Built outside the writer lock: nobody else knows this folder, and others may write meanwhile.
        with self._new_shard(collection) as folder:
            with _engine_errors(f"create {collection!r}"):
                shard = edge.EdgeShard.create(str(folder), _edge_config(spec))
                for name, index in spec.payload_indexes.items():
                    operation = edge.UpdateOperation.create_field_index(payload_key(name), _INDEXES[index])
                    shard.update(operation)
            for batch in batches:
                with _engine_errors(f"write to {collection!r}"):
                    _write(shard, batch)
            with _engine_errors(f"index {collection!r}"):
                _finish(shard)
            with self._writing() as pointer:
                self._write_collection(pointer, collection, _Collection(shard=folder.name, spec=spec))

    def upsert(self, collection: str, batch: PointBatch) -> None:
        with self._writing() as pointer:
            entry = self._entry(pointer, collection)
            with self._new_shard(collection) as folder, _engine_errors(f"write to {collection!r}"):
                folder.rmdir()
                shutil.copytree(self._shards_path / entry.shard, folder)
                shard = edge.EdgeShard.load(str(folder))
                _write(shard, _without_older(shard, batch))
                _finish(shard)
                self._write_collection(pointer, collection, _Collection(shard=folder.name, spec=entry.spec))

    def drop(self, collections: Iterable[str]) -> None:
        gone = set(collections) & set(self._read_pointer().collections)
        if not gone:
            return
        with self._writing() as pointer:
            kept = {name: c for name, c in pointer.collections.items() if name not in gone}
            aliases = {alias: name for alias, name in pointer.aliases.items() if name not in gone}
            self._write_pointer(_Pointer(aliases=aliases, collections=kept))

    def close(self) -> None:
        with self._guard:
            self._shards.clear()

    # The pointer

    def _read_pointer(self) -> _Pointer:
        with self._guard:
            try:
                status = self._pointer_path.stat()
            except FileNotFoundError:
                return _Pointer()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp != self._pointer_stamp:
                self._pointer = _Pointer.model_validate_json(self._pointer_path.read_bytes())
                self._pointer_stamp = stamp
                live = self._referenced(self._pointer)
                self._shards = {name: shard for name, shard in self._shards.items() if name in live}
            return self._pointer

    def _write_collection(self, pointer: _Pointer, name: str, entry: _Collection) -> None:
        self._write_pointer(pointer.model_copy(update={"collections": {**pointer.collections, name: entry}}))

    def _write_pointer(self, pointer: _Pointer) -> None:
        temporary = self._pointer_path.with_suffix(".tmp")
        with temporary.open("w") as file:
            file.write(pointer.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._pointer_path)
        self._clear_unreferenced(pointer)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[_Pointer]:
        self._shards_path.mkdir(parents=True, exist_ok=True)
        with writer_lock(self._path / "writer.lock", timeout=self._lock_timeout):
            yield self._read_pointer()

    @staticmethod
    def _entry(pointer: _Pointer, collection: str) -> _Collection:
        if collection not in pointer.collections:
            raise EngineError(f"there is no collection {collection!r} in the embedded store")
        return pointer.collections[collection]

    # Shards

    def _shard(self, collection: str) -> edge.EdgeShard:
        with self._guard:
            if self._pid != os.getpid():
                # After a fork the shards' threads are gone. Keep the objects (closing them would wait for those
                # threads) and load afresh.
                self._pid, self._before_fork, self._shards = os.getpid(), self._shards, {}
            while True:
                name = self._entry(self._read_pointer(), collection).shard
                if name not in self._shards:
                    try:
                        self._shards[name] = edge.EdgeShard.load(str(self._shards_path / name))
                    except Exception:
                        # A writer may have replaced and cleared it between our two looks.
                        if self._entry(self._read_pointer(), collection).shard == name:
                            raise
                        continue
                return self._shards[name]

    @contextlib.contextmanager
    def _new_shard(self, collection: str) -> Iterator[Path]:
        """A folder to build a shard in, deleted when the block fails.

        A lock beside it tells other writers that it is being built, and goes with this process if that dies.
        """
        self._shards_path.mkdir(parents=True, exist_ok=True)
        digest = hashlib.blake2b(collection.encode(), digest_size=8).hexdigest()
        folder = self._shards_path / f"{digest}-{uuid.uuid4().hex[:12]}"
        lock = folder.with_suffix(".building")
        with lock.open("w") as handle:
            portalocker.lock(handle, portalocker.LockFlags.EXCLUSIVE)
            folder.mkdir()
            try:
                yield folder
            except BaseException:
                # The failure, or a Ctrl-C, may have come after the pointer moved to this shard.
                if folder.name not in self._referenced(self._read_pointer()):
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            finally:
                lock.unlink(missing_ok=True)

    @staticmethod
    def _referenced(pointer: _Pointer) -> set[str]:
        return {entry.shard for entry in pointer.collections.values()}

    def _clear_unreferenced(self, pointer: _Pointer) -> None:
        """Delete the shards that no collection uses and nobody is building. Called with the writer lock held."""
        referenced = self._referenced(pointer)
        # What cannot be deleted now is left for the next writer: the write itself has succeeded.
        with contextlib.suppress(OSError):
            for path in list(self._shards_path.iterdir()):
                if path.suffix == ".building":
                    # A builder makes its lock first and its folder a moment later; leave a young lock alone.
                    young = time.time() - path.stat().st_mtime < _YOUNG_SECONDS
                    if not young and not path.with_suffix("").exists() and not _is_locked(path):
                        path.unlink()
                elif path.name not in referenced and not _is_locked(path.with_suffix(".building")):
                    shutil.rmtree(path, ignore_errors=True)
                    path.with_suffix(".building").unlink(missing_ok=True)


def _edge_config(spec: CollectionSpec) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={
            name: edge.EdgeVectorParams(
                size=vector.size,
                distance=getattr(edge.Distance, vector.distance),
                hnsw_config=_HNSW if vector.indexed else _NO_HNSW,
            )
            for name, vector in spec.vectors.items()
        },
        # A shard is complete before anybody sees it, so a write-ahead log would only be written and thrown away.
        wal_enabled=False,
    )


def _write(shard: edge.EdgeShard, batch: PointBatch) -> None:
    for start in range(0, len(batch), _CHUNK):
        chunk = batch.take(np.arange(start, min(start + _CHUNK, len(batch))))
        points = [
            edge.Point(id, vectors, payload)
            for id, vectors, payload in zip(chunk.ids, chunk.named_vectors(), chunk.payloads, strict=True)
        ]
        shard.update(edge.UpdateOperation.upsert_points(points))


def _without_older(shard: edge.EdgeShard, batch: PointBatch) -> PointBatch:
    stored = {
        str(record.id): (record.payload or {})[TIMESTAMP_KEY]
        for record in shard.retrieve(list(batch.ids), with_payload=[TIMESTAMP_KEY], with_vector=False)
    }
    newest = np.array([stored.get(id, np.iinfo(np.int64).min) for id in batch.ids], dtype=np.int64)
    return batch.take(np.flatnonzero(batch.timestamps >= newest))


def _finish(shard: edge.EdgeShard) -> None:
    shard.optimize()
    shard.flush()
    shard.close()


def _is_locked(path: Path) -> bool:
    try:
        with path.open("r+") as handle:
            portalocker.lock(handle, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except FileNotFoundError:
        return False
    except portalocker.LockException:
        return True
    return False


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
