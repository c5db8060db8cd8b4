"""Check that the nodes of a Qdrant cluster answer, and that the live collections have all their replicas."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from feast_embeddings.doctor.findings import Finding
from feast_embeddings.doctor.patient import Patient
from feast_embeddings.engines.server.engine import ServerEngine
from feast_embeddings.publish.redundancy import inactive, is_single, silent_nodes, single_replica

__all__ = ["cluster"]


def cluster(patient: Patient) -> Iterator[Finding]:
    """Check the nodes, and the replicas of live collections on them; a server alone has none."""
    engine = patient.need_engine()
    if not isinstance(engine, ServerEngine) or not (peers := engine.cluster.peers()):
        return
    url = patient.need_config().online_store.url
    look = shlex.join(["curl", "--fail", f"{url}/cluster"])
    if silent := silent_nodes(peers):
        yield Finding("cluster", "problem", silent, look)
    else:
        yield Finding("cluster", "ok", f"{len(peers)} nodes answer")
    if len(peers) < 2:
        return
    for model, sides in patient.registered():
        publish = patient.command("publish", model)
        worst = False
        for name, spec in patient.live(sides).values():
            shards = engine.cluster.shards(name)
            where = f"curl --fail {shlex.quote(f'{url}/collections/{name}/cluster')}"
            left = inactive(shards, peers)
            lost = [shard.number for shard in shards if not shard.sound(peers)]
            if lost:
                message = f"{name} cannot be read, as shards {lost} have no active replica: {'; '.join(left)}"
                again = patient.command("publish", model, "--version", spec.version)
                yield Finding("cluster", "problem", message, again, model)
            elif left:
                yield Finding("cluster", "warning", f"{name} lacks replicas: {'; '.join(left)}", where, model)
            if is_single(shards):
                yield Finding("cluster", "warning", single_replica([name], peers), publish, model)
            if moved := sum(shard.transfers for shard in shards):
                yield Finding("cluster", "warning", f"{name}: {moved} replicas are being copied", where, model)
            worst |= bool(left or moved or is_single(shards))
        if not worst:
            yield Finding("cluster", "ok", "all replicas are active", model=model)
