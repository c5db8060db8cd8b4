"""The shards that this process reads, as many as the folder's pointer names, each loaded with its first use."""

from __future__ import annotations

import os
import threading
import weakref

import qdrant_edge as edge

from feast_embeddings.shard_folder import ShardFolder

__all__ = ["LoadedShards"]

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
                        self._shards[name] = edge.EdgeShard.load(str(self._folder.shard_path(name)))
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


def _after_fork_in_child() -> None:
    for shards in _ALL:
        shards.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
