"""The folder of the embedded engine: its shards, which of them are live, and the writer lock.

::

    <path>/pointer.json          aliases and collections; replaced atomically, so it is one consistent snapshot
    <path>/writer.lock           held by the one process that may change the pointer
    <path>/shards/<shard>/       the files of one state of one collection; never changed once the pointer names them

This module is independent of the content of a shard.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import portalocker
from pydantic import BaseModel, ConfigDict, ValidationError

from feast_embeddings.engines.engine import CollectionSpec
from feast_embeddings.errors import EngineError
from feast_embeddings.files import is_held, writer_lock, written_whole

__all__ = ["Collection", "Pointer", "ShardFolder"]

_YOUNG_SECONDS = 60
_DELETIONS = 3


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Collection(_Frozen):
    """One collection: the shard that holds its points now, and its spec."""

    shard: str
    spec: CollectionSpec
    indexed: frozenset[str] = frozenset()
    """The payload indexes of `spec` that the shard has."""

    def unindexed(self, names: Iterable[str]) -> frozenset[str]:
        """Return the names that should have a payload index, but have none yet."""
        return (frozenset(names) & self.spec.payload_indexes.keys()) - self.indexed


class Pointer(_Frozen):
    """The content of the folder at one moment."""

    aliases: dict[str, str] = {}
    collections: dict[str, Collection] = {}

    def collection(self, name: str) -> Collection:
        """Return the collection of this name; `EngineError` if there is none."""
        if name not in self.collections:
            raise EngineError(f"there is no collection {name!r} in the embedded store")
        return self.collections[name]

    def with_collection(self, name: str, collection: Collection) -> Pointer:
        """Return a copy with one collection added or replaced."""
        return self.model_copy(update={"collections": {**self.collections, name: collection}})

    @property
    def shards(self) -> set[str]:
        """Return the shards that are in use by a collection."""
        return {collection.shard for collection in self.collections.values()}


class ShardFolder:
    """A folder of shards. Reads need no lock; a change takes the writer lock, and replaces the pointer atomically.

    Args:
        path: the folder; made on the first write.
        lock_timeout: seconds to wait for another writer before `WriterLockedError`.
    """

    def __init__(self, path: Path, *, lock_timeout: float) -> None:
        self.path = path.resolve()
        self._shards = self.path / "shards"
        self._pointer_path = self.path / "pointer.json"
        self._lock_timeout = lock_timeout
        self._guard = threading.Lock()
        self._pointer = Pointer()
        self._stamp: tuple[int, ...] | None = None

    def shard_path(self, shard: str) -> Path:
        """Return the folder of a shard's files."""
        return self._shards / shard

    def free_bytes(self) -> int:
        """Return the free space on the folder's disk."""
        folder = self.path
        while not folder.exists():
            folder = folder.parent
        free: int = shutil.disk_usage(folder).free
        return free

    def pointer(self) -> Pointer:
        """Return the current pointer, whichever process wrote it; costs one `stat` if nothing has changed.

        Raises:
            EngineError: the pointer file is damaged.
        """
        try:
            status = self._pointer_path.stat()
        except FileNotFoundError:
            return Pointer()
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        with self._guard:
            if stamp != self._stamp:
                try:
                    self._pointer = Pointer.model_validate_json(self._pointer_path.read_bytes())
                except ValidationError:
                    raise EngineError(
                        f"{self._pointer_path} is damaged, so the live version is unknown; restore it, or load "
                        "everything again (see feast-embeddings doctor)"
                    ) from None
                self._stamp = stamp
            return self._pointer

    @contextlib.contextmanager
    def writing(self, *, timeout: float | None = None) -> Iterator[Pointer]:
        """Hold the writer lock during the block; wait for it for the folder's timeout, or this one."""
        self._shards.mkdir(parents=True, exist_ok=True)
        with writer_lock(self.path / "writer.lock", timeout=self._lock_timeout if timeout is None else timeout):
            yield self.pointer()

    def replace(self, pointer: Pointer) -> None:
        """Replace the pointer, and delete shards that it no longer names. Called with the writer lock held."""
        with written_whole(self._pointer_path) as file:
            file.write(pointer.model_dump_json(indent=1).encode())
        self._clear_unreferenced(pointer.shards)

    @contextlib.contextmanager
    def new_shard(self, collection: str) -> Iterator[Path]:
        """Yield a path for a new shard, which does not exist yet; deleted if the block fails.

        A lock next to it shows other writers that it is being built, and ends with this process if that dies.
        """
        self._shards.mkdir(parents=True, exist_ok=True)
        digest = hashlib.blake2b(collection.encode(), digest_size=8).hexdigest()
        shard = self._shards / f"{digest}-{uuid.uuid4().hex[:12]}"
        lock = shard.with_suffix(".building")
        with lock.open("w") as handle:
            portalocker.lock(handle, portalocker.LockFlags.EXCLUSIVE)
            try:
                yield shard
            except BaseException:
                # The failure, or a Ctrl-C, may have come after the pointer moved to this shard.
                if shard.name not in self.pointer().shards:
                    _delete(shard)
                raise
            finally:
                lock.unlink(missing_ok=True)

    def copy_shard(self, shard: str, target: Path) -> None:
        """Copy the files of a shard, to change the copy."""
        # Readers that load the shard write temporary files next to its own, and delete them at once.
        temporary = shutil.ignore_patterns(".atomicwrite*")
        shutil.copytree(self.shard_path(shard), target, ignore=temporary, copy_function=_copy_without_holes)

    def _clear_unreferenced(self, referenced: set[str]) -> None:
        """Delete the shards that no collection uses and no process is building."""
        for path in list(self._shards.iterdir()):
            # Leave what cannot be deleted now to the next writer: the write itself has succeeded. A lock and its
            # folder may be gone since they were listed.
            with contextlib.suppress(OSError):
                if path.suffix == ".building":
                    # A builder makes its lock first and its folder a moment later; keep a recent lock.
                    young = time.time() - path.stat().st_mtime < _YOUNG_SECONDS
                    if not young and not path.with_suffix("").exists() and not is_held(path):
                        path.unlink()
                elif path.name not in referenced and not is_held(path.with_suffix(".building")):
                    _delete(path)
                    path.with_suffix(".building").unlink(missing_ok=True)

    def leftovers(self) -> list[str]:
        """Return shards of killed writers, or that a writer could not delete; the next writer deletes them."""
        folders = [path for path in self._shards.iterdir() if path.is_dir()] if self._shards.is_dir() else []
        idle = [path.name for path in folders if not is_held(path.with_suffix(".building"))]
        # After checking the locks: a builder moves the pointer before it releases its lock.
        return sorted(set(idle) - self.pointer().shards)

    def forget_locks(self) -> None:
        """Reset locks in a forked child: another thread of the parent may have held the guard."""
        self._guard = threading.Lock()


def _delete(shard: Path) -> None:
    """Delete a shard as far as possible: a reader that loads it may add a file while its folder is emptied."""
    for _ in range(_DELETIONS):
        shutil.rmtree(shard, ignore_errors=True)
        if not shard.exists():
            return


def _copy_without_holes(source: str, target: str) -> None:
    """Copy a file; holes in it take no time and no disk.

    Qdrant preallocates its files, and most of a shard can be holes.
    """
    if not hasattr(os, "SEEK_DATA") or not hasattr(os, "sendfile"):
        shutil.copyfile(source, target)
        return
    with Path(source).open("rb") as reading, Path(target).open("wb") as writing:
        size = os.fstat(reading.fileno()).st_size
        writing.truncate(size)
        position = 0
        while position < size:
            try:
                position = os.lseek(reading.fileno(), position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # only a hole is left
                    return
                raise
            end = os.lseek(reading.fileno(), position, os.SEEK_HOLE)
            writing.seek(position)
            while position < end:
                position += os.sendfile(writing.fileno(), reading.fileno(), position, end - position)
