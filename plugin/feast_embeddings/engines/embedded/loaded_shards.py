"""The shards that this process reads, as many as the folder's pointer names, each loaded with its first use."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
import threading
import weakref
from pathlib import Path

import qdrant_edge as edge

from feast_embeddings.engines.embedded.folder import ShardFolder
from feast_embeddings.errors import EngineError, is_refused_write

__all__ = ["ROOM_BYTES", "LoadedShards"]

_log = logging.getLogger(__name__)

# What loading a shard may write.
ROOM_BYTES = 2**20

# Those of this process, to be made usable again in a forked child.
_ALL: weakref.WeakSet[LoadedShards] = weakref.WeakSet()


class LoadedShards:
    """Shards by the collection that they hold now; safe to use from many threads.

    Args:
        folder: says which shard that is.
    """

    def __init__(self, folder: ShardFolder) -> None:
        self._folder = folder
        self._guard = threading.Lock()
        self._shards: dict[str, edge.EdgeShard] = {}
        self._before_fork: list[dict[str, edge.EdgeShard]] = []
        _ALL.add(self)

    def of(self, collection: str) -> edge.EdgeShard:
        """The loaded shard that holds the collection now."""
        with self._guard:
            while True:
                pointer = self._folder.pointer()
                name = pointer.collection(collection).shard
                if name not in self._shards:
                    # Those that a write has replaced are closed when the last query on them is done.
                    self._shards = {name: shard for name, shard in self._shards.items() if name in pointer.shards}
                    try:
                        self._shards[name] = _load(self._folder, name)
                    except Exception:
                        # A writer may have replaced and cleared it between our two looks.
                        if self._folder.pointer().collection(collection).shard == name:
                            raise
                        continue
                return self._shards[name]

    def close(self) -> None:
        """Forget them; each is closed when the last query on it is done."""
        with self._guard:
            self._shards.clear()

    def after_fork_in_child(self) -> None:
        """Load afresh: the threads of the loaded shards are gone, and their locks may be held for ever."""
        self._guard = threading.Lock()
        self._folder.forget_locks()
        # Kept, because closing a shard would wait for its threads.
        self._before_fork.append(self._shards)
        self._shards = {}


def _load(folder: ShardFolder, name: str) -> edge.EdgeShard:
    """A shard from where it is or, where it cannot be written, from a copy of its files that has no name any more.

    Qdrant Edge opens its files for writing, and makes temporary ones, also for what is only read. It maps them into
    memory, so a disk that fills up meanwhile ends the process.
    """
    path = folder.shard_path(name)
    if shutil.disk_usage(path).free >= ROOM_BYTES:
        try:
            return edge.EdgeShard.load(str(path))
        except Exception as error:  # qdrant_edge raises plain Exception
            if not is_refused_write(error):
                raise
    # Its files stay as long as the shard has them open; a process that is killed leaves none.
    with tempfile.TemporaryDirectory(prefix="feast-embeddings-", ignore_cleanup_errors=True) as copies:
        copy = Path(copies) / name
        try:
            folder.copy_shard(name, copy)
            if shutil.disk_usage(copies).free < ROOM_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror or error
            raise EngineError(
                f"{folder.path} cannot be written, and the copy that could be read instead does not fit into "
                f"{tempfile.gettempdir()} ({reason}); make room, or name a folder with room in TMPDIR"
            ) from error
        shard = edge.EdgeShard.load(str(copy))
    _log.warning("%s cannot be written, so a copy of %s in %s is read", folder.path, name, tempfile.gettempdir())
    return shard


def _after_fork_in_child() -> None:
    for shards in _ALL:
        shards.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
