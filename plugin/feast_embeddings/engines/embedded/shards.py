"""Shards of the embedded engine: their configuration, changes to them, and the loaded ones of this process."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from feast_embeddings.engines.embedded.filler import MOST_PROCESSES
from feast_embeddings.engines.embedded.folder import ShardFolder
from feast_embeddings.engines.engine import (
    TIMESTAMP_KEY,
    CollectionSpec,
    Hnsw,
    IndexType,
    PointBatch,
    PointId,
    StoredPoint,
    all_points,
)
from feast_embeddings.engines.payload import payload_key
from feast_embeddings.engines.points import vectors_of
from feast_embeddings.errors import EngineError, is_refused_write

__all__ = [
    "ROOM_BYTES",
    "LoadedShards",
    "complete",
    "create_indexes",
    "edge_config",
    "engine_errors",
    "set_keys",
    "without",
    "without_older",
]

_log = logging.getLogger(__name__)

_INDEXES: dict[IndexType, edge.PayloadSchemaType | edge.IntegerIndexParams] = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "lookup": edge.IntegerIndexParams(lookup=True, range=False),
    "unlinked": edge.IntegerIndexParams(lookup=True, range=True, enable_hnsw=False),
    "float": edge.PayloadSchemaType.Float,
    "bool": edge.PayloadSchemaType.Bool,
}
# Qdrant's default: from 10 MB of vectors up, a graph is faster than a scan.
_GRAPH_KB = 10_000
# If the writer should not wait for a graph: up to this size, 1,000,000 x 64, a scan adds some milliseconds to a search,
# while the graph costs the writer many seconds.
_SCAN_KB = 262_144
_ANY_SIZE = 2**40
# Files that loading a shard may write.
ROOM_BYTES = 2**20

# The instances of this process, to make them usable again in a forked child.
_ALL: weakref.WeakSet[LoadedShards] = weakref.WeakSet()


def edge_config(spec: CollectionSpec, hnsw: Hnsw, build_graph: bool) -> edge.EdgeConfig:
    """Return the configuration of a shard for this collection."""
    return edge.EdgeConfig(
        vectors={
            name: edge.EdgeVectorParams(
                size=vector.size,
                distance=getattr(edge.Distance, vector.distance),
                hnsw_config=edge.HnswIndexConfig(
                    m=hnsw.m if vector.indexed else 0,  # 0 builds no graph for the vector
                    ef_construct=hnsw.ef_construct,
                    full_scan_threshold=_GRAPH_KB,
                ),
            )
            for name, vector in spec.vectors.items()
        },
        # `optimize` builds a graph for the segments above this size.
        optimizers=edge.EdgeOptimizersConfig(
            indexing_threshold=_GRAPH_KB if build_graph else _SCAN_KB,
            # `optimize` also merges segments beyond this number; searching one graph is faster than several.
            default_segment_number=1 if build_graph else MOST_PROCESSES,
            max_segment_size=_ANY_SIZE if build_graph else None,
        ),
        # Qdrant Edge refuses a shard without vectors; a sparse one that no point has changes nothing.
        sparse_vectors=None if spec.vectors else {"_none": edge.EdgeSparseVectorParams()},
        # A shard is complete before any reader sees it, so a write-ahead log would be useless.
        wal_enabled=False,
    )


def create_indexes(shard: edge.EdgeShard, spec: CollectionSpec, names: Iterable[str]) -> None:
    """Create payload indexes on these features, for present and future points."""
    for name in sorted(names):
        index = _INDEXES[spec.payload_indexes[name]]
        shard.update(edge.UpdateOperation.create_field_index(payload_key(name), index))


def without_older(shard: edge.EdgeShard, batch: PointBatch) -> PointBatch:
    """Return the points that are not older than the shard's version of them."""
    stored = {
        point.id: point.payload[TIMESTAMP_KEY]
        for point in all_points(shard.retrieve(list(batch.ids), with_payload=[TIMESTAMP_KEY], with_vector=False))
    }
    newest = np.array([stored.get(id, np.iinfo(np.int64).min) for id in batch.ids], dtype=np.int64)
    return batch.take(np.flatnonzero(batch.timestamps >= newest))


def set_keys(shard: edge.EdgeShard, payloads: Mapping[PointId, Mapping[str, Any]]) -> None:
    """Set keys in the payload of the points that the shard has; None removes a key."""
    # Qdrant refuses ids that are not there.
    for point in all_points(shard.retrieve(list(payloads), with_payload=False, with_vector=False)):
        keys = payloads[point.id]
        if there := {key: value for key, value in keys.items() if value is not None}:
            shard.update(edge.UpdateOperation.set_payload([point.id], there))
        if gone := [key for key, value in keys.items() if value is None]:
            shard.update(edge.UpdateOperation.delete_payload([point.id], gone))


def without(
    points: Sequence[StoredPoint],
    ids: Collection[PointId],
    payloads: Mapping[PointId, Mapping[str, Any]],
    spec: CollectionSpec,
) -> PointBatch:
    """Return stored points to write, but those with these ids, and with these keys of the payload set."""
    kept = [point for point in points if point.id not in ids]
    return PointBatch(
        ids=[point.id for point in kept],
        vectors={name: vectors_of(kept, name, vector.size) for name, vector in spec.vectors.items()},
        payloads=[_changed(point.payload, payloads.get(point.id, {})) for point in kept],
        timestamps=np.array([point.payload[TIMESTAMP_KEY] for point in kept], dtype=np.int64),
    )


def _changed(payload: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**payload, **keys}.items() if value is not None}


def complete(path: Path) -> None:
    """Finish a shard whose points are flushed: build the graph, if its configuration has one, and settle its files."""
    shard = edge.EdgeShard.load(str(path))
    if shard.optimize():
        shard.flush()
        shard.close()
        shard = edge.EdgeShard.load(str(path))
    # Flushing leaves journals, which the next load processes and deletes. No reader must have to do that.
    shard.close()


@contextlib.contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Convert any failure in the block to an `EngineError` that names the failed operation."""
    try:
        yield
    except EngineError:
        raise
    except OSError as error:
        raise EngineError(f"the embedded store could not {what}: {error.strerror or error}") from error
    except Exception as error:  # qdrant_edge raises plain Exception
        raise EngineError(f"the embedded store could not {what}: {error}") from error


class LoadedShards:
    """The loaded shard of each collection; safe to use from many threads.

    Args:
        folder: knows the current shard of each collection.
    """

    def __init__(self, folder: ShardFolder) -> None:
        self._folder = folder
        self._guard = threading.Lock()
        self._shards: dict[str, edge.EdgeShard] = {}
        self._before_fork: list[dict[str, edge.EdgeShard]] = []
        _ALL.add(self)

    def of(self, collection: str) -> edge.EdgeShard:
        """Return the loaded shard that holds the collection now."""
        with self._guard:
            while True:
                pointer = self._folder.pointer()
                name = pointer.collection(collection).shard
                if name not in self._shards:
                    # Shards that a write replaced are closed after their last query.
                    self._shards = {name: shard for name, shard in self._shards.items() if name in pointer.shards}
                    try:
                        self._shards[name] = _load(self._folder, name)
                    except Exception:
                        # A writer may have replaced and deleted it between our two reads.
                        if self._folder.pointer().collection(collection).shard == name:
                            raise
                        continue
                return self._shards[name]

    def close(self) -> None:
        """Forget the shards; each is closed after its last query."""
        with self._guard:
            self._shards.clear()

    def after_fork_in_child(self) -> None:
        """Load the shards again: the threads of the loaded ones are gone, and their locks may be held forever."""
        self._guard = threading.Lock()
        self._folder.forget_locks()
        # Kept, because closing a shard would wait for its threads.
        self._before_fork.append(self._shards)
        self._shards = {}


def _load(folder: ShardFolder, name: str) -> edge.EdgeShard:
    """Load a shard in place or, if the folder cannot be written, from an unlinked copy of its files.

    Qdrant Edge opens its files for writing, and makes temporary ones, even if it only reads. It maps them into memory,
    so a disk that fills up meanwhile ends the process.
    """
    path = folder.shard_path(name)
    if shutil.disk_usage(path).free >= ROOM_BYTES:
        try:
            return edge.EdgeShard.load(str(path))
        except Exception as error:  # qdrant_edge raises plain Exception
            if not is_refused_write(error):
                raise
    # The files exist as long as the shard has them open; a killed process leaves none.
    with tempfile.TemporaryDirectory(prefix="feast-embeddings-", ignore_cleanup_errors=True) as copies:
        copy = Path(copies) / name
        try:
            folder.copy_shard(name, copy)
            if shutil.disk_usage(copies).free < ROOM_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror or error
            raise EngineError(
                f"{folder.path} cannot be written, and the copy to read instead does not fit into "
                f"{tempfile.gettempdir()} ({reason}); make room, or set TMPDIR to a folder with room"
            ) from error
        shard = edge.EdgeShard.load(str(copy))
    _log.warning("%s cannot be written, so reading a copy of %s in %s", folder.path, name, tempfile.gettempdir())
    return shard


def _after_fork_in_child() -> None:
    for shards in _ALL:
        shards.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
