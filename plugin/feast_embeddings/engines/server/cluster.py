"""The nodes of a Qdrant cluster, and where the replicas of a collection are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qdrant_client import QdrantClient, models

from feast_embeddings.engines.engine import CollectionSpec
from feast_embeddings.engines.server.catalog import spec_of_metadata
from feast_embeddings.engines.server.failures import Caller, http_status

__all__ = ["ClusterView", "Peer", "Shard"]

# A frozen node holds up the answer about all of them for as long.
_PROBE_SECONDS = 30
_ACTIVE = models.ReplicaState.ACTIVE


@dataclass(frozen=True)
class Peer:
    """One node."""

    id: int
    uri: str
    answers: bool


@dataclass(frozen=True)
class Shard:
    """A part of a collection: the state of each replica by the id of its peer, and how many are being copied."""

    number: int
    replicas: Mapping[int, str]
    transfers: int

    def sound(self, peers: Sequence[Peer]) -> list[int]:
        """Return the ids of the answering peers with an active replica; without any, the shard is out of reach."""
        answering = {peer.id for peer in peers if peer.answers}
        return [peer for peer, state in self.replicas.items() if state == _ACTIVE.value and peer in answering]


class ClusterView:
    """What one node knows of its cluster, all of it without a request to another node but for `peers`."""

    def __init__(self, caller: Caller, client: QdrantClient) -> None:
        self._ask = caller.ask
        self._client = client

    def peers(self) -> list[Peer]:
        """Return the nodes of the cluster; none for a server that is not in one."""
        status = self._ask("look at its cluster", self._client.cluster_status)
        if not isinstance(status, models.ClusterStatusOneOf1):
            return []
        uris = {int(id): peer.uri for id, peer in status.peers.items()}
        silent = self._silent() if len(uris) > 1 else set()
        if silent is None:
            # Servers before 1.17 only know to which nodes the messages of the consensus could not be sent.
            silent = {id for id, uri in uris.items() if uri in status.message_send_failures}
        return [Peer(id, uri, id not in silent) for id, uri in sorted(uris.items())]

    def _silent(self) -> set[int] | None:
        """Return the nodes that do not answer the others; None if the server cannot say."""
        try:
            answer = self._get("/cluster/telemetry", details_level=1, timeout=_PROBE_SECONDS)
        except Exception as error:
            if http_status(error) in (404, 405):
                return None
            raise
        peers: dict[str, Any] = answer["cluster"]["peers"]
        return {int(id) for id, peer in peers.items() if not peer["responsive"]}

    def shards(self, collection: str) -> list[Shard]:
        """Return the shards of a collection, each with its replicas."""
        what = f"look for the replicas of {collection!r}"
        info = self._ask(what, self._client.collection_cluster_info, collection)
        states: dict[int, dict[int, str]] = {number: {} for number in range(info.shard_count)}
        for local in info.local_shards:
            states.setdefault(local.shard_id, {})[info.peer_id] = local.state.value
        for remote in info.remote_shards:
            states.setdefault(remote.shard_id, {})[remote.peer_id] = remote.state.value
        moved = [transfer.shard_id for transfer in info.shard_transfers]
        return [Shard(number, replicas, moved.count(number)) for number, replicas in sorted(states.items())]

    def spec(self, collection: str) -> CollectionSpec | None:
        """Return the spec of a collection as this node has it, though shards may be out of reach; None if unknown."""
        answer = self._get("/telemetry", details_level=3)
        found: list[dict[str, Any]] = answer["collections"].get("collections") or []
        return next((spec_of_metadata(c["config"].get("metadata")) for c in found if c["id"] == collection), None)

    def _get(self, path: str, **parameters: Literal[1, 3] | int) -> dict[str, Any]:
        # The client's own methods refuse an answer that lacks what only some systems report.
        def get() -> dict[str, Any]:
            texts = {name: str(value) for name, value in parameters.items()}
            answer: dict[str, Any] = self._client.http.client.request(
                type_=dict[str, Any], method="GET", url=path, params=texts
            )
            result: dict[str, Any] = answer["result"]
            return result

        return self._ask("look at its cluster", get)
