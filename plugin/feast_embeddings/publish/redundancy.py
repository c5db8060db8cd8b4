"""Whether the collections of a cluster outlive the loss of a node, and wait until they do."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence

from feast_embeddings.engines.engine import Engine
from feast_embeddings.engines.server.cluster import Peer, Shard
from feast_embeddings.engines.server.engine import ServerEngine
from feast_embeddings.errors import EngineError, InputError
from feast_embeddings.online.settings import OnlineStoreSettings

__all__ = [
    "inactive",
    "is_single",
    "lack_of_redundancy",
    "naming_dead_nodes",
    "silent_nodes",
    "single_replica",
    "wait_for_replicas",
]

_POLL_SECONDS = 0.2


def inactive(shards: Sequence[Shard], peers: Sequence[Peer]) -> list[str]:
    """Describe the replicas that do not serve: not active, or on a node that does not answer."""
    known = {peer.id: peer for peer in peers}
    found = []
    for shard in shards:
        for id, state in shard.replicas.items():
            if id not in shard.sound(peers):
                node = known[id].uri if id in known else f"peer {id}"
                silent = ", which does not answer" if id in known and not known[id].answers else ""
                found.append(f"shard {shard.number} is {state} on {node}{silent}")
        if not shard.replicas:
            found.append(f"shard {shard.number} is on no node")
    return found


def is_single(shards: Sequence[Shard]) -> bool:
    """Return whether some shard has only one replica."""
    return any(len(shard.replicas) < 2 for shard in shards)


def single_replica(collections: Sequence[str], peers: Sequence[Peer]) -> str:
    """Return the warning for collections of which some shard has only one replica."""
    return (
        f"{', '.join(collections)}: one replica of each shard, on {len(peers)} nodes; one dead node stops all queries. "
        "Set online_store.replication_factor to 2 or more; it applies from the next published version on"
    )


def silent_nodes(peers: Sequence[Peer]) -> str:
    """Name the nodes that do not answer, and say what to do; empty if all answer."""
    silent = [f"{peer.uri} (peer {peer.id})" for peer in peers if not peer.answers]
    if not silent:
        return ""
    return (
        f"no answer from {len(silent)} of {len(peers)} nodes: {', '.join(silent)}; bring them back, or remove them for "
        "good with DELETE /cluster/peer/ID?force=true at another node"
    )


@contextlib.contextmanager
def naming_dead_nodes(engine: Engine, settings: OnlineStoreSettings) -> Iterator[None]:
    """Add to a failure of Qdrant in the block which nodes do not answer, and what to do.

    Raises:
        EngineError: as in the block.
    """
    try:
        yield
    except EngineError as error:
        # Without a cause it is of this package, and says what to do already.
        if error.__cause__ is None or not isinstance(engine, ServerEngine):
            raise
        try:
            silent = silent_nodes(engine.cluster.peers())
        except EngineError:
            raise error from error.__cause__
        if not silent:
            raise
        advice = ""
        if (settings.replication_factor or 1) < 2:
            advice = "; with online_store.replication_factor 2 or more, one dead node does not stop a publish"
        raise EngineError(f"{error}; {silent}, then publish again{advice}") from error


def lack_of_redundancy(engine: Engine, collections: Iterable[str]) -> Iterator[str]:
    """Yield a warning for collections of which the loss of one more node, or of one already lost, takes a part."""
    if not isinstance(engine, ServerEngine) or len(peers := engine.cluster.peers()) < 2:
        return
    single = []
    for collection in collections:
        shards = engine.cluster.shards(collection)
        if is_single(shards):
            single.append(collection)
        if left := inactive(shards, peers):
            yield f"{collection} lacks replicas: {'; '.join(left)}"
    if single:
        yield single_replica(single, peers)


def wait_for_replicas(engine: Engine, collections: Sequence[str], seconds: float) -> None:
    """Wait until all replicas of these collections are active on nodes that answer.

    Raises:
        EngineError: they are not after this many seconds.
        InputError: the engine is embedded.
    """
    if not isinstance(engine, ServerEngine):
        raise InputError("replicas are of a Qdrant server; the embedded engine has none to wait for")
    deadline = time.monotonic() + seconds
    while True:
        peers = engine.cluster.peers()
        left = [
            f"{collection}: {'; '.join(found)}"
            for collection in collections
            if peers and (found := inactive(engine.cluster.shards(collection), peers))
        ]
        if not left:
            return
        if time.monotonic() >= deadline:
            raise EngineError(
                f"not all replicas are active after {seconds:g} s: {'; '.join(left)}. Start these nodes, or wait "
                "longer; the live version stays"
            )
        time.sleep(_POLL_SECONDS)
